"""The page that a run writes: per model of a project what came out with the plain callback."""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["came_out", "harmed", "write_page"]

_SHARED = ("torch", "torch-tensorrt-rtx", "tensorrt-rtx", "lightning", "torchvision", "timm", "transformers")
_LONGEST = 420
"""Characters of a reason; messages of PyTorch can be pages."""


def came_out(record: Mapping[str, Any]) -> bool:
    """Whether the plain callback gave an artifact with every value of ``when`` that was tried."""
    plain = [run for name, run in record.get("runs", {}).items() if name != "way_on"]
    return bool(plain) and all(run["artifacts"] and not run["failures"] for run in plain)


def harmed(record: Mapping[str, Any]) -> bool:
    """Whether a training with the callback ended otherwise than the one without."""
    runs = record.get("runs", {}).values()
    return any(run["error"] or (not run["equal"] and record.get("reproducible", True)) for run in runs)


def write_page(path: Path, records: Sequence[dict[str, Any]], wanted: Sequence[str] = ()) -> None:
    """Write the tables of all ``records`` to ``path``.

    Args:
        path: The page.
        records: What was found.
        wanted: Keys of all models that there are; those without a record are named.
    """
    tried = [record for record in records if record.get("runs")]
    left = sorted(set(wanted) - {record["key"] for record in tried})
    projects: dict[str, list[dict[str, Any]]] = {}
    for record in tried:
        projects.setdefault(record["project"], []).append(record)
    some = sum(any(map(came_out, models)) for models in projects.values())
    whole = sum(all(map(came_out, models)) for models in projects.values())
    refused = [record for record in tried if not came_out(record)]
    way_on = [record for record in refused if record["runs"].get("way_on", {}).get("artifacts")]
    names = [name for name in _SHARED if _version(name)]
    whens = Counter(when for record in tried for when in record["runs"])
    trainings = sum(len(record["runs"]) for record in tried)
    head = ("project", "model", "artifact", "inputs: min..opt..max", "in PyTorch", "checked", "weights", "steps")
    lines = [
        "# Projects",
        "",
        "Public projects that train with Lightning, with their own models and batch classes on small generated data. "
        "Each model is trained without the callback, and with `callbacks=[WindowsExport()]` and nothing else: "
        f'{whens["train_end"]} with the default `when`, {whens["checkpoint"]} with `when="checkpoint"`. '
        "`make projects` writes this page; do not edit.",
        "",
        f"**{some} of {len(projects)} projects give artifacts with the plain callback, {whole} of them for each of "
        f"their models here; {len(tried) - len(refused)} of {len(tried)} models do.** Of {trainings} trainings with "
        f"the callback {_count(sum(map(harmed, tried)))} ended otherwise than without it: weights are compared bit for "
        f"bit. Of {len(refused)} models that are refused {len(way_on)} have a way on that was tried and gave an "
        "artifact.",
        "",
        *([f"Not run for this page: {', '.join(left)}.", ""] if left else []),
        "*In PyTorch* are the operators that stay there, between the engines. *Checked* is the largest relative error "
        "of the comparison with the module that every export makes before engines are built, on the CPU, and its "
        "sizes. *Steps* are what a user has to do besides adding the callback. Networks are small and have random "
        "weights. Nothing here was run on a GPU or on Windows.",
        "",
        f"With {', '.join(f'{name} {_version(name)}' for name in names)}.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *("| " + " | ".join(map(_cell, _row(record))) + " |" for record in tried),
        "",
    ]
    if refused:
        lines += ["## Refused", ""]
        for record in refused:
            lines += [f"**{_title(record)}**: {_reason(record)}", "", _way_on(record), ""]
    notes = [record for record in tried if record["note"] or _notes(record)]
    if notes:
        lines += ["## Notes", ""]
        lines += [
            f"- {_title(record)}: {'; '.join(filter(None, (record['note'], *_notes(record))))}" for record in notes
        ]
        lines += [""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _count(number: int) -> str:
    return str(number) if number else "none"


def _title(record: Mapping[str, Any]) -> str:
    return f"{record['project'].replace('_', '-')} {record['model']}"


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of the artifact of the plain callback, or, where there is none, of the way on."""
    runs = record["runs"].values()
    return next((run["artifact"] for run in runs if "artifact" in run), {})


def _row(record: Mapping[str, Any]) -> Sequence[str]:
    facts = _facts(record)
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    runs = record["runs"].values()
    if came_out(record):
        artifact = f"yes, {facts['engines']} engine{'s' * (facts['engines'] > 1)}"
    else:
        artifact = "with the way on" if facts else "no"
    checked = f"{facts['error']:.0e} ({', '.join(facts['sizes'])})" if facts.get("sizes") else "no" if facts else "-"
    equal = "equal" if all(run["equal"] for run in runs) else "other in each run" if not harmed(record) else "differ"
    kept = ", ".join(dict.fromkeys(name.split(".")[1] if "." in name else name for name in facts.get("fallback", ())))
    steps = record["steps"] or "none"
    if not came_out(record) and facts:
        steps = record["runs"]["way_on"]["arguments"]
    return (versions or record["project"], record["model"], artifact, "; ".join(facts.get("inputs", ())) or "-",
            kept or "-", checked, equal, steps)  # fmt: skip


def _reason(record: Mapping[str, Any]) -> str:
    """What the callback said, as it said it."""
    failures = [failure for run in record["runs"].values() for failure in run["failures"]]
    said = [line for run in record["runs"].values() for line in run["said"]]
    text = next(iter((*failures, *said)), "nothing was said")
    text = re.sub(r"\s+", " ", re.sub(r"\n[^\n]*\.windows\.log has what[^\n]*", "", text))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _way_on(record: Mapping[str, Any]) -> str:
    run = record["runs"].get("way_on")
    if run is None:
        return "No way on was tried."
    arguments = f"`WindowsExport({run['arguments']})`"
    if not run["artifacts"]:
        return f"The way on {arguments} gave nothing either."
    facts = run["artifact"]
    return f"Way on: {arguments}, tried: {len(facts['inputs'])} inputs, {facts['engines']} engines."


def _notes(record: Mapping[str, Any]) -> list[str]:
    return [_short(note) for note in _facts(record).get("notes", ())]


def _short(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
