"""The tables of ``docs/versions.md``; run as a program, it writes them there.

    python tests/support/versions_page.py                              from the data as they are
    python tests/support/versions_page.py record COLUMN REPORT.xml RUNS    with a new row: what this Python has, what
    pytest reported, and the artifacts that the demo left
    python tests/support/versions_page.py check COLUMN REPORT.xml RUNS     the row is shown, and nothing written

``nox`` runs the latter two in each column's environment (``noxfile.py``); they fail when the row has failures.
"""

from __future__ import annotations

import datetime
import importlib
import json
import pkgutil
import platform
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

__all__ = ["DATA", "PAGE", "rows", "with_tables", "workarounds"]

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "versions.md"
DATA = REPOSITORY / "tests" / "data" / "versions.json"
BEGIN = "<!-- {} written by tests/support/versions_page.py -->\n"
END = "<!-- end of {} -->\n"
DISTRIBUTIONS = ("torch", "torch-tensorrt-rtx", "tensorrt-rtx", "lightning")


def rows() -> dict[str, dict[str, Any]]:
    """What was measured, by column."""
    loaded: dict[str, dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8"))
    return loaded


def workarounds() -> dict[str, Any]:
    """Every workaround, by the module and the name of its constant."""
    sys.path.insert(0, str(REPOSITORY))
    from lightning_trt_windows import _compat
    from lightning_trt_windows._compat.versions import Workaround

    found = {}
    for info in pkgutil.iter_modules(_compat.__path__):
        module = importlib.import_module(f"{_compat.__name__}.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, Workaround) and name in module.__all__:
                found[f"{info.name}.{name}"] = value
    return found


def with_tables(page: str) -> str:
    """``page`` with the tables as they should be."""
    for name, table in (("matrix", _matrix()), ("workarounds", _workarounds())):
        before, _, rest = page.partition(BEGIN.format(name))
        page = before + BEGIN.format(name) + table + END.format(name) + rest.partition(END.format(name))[2]
    return page


def _matrix() -> str:
    head = ("Python", *DISTRIBUTIONS, "tests", "demo", "installed", "when")
    lines = [_line(head), _line(["---"] * len(head))]
    for _, row in sorted(rows().items(), reverse=True):
        tests = f"{row['passed']} passed, {row['skipped']} skipped" + (
            f", {row['failed']} failed" * bool(row["failed"])
        )
        lines.append(
            _line(
                [
                    row["python"],
                    *(row[name] for name in DISTRIBUTIONS),
                    f"{tests}, {row['seconds'] // 60}:{row['seconds'] % 60:02}",
                    f"{row['artifacts']} artifacts" if row["artifacts"] else "failed",
                    f"{row['installed'] / 1e9:.1f} GB",
                    row["date"],
                ]
            )
        )
    return "\n".join((*lines, ""))


def _workarounds() -> str:
    lines = [_line(("in", "from", "until", "what goes wrong without", "goes when")), _line(["---"] * 5)]
    for workaround in sorted(workarounds().values(), key=lambda w: (w.upstream, w.since, w.link)):
        reason = f"{workaround.reason} [Upstream]({workaround.link})"
        until = workaround.until or "not fixed"
        lines.append(_line((workaround.upstream, workaround.since, until, reason, workaround.delete)))
    return "\n".join((*lines, ""))


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _measured(report: Path, runs: Path) -> dict[str, Any]:
    """One row: versions of this environment, its size in bytes, counts of tests and of the demo's artifacts."""
    suites = ElementTree.parse(report).getroot()  # written by pytest a moment ago
    count = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    libraries = Path(sysconfig.get_path("purelib"))
    return {
        "python": platform.python_version(),
        **{name: _installed(name) for name in DISTRIBUTIONS},
        "passed": count["tests"] - failed - count["skipped"],
        "failed": failed,
        "skipped": count["skipped"],
        "seconds": round(sum(float(suite.get("time", 0)) for suite in suites)),
        "artifacts": sum(_fits(path) for path in runs.rglob("*.windows.ep")),
        "installed": sum(path.stat().st_size for path in libraries.rglob("*") if path.is_file()),
        "date": datetime.date.today().isoformat(),
    }


def _installed(distribution: str) -> str:
    if distribution == "torch":
        # with the local part that says which build it is, which metadata may lack
        import torch

        return str(torch.__version__)
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "-"


def _fits(artifact: Path) -> bool:
    command = [sys.executable, "-m", "lightning_trt_windows", "inspect", "--check", str(artifact)]
    return subprocess.run(command, check=False).returncode == 0


def _row(column: str, report: Path, runs: Path, *, write: bool) -> None:
    row = _measured(report, runs)
    print(json.dumps({column: row}, indent=2))
    if write:
        DATA.write_text(json.dumps({**rows(), column: row}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if row["failed"] or not row["artifacts"]:
        sys.exit(f"{column}: {row['failed']} failed tests, {row['artifacts']} artifacts of the demo")


if __name__ == "__main__":
    if sys.argv[1:]:
        _row(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), write=sys.argv[1] == "record")
    else:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
