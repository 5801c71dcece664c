"""``docs/versions.md`` says what the columns of the matrix measured and what the code works around."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from support.paths import REPOSITORY
from support.versions_page import DISTRIBUTIONS, PAGE, rows, with_tables

from lightning_trt_windows._compat.versions import minor

TEXT = PAGE.read_text(encoding="utf-8")
NOXFILE = (REPOSITORY / "noxfile.py").read_text(encoding="utf-8")
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def pinned(column: str) -> dict[str, str]:
    """The exact versions that a column installs, by distribution."""
    (pins,) = re.findall(rf'^    "{re.escape(column)}": \((.*?)\)', NOXFILE, flags=re.M | re.S)
    return dict(re.findall(r'"([\w-]+)===?([^"]+)"', pins))


COLUMNS = re.findall(r'^    "(2\.\d+)": \(', NOXFILE, flags=re.M)


def test_tables_are_those_of_the_data() -> None:
    """When this fails: python tests/support/versions_page.py."""
    assert with_tables(TEXT) == TEXT


def row(column: str, session: str) -> dict[str, Any]:
    """What was measured for a column; skips where nothing was yet."""
    if column not in rows():
        pytest.skip(f'nobody ran this column yet: nox -s "{session}"')
    return rows()[column]


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_was_run_with_its_pins(column: str) -> None:
    """Each has a row, made with the versions that noxfile.py names now, in which nothing failed."""
    measured = row(column, f"versions(torch='{column}')")
    for name, version in pinned(column).items():
        assert measured[name].partition("+")[0] == version, f"run nox again: {name}"
    assert (measured["failed"], measured["artifacts"]) == (0, 2)


def test_the_build_for_cpus_was_run() -> None:
    """Its row says that it was one, with the versions that the page tells people to install."""
    measured = row("2.13 for CPUs", "cpu")
    torch, distribution = measured["torch"], measured["torch-tensorrt-rtx"]
    assert torch.endswith("+cpu")
    assert (measured["failed"], measured["artifacts"]) == (0, 2)
    assert f"torch=={torch} torch-tensorrt-rtx=={distribution} --extra-index-url" in TEXT
    assert f'"torch=={torch}", "torch-tensorrt-rtx=={distribution}"' in NOXFILE


def test_columns_are_what_the_extra_takes() -> None:
    """The oldest and the newest that the extra admits have a column, and all between; 2.11 is by hand."""
    (low, high) = re.findall(r'"torch>=(2\.\d+),<(2\.\d+)"', PYPROJECT)[0]
    taken = [column for column in COLUMNS if minor(low) <= minor(column) < minor(high)]
    assert taken == [f"2.{number}" for number in range(minor(low)[1], minor(high)[1])]
    assert set(COLUMNS) - set(taken) == {"2.11"}
    oldest = pinned(taken[0])["torch-tensorrt-rtx"]
    assert f'"torch-tensorrt-rtx>={oldest},<{high}"' in PYPROJECT


def test_rows_name_all_that_has_to_fit() -> None:
    """Every version a file depends on, and Lightning."""
    for measured in rows().values():
        assert all(minor(measured[name]) > (0, 0) for name in DISTRIBUTIONS)


def test_ci_runs_every_column() -> None:
    """The oldest wherever the script of CI runs, and every column in the workflow, whose jobs run that script."""
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    taken = [column for column in COLUMNS if column != "2.11"]
    assert f"versions(torch='{taken[0]}')" in script
    jobs = workflow["jobs"]
    assert set(jobs["versions"]["strategy"]["matrix"]["session"]) | {f"versions(torch='{taken[0]}')"} == {
        "cpu",
        *(f"versions(torch='{column}')" for column in COLUMNS),
    }
    for half in ("newest", "oldest"):
        assert f"bash .ci/run {half}" in [step.get("run") for step in jobs[half]["steps"]]
        assert re.search(rf"^{half}\(\) {{$", script, flags=re.MULTILINE)
