"""``docs/options.md`` says what the code does."""

from __future__ import annotations

import dataclasses
import re

from support.options_page import PAGE, REFUSED, with_table

from lightning_trt_windows._compat.torch_tensorrt import upstream
from lightning_trt_windows.settings import ExportSettings

TEXT = PAGE.read_text(encoding="utf-8")


def documented(heading: str) -> set[str]:
    """The names in the first column of the tables below ``heading``."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(heading))
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_refused_options_are_those_of_the_backend() -> None:
    """When this fails: python tests/support/options_page.py."""
    assert with_table(TEXT) == TEXT
    assert documented("Refused") == {option for refused in REFUSED.values() for option in refused}


def test_every_setting_is_on_the_page() -> None:
    """Those of this package."""
    assert documented("Settings") == {field.name for field in dataclasses.fields(ExportSettings)}


def test_every_option_of_the_installed_upstream_is_on_the_page() -> None:
    """Either with what it does, or with the reason why it is refused."""
    installed = {field.name for field in dataclasses.fields(upstream().CompilationSettings)}
    both, classic = documented("Options of both backends"), documented("Options of TensorRT alone")
    assert installed - set(REFUSED["tensorrt_rtx"]) <= both
    assert not both & (set(REFUSED["tensorrt_rtx"]) | set(REFUSED["tensorrt"]))
    assert classic == set(REFUSED["tensorrt_rtx"]) - set(REFUSED["tensorrt"])
