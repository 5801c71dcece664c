"""docs/format.md keeps to what the code does: its example runs, and it explains every key."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import DATA, REPOSITORY

from lightning_trt_windows.artifact.manifest import FORMAT_VERSION
from lightning_trt_windows.artifact.shapes import DTYPES

TEXT = (REPOSITORY / "docs" / "format.md").read_text(encoding="utf-8")


def keys(value: Any) -> set[str]:
    """Keys that the format defines, not those that users choose."""
    if isinstance(value, list):
        return {key for item in value for key in keys(item)}
    if not isinstance(value, dict):
        return set()
    free = {"extra", "verification", "versions", "options", "sizes", "shapes"}
    return {key for name, item in value.items() for key in ({name} if name in free else {name, *keys(item)})}


def test_the_specification_is_of_this_version() -> None:
    """In its title and in its history."""
    assert TEXT.startswith(f"# The artifact format, version {FORMAT_VERSION}\n")
    assert f"| {FORMAT_VERSION} |" in TEXT


def test_every_key_is_specified() -> None:
    """Each in a table, alone or after the object it is in."""
    cells = " ".join(row.split("|")[1] for row in TEXT.splitlines() if row.startswith("|"))
    specified = set(re.findall(r"[`.](\w+)", cells))
    assert keys(json.loads((DATA / "manifest_v1_3.json").read_text(encoding="utf-8"))) - specified == set()


def test_every_dtype_is_specified() -> None:
    """The list is closed, so it has to be right."""
    (row,) = (row for row in TEXT.splitlines() if row.startswith("| `dtype` | text | `bool`"))
    assert set(re.findall(r"`(\w+)`", row)) - {"dtype"} == DTYPES


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, on the sample; it needs nothing but the standard library."""
    shutil.copy(DATA / "tiny.windows.ep", tmp_path / "m.windows.ep")
    shutil.copy(DATA / "tiny.windows.json", tmp_path / "m.windows.json")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "format.md", "exec"), {})
    assert (tmp_path / "m.engine").read_bytes()[:4] == b"vtrt"
