"""The rule for workarounds, held against every one of them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from lightning_trt_windows import _compat
from lightning_trt_windows._compat.versions import Workaround, minor

HERE = Path(__file__).parent
OLDEST = "2.11"
"""The oldest minor of PyTorch and Torch-TensorRT that the code runs on (by hand: the extras begin with 2.12)."""

WORKAROUNDS = {
    f"{module.name}.{name}": value
    for module in pkgutil.iter_modules(_compat.__path__)
    for name, value in vars(importlib.import_module(f"{_compat.__name__}.{module.name}")).items()
    if isinstance(value, Workaround)
}


@pytest.mark.parametrize("name", sorted(WORKAROUNDS))
def test_workaround_says_what_the_rule_asks_for(name: str) -> None:
    """A reason in a sentence, a link, when it can go, and a test that exists."""
    workaround = WORKAROUNDS[name]
    assert workaround.reason.endswith(".")
    assert workaround.delete.endswith(".")
    assert re.match(r"https://(github\.com|docs\.nvidia\.com)/\S+$", workaround.link)
    file, _, test = workaround.test.partition("::")
    assert f"def {test}(" in (HERE.parent / file if "/" in file else HERE / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(WORKAROUNDS))
def test_workaround_is_not_overdue(name: str) -> None:
    """One for releases that are no longer supported is deleted."""
    until = WORKAROUNDS[name].until
    assert until is None or WORKAROUNDS[name].upstream == "tensorrt-rtx" or minor(until) > minor(OLDEST)


def test_every_file_of_workarounds_is_listed() -> None:
    """The package's docstring names each module beside it."""
    for module in pkgutil.iter_modules(_compat.__path__):
        assert re.search(rf"^{module.name}  ", _compat.__doc__ or "", flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("version", "cut"),
    [("2.14.1", (2, 14)), ("2.13.0+cpu", (2, 13)), ("2.15a0", (2, 15)), ("3", (3, 0)), ("?", (0, 0)), (None, (0, 0))],
)
def test_a_version_is_cut_to_its_minor(version: str | None, cut: tuple[int, int]) -> None:
    """Local parts and patches go; what is not installed comes before everything."""
    assert minor(version) == cut


def test_an_interval_ends_before_its_second_bound() -> None:
    """The release that is fixed does not need the workaround."""
    known = next(iter(WORKAROUNDS.values()))
    fields = {name: getattr(known, name) for name in ("upstream", "reason", "link", "test", "delete")}
    workaround = Workaround(since="2.11", until="2.13", **fields)
    needed = [workaround.needed_by(version) for version in ("2.10.9", "2.11.0", "2.12.1", "2.13.0", "2.14.1+cpu")]
    assert needed == [False, True, True, False, False]
    assert Workaround(since="2.11", until=None, **fields).needed_by("9.9")
