"""The table of the zoo in ``docs/zoo.md``, written when every entry has run."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zoo.entry import Entry
from zoo.exporting import Exported

__all__ = ["Row", "page"]


@dataclass
class Row:
    """What came of one entry."""

    entry: Entry
    inputs: str = ""
    engines: int = 0
    fallback: tuple[str, ...] = ()
    seconds: float = 0.0
    errors: Mapping[str, float] = field(default_factory=dict)
    """Relative norm of the difference to eager, by size."""
    reason: str = ""
    """Why there is no artifact."""

    def exported(self, exported: Exported) -> None:
        """Take over what the manifest says."""
        manifest = exported.artifact.manifest
        specs = []
        for record in manifest.inputs:
            bounds = zip(record.min, record.opt, record.max)
            sizes = ", ".join(str(opt) if low == high else f"{low}..{opt}..{high}" for low, opt, high in bounds)
            specs.append(f"{record.name} {record.dtype}[{sizes}]")
        self.inputs = "; ".join(specs)
        self.engines, self.fallback, self.seconds = len(manifest.engines), manifest.fallback_ops, exported.seconds

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as the table shows it."""
        if self.reason:
            result = "no artifact: " + _short(self.reason)
        else:
            result = f"{max(self.errors.values()):.0e}" if self.errors else "wrong"
        kept = ", ".join(dict.fromkeys(op.split(".")[1] if "." in op else op for op in self.fallback)) or "-"
        return (
            self.entry.name, self.entry.group, self.inputs or "-", str(self.engines or "-"), kept,
            f"{self.seconds:.0f}", result,
        )  # fmt: skip


def _short(reason: str) -> str:
    first = " ".join(reason.splitlines()[:1])
    return first if len(first) <= 200 else first[:197] + "..."


def page(rows: Sequence[Row]) -> str:
    """The document."""
    made = [row for row in rows if row.errors]
    names = ("torch", "torch-tensorrt-rtx", "tensorrt-rtx", "lightning", "torchvision", "timm", "transformers")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    head = ("model", "from", "inputs: min..opt..max", "engines", "fallback", "seconds", "result")
    lines = [
        "# The zoo",
        "",
        "Written by `make zoo`; do not edit. Each model has small random weights; the shapes of its inputs are derived "
        "from the batches of a loader, none is written by hand. The result is the relative norm of the difference to "
        "eager PyTorch, the worst of the smallest, the usual, the largest and one other size, computed on a CPU with "
        "the networks that the engines were built from evaluated in place of the engines.",
        "",
        f"{len(made)} of {len(rows)} models have an artifact. With {versions}.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines)
