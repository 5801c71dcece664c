"""The error tree and how its messages read."""

from __future__ import annotations

import builtins
import pickle
import re
from collections.abc import Iterable

import pytest

from lightning_trt_windows import errors
from lightning_trt_windows.errors import (
    ArtifactError,
    LightningTrtError,
    OutputError,
    UnsupportedFormatError,
    did_you_mean,
)

ALL = [found for name in errors.__all__ if isinstance(found := getattr(errors, name), type)]


def test_every_error_is_ours() -> None:
    """One except clause catches them all."""
    assert all(issubclass(error, LightningTrtError) for error in ALL)


def test_each_error_has_an_exit_code_of_its_own() -> None:
    """Scripts tell failures apart by the code."""
    codes = [error.exit_code for error in ALL]
    assert len(set(codes)) == len(codes)


def test_the_drawn_tree_is_the_tree() -> None:
    """The module's docstring names every error with its builtin base and its exit code."""
    assert errors.__doc__ is not None
    drawn = {
        name: (base, int(code))
        for name, base, code in re.findall(r"─ (\w+)(?: \((\w+)\))?.*?exit (\d+)$", errors.__doc__, re.MULTILINE)
    }
    for error in set(ALL) - {LightningTrtError}:
        base, code = drawn.pop(error.__name__)
        assert error.exit_code == code
        assert not base or issubclass(error, getattr(builtins, base))
    assert not drawn


def test_one_issue_is_one_line() -> None:
    """Nothing but the file and the issue."""
    assert str(ArtifactError("m.windows.json", ["status: missing"])) == "m.windows.json: status: missing"


def test_several_issues_are_all_listed() -> None:
    """Each on a line of its own, after their number."""
    error = ArtifactError("m.windows.json", iter(["one", "two"]))
    assert str(error) == "m.windows.json: 2 issues\n  - one\n  - two"
    assert error.issues == ("one", "two")


@pytest.mark.parametrize(
    "error", [ArtifactError("f", ["a", "b"]), UnsupportedFormatError("f", ["a"]), OutputError("no")]
)
def test_errors_cross_process_borders(error: LightningTrtError) -> None:
    """An export in another process reports its failure whole."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    ("name", "known", "options", "end"),
    [
        ("bathc", ["batch", "length"], {}, "; did you mean 'batch'?"),
        ("bathc", ["batch"], {"otherwise": "known are batch"}, "; did you mean 'batch'?"),
        ("bathc", {"batch": 1}, {"prefix": "x."}, "; did you mean 'x.batch'?"),
        ("bath", ["patch", "batch"], {}, "; did you mean 'batch'?"),
        ("colour", ["batch"], {"otherwise": "known are batch", "prefix": "x."}, "; known are batch"),
        ("colour", ["batch"], {}, ""),
        ("batch", [], {"otherwise": "it takes nothing"}, "; it takes nothing"),
        ("", ["batch"], {}, ""),
        ("bathc", iter(["batch"]), {}, "; did you mean 'batch'?"),
    ],
)
def test_a_suggestion_ends_the_message(name: str, known: Iterable[str], options: dict[str, str], end: str) -> None:
    """The nearest name where one is near, what is known where none is, and otherwise nothing."""
    assert did_you_mean(name, known, **options) == end
