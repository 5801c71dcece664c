"""What ``make projects`` is made of; the trainings themselves need each project installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from projects.__main__ import projects
from projects.model import models_in, requirements_in
from projects.page import came_out, harmed, write_page


@pytest.mark.parametrize("name", sorted(projects()))
def test_every_project_is_pinned_and_has_models(name: str) -> None:
    """Else its row would say something else every week."""
    file = projects()[name]
    assert models_in(file)
    assert all("==" in requirement for requirement in requirements_in(file))


def record(model: str, *, artifacts: int = 1, equal: bool = True, error: str = "", way_on: int | None = None) -> Any:
    """One line of the results."""
    facts = {
        "inputs": ["x float32[1..4..4, 3]"], "outputs": ["output"], "engines": 1, "operators": [2, 0], "notes": [],
        "fallback": ["aten.gather.default"], "sizes": ["min", "opt"], "error": 2e-7, "not_checked": [],
    }  # fmt: skip

    def run(artifacts: int) -> dict[str, Any]:
        failures = [] if artifacts else ["CaptureError: no | export\nof it"]
        made = {"artifact": facts} if artifacts else {}
        return {"error": error, "equal": equal, "said": [], "failures": failures, "artifacts": artifacts, **made}

    runs = {"train_end": run(artifacts), "checkpoint": run(artifacts)}
    if way_on is not None:
        runs["way_on"] = {**run(way_on), "arguments": "method='net'"}
    return {
        "key": f"a_b.{model}",
        "project": "a_b",
        "model": model,
        "versions": {"a-b": "1"},
        "steps": "",
        "note": "",
        "runs": runs,
    }


def test_what_counts() -> None:
    """An artifact with every value of ``when``; a training that ends early or with other weights is harmed."""
    assert came_out(record("one")) and not came_out(record("one", artifacts=0))
    assert not harmed(record("one")) and harmed(record("one", equal=False)) and harmed(record("one", error="it died"))
    assert not harmed({**record("one", equal=False), "reproducible": False})


def test_the_page_counts_what_there_is(tmp_path: Path) -> None:
    """Projects that give something, models, refusals and their ways on; cells stay cells."""
    page = tmp_path / "projects.md"
    records = [record("one"), record("two", artifacts=0, way_on=2), record("three", artifacts=0, way_on=0)]
    write_page(page, records, ["a_b.one", "a_b.four"])
    text = page.read_text(encoding="utf-8")
    assert "1 of 1 projects give artifacts with the plain callback, 0 of them for each of their models" in text
    assert "Not run for this page: a_b.four." in text
    assert "1 of 3 models do" in text and "2 models that are refused 1 have a way on" in text
    assert "| a-b 1 | one | yes, 1 engine | x float32[1..4..4, 3] | gather | 2e-07 (min, opt) | equal | none |" in text
    assert "| a-b 1 | two | with the way on |" in text and "| method='net' |" in text
    assert "**a-b two**: CaptureError: no | export of it" in text and "gave nothing either" in text
