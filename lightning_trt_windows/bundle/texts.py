"""The texts of a bundle, from the templates beside this module. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from string import Template

from lightning_trt_windows.artifact.description import GEFORCE, printable
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.manifest import InputRecord, Manifest
from lightning_trt_windows.artifact.shapes import range_text, shape_text
from lightning_trt_windows.bundle.gathering import Gathered
from lightning_trt_windows.bundle.pins import PYTHONS

__all__ = ["code", "gpus_of", "interface", "range_of", "readme", "run_script", "template"]

_WHEELS = "| `wheels/` | the Python package that loads the models, which no index has |\n"
_ENGINES = "| `engines/` | raw engines for C++ and C#, and `engines.json` with what is bound to them |\n"


def template(name: str) -> str:
    """The text of a template."""
    return files(__package__).joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def run_script() -> str:
    """``run.py``, the same in every bundle."""
    return template("run.py.txt")


def readme(items: Sequence[tuple[Gathered, str]], *, engines: bool, goldens: bool, wheel: bool, version: str) -> str:
    """``README.md`` of a bundle.

    Args:
        items: Artifacts, each with its folder in the bundle.
        engines: Whether there are raw engines.
        goldens: Whether there are goldens to verify with.
        wheel: Whether this package is among the files.
        version: Of this package.

    Returns:
        The text of the file.
    """
    rows = ["| Artifact | Made of | Size | Takes | Gives |", "|---|---|---|---|---|"]
    for item, folder in items:
        manifest = item.manifest
        takes, gives = interface(manifest)
        made_of = code(manifest.checkpoint.file) if manifest.checkpoint else "a module without a checkpoint"
        roles = f" ({', '.join(item.roles)})" if item.roles else ""
        name = f"{folder}/{item.artifact.path.name}"
        rows.append(
            f"| {code(name)} | {made_of}{code(roles, plain=True)} | {readable_size(manifest.ep.size)} | {code(takes)} "
            f"| {code(gives)} |"
        )
    first, folder = items[0]
    python = ".".join(first.manifest.versions.get("python", PYTHONS[1]).split(".")[:2])
    return Template(template("README.md.txt")).substitute(
        version=version,
        table="\n".join(rows),
        gpus=gpus_of(first.manifest),
        pythons=f"{PYTHONS[0]} to {PYTHONS[-1]}",
        python=python if python in PYTHONS else PYTHONS[1],
        verifies=", compares its outputs with those recorded at the export" if goldens else "",
        example=f"{folder}/{first.artifact.path.name}",
        call=_call(first.manifest),
        tensorrt="TensorRT-RTX, some 100 MB" if first.manifest.backend.name == "tensorrt_rtx" else "TensorRT",
        wheels=_WHEELS if wheel else "",
        engines=_ENGINES if engines else "",
    )


def code(text: str, *, plain: bool = False) -> str:
    """``text`` for a cell of a Markdown table; no mark in it has a meaning."""
    safe = printable(text).replace("|", "\\|").replace("`", "'")
    if plain:
        for mark in "<>[]*_#":
            safe = safe.replace(mark, f"\\{mark}")
        return safe
    return f"`{safe}`" if safe else ""


def gpus_of(manifest: Manifest) -> str:
    """GPUs that the engines run on, for people."""
    named = [GEFORCE[c] for c in manifest.backend.compute_capabilities if c in GEFORCE]
    newer = " or newer" if "newer" in manifest.backend.compute_capabilities else ""
    if not named:
        return "see `report.html` for which"
    return f"GeForce {', '.join(named)}, their professional siblings{newer}"


def range_of(record: InputRecord) -> str:
    """The shape of an input with its ranges: ``[batch 1..64, 3, 224]``."""
    axes = zip(record.symbols, record.min, record.max)
    return shape_text(
        range_text(*sizes) if symbol is None else f"{symbol} {range_text(*sizes)}" for symbol, *sizes in axes
    )


def interface(manifest: Manifest) -> tuple[str, str]:
    """What an artifact takes and what it gives: names, dtypes and shapes, for a table."""
    takes = "; ".join(f"{i.name} {i.dtype} {range_of(i)}" for i in manifest.inputs)
    gives = "; ".join(f"{o.name} {o.dtype} {shape_text(o.shape)}" for o in manifest.outputs)
    return takes, gives


def _call(manifest: Manifest) -> str:
    """A call of the artifact, or how to learn its arguments where they are nested."""
    if any("." in record.name or not record.name.isidentifier() for record in manifest.inputs):
        return "print(model(**model.example_arguments()))  # nested as forward's arguments were"
    given = [f"{i.name}=torch.ones({list(i.opt)}, dtype=torch.{i.dtype}, device='cuda')" for i in manifest.inputs]
    return f"print(model({', '.join(given)}))"
