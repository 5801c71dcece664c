"""The page that a run writes: per operator what came of its samples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["write_page"]

_COLUMNS = (
    "engine", "pytorch", "fixed", "refused", "random", "capture", "open", "wrong", "exception", "time", "unevaluated"
)  # fmt: skip
_TITLES = {
    "engine": "right in an engine",
    "pytorch": "right in PyTorch",
    "fixed": "right at one size",
    "refused": "refused",
    "random": "random",
    "capture": "captured otherwise",
    "open": "left open",
    "wrong": "wrong",
    "exception": "exception",
    "time": "too slow",
    "unevaluated": "not checked",
}
_SUITES = {
    "operators": "Operators",
    "modules": "Modules",
    "pairs": "Pairs of types",
    "assignments": "Assignments to slices",
}
_SIZES = {"static": "fixed", "first": "first varies", "last": "last varies"}


def write_page(path: Path, records: Iterable[dict[str, Any]], tasks: Mapping[tuple[str, str, str], int]) -> None:
    """Write the tables of all ``records`` to ``path``.

    Args:
        path: The page.
        records: What was found.
        tasks: By suite, type and sizes, how many operators or modules there are in all.
    """
    records = list(records)
    lines = [
        "# Conformance",
        "",
        "PyTorch's own operator and module databases, sample by sample: each is captured, compiled, and the TensorRT",
        "networks of its engines are evaluated on the CPU and compared with eager. `make conformance` writes this",
        "page.",
        "*Right in PyTorch* means that an operator of the sample runs in PyTorch beside the engine. Sizes vary from 1",
        "to twice the sample's own; where the operator or its other arguments leave less, the range is narrowed as an",
        "export does it, and *right at one size* means that one was left. A refusal is no artifact, with the reason",
        "below. Random operators run in PyTorch, and there is nothing to compare. *Captured otherwise*: the program",
        "that `torch.export` gives differs from the module at some size, which the check of every export sees and",
        "refuses. *Left open*: the sample is right but for the place of NaN among numbers, which TensorRT does not",
        "define. The check that every export makes of itself is off here: it leaves to PyTorch, or refuses, what is",
        "*wrong* in these tables at a size that it looks at.",
        "",
        _coverage(records, tasks),
        "",
        _float32(records),
        "",
        f"PyTorch {torch.__version__.partition('+')[0]}.",
        "",
        "## In all",
        "",
        f"| suite | type | sizes | samples | {' | '.join(_TITLES[c] for c in _COLUMNS)} |",
        f"| --- | --- | --- | --- | {' | '.join('---' for _ in _COLUMNS)} |",
    ]
    totals: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        totals[record["suite"], record["dtype"], record["mode"]].update(s["outcome"] for s in record["samples"])
    order = list(tasks)  # a run with several workers finds results in any order
    for suite, dtype, mode in sorted(totals, key=lambda key: order.index(key) if key in tasks else len(order)):
        if counts := totals[suite, dtype, mode]:
            cells = " | ".join(str(counts[c]) for c in _COLUMNS)
            lines.append(f"| {_SUITES[suite]} | {dtype} | {_SIZES[mode]} | {sum(counts.values())} | {cells} |")
    for suite, title in _SUITES.items():
        lines += _suite(title, [record for record in records if record["suite"] == suite])
    random = {r["name"] for r in records if r.get("random") or any(s["outcome"] == "random" for s in r["samples"])}
    lines += ["", "## Random results", "", ", ".join(f"`{name}`" for name in sorted(random)) or "None.", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _float32(records: list[dict[str, Any]]) -> str:
    """The share of float32 samples that are right, in a sentence."""
    counts = Counter(s["outcome"] for r in records if r["dtype"] == "float32" for s in r["samples"])
    compared = sum(counts.values()) - counts["random"]
    right = counts["engine"] + counts["pytorch"] + counts["fixed"]
    share = right / compared if compared else 0.0
    return f"Of {compared} samples in float32 with something to compare, {right} are right ({share:.1%})."


def _coverage(records: list[dict[str, Any]], tasks: Mapping[tuple[str, str, str], int]) -> str:
    """Which part of the databases the records are of, in a sentence each."""
    done = Counter((record["suite"], record["dtype"], record["mode"]) for record in records)
    samples = sum(len(record["samples"]) for record in records)

    def named(keys: Iterable[tuple[str, str, str]]) -> list[str]:
        """Operators in float32 (fixed, first varies), and so on."""
        modes: dict[str, list[str]] = defaultdict(list)
        for suite, dtype, mode in keys:
            what = _SUITES[suite].lower()
            modes[what if suite == "pairs" else f"{what} in {dtype}"].append(_SIZES[mode])
        return [what if len(of) == len(_SIZES) else f"{what} ({', '.join(of)})" for what, of in modes.items()]

    whole = named(key for key, count in tasks.items() if done[key] >= count)
    part = [f"{done[key]} of {count} {named([key])[0]}" for key, count in tasks.items() if 0 < done[key] < count]
    none = named(key for key in tasks if not done[key])
    sentences = [f"The tables hold {samples} samples, of {sum(done.values())} out of {sum(tasks.values())} runs."]
    for title, parts in (("Run in full", whole), ("In part", part), ("Not run yet", none)):
        sentences += [f"{title}: {', '.join(parts)}."] if parts else []
    return " ".join(sentences)


def _suite(title: str, records: list[dict[str, Any]]) -> list[str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for sample in record["samples"]:
            counts[record["name"]][sample["outcome"]] += 1
            if sample["outcome"] not in ("engine", "pytorch", "fixed", "random"):
                reasons[record["name"]][_cell(sample.get("reason", ""))] += 1
    if not counts:
        return []
    shown = _COLUMNS[:9]
    lines = ["", f"## {title}", "", f"| name | {' | '.join(_TITLES[c] for c in shown)} | why not |"]
    lines.append(f"| --- | {' | '.join('---' for _ in shown)} | --- |")
    for name in sorted(counts):
        why = "; ".join(reason for reason, _ in reasons[name].most_common(2))
        lines.append(f"| `{name}` | {' | '.join(str(counts[name][c] or '') for c in shown)} | {why} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")[:160]
