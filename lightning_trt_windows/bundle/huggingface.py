"""The layout of a model on the Hugging Face Hub, written locally: files, ``config.json`` and a model card.

Nothing is uploaded here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.files import atomic_file, output_errors, readable_size
from lightning_trt_windows.bundle.engines import engine_members
from lightning_trt_windows.bundle.gathering import Gathered, Which
from lightning_trt_windows.bundle.layout import ARTIFACTS
from lightning_trt_windows.bundle.model_card import BEGIN, CARD, END, LIBRARY, card_text
from lightning_trt_windows.bundle.selection import RunDirectories, Selection, select, wheel_member
from lightning_trt_windows.bundle.texts import code, gpus_of, interface, range_of
from lightning_trt_windows.bundle.zipped import Member, text_member
from lightning_trt_windows.errors import ArtifactError, ConfigurationError

__all__ = ["HubFolder", "collect_for_hub", "model_card_section"]

_WANTED = {
    "license": "without which nobody may use the model; --license apache-2.0 or another one",
    "pipeline_tag": "by which the Hub's search finds it; --pipeline-tag image-classification or another one",
}


@dataclass(frozen=True)
class HubFolder:
    """What ``collect_for_hub`` wrote."""

    path: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """Keys of the card's front matter that the Hub asks for and nobody gave: ``license``, ``pipeline_tag``."""

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "folder": self.path.name,
            "files": list(self.files),
            "left_out": list(self.left_out),
            "missing": list(self.missing),
        }

    def __str__(self) -> str:
        lines = [f"{self.path}", *(f"  {name}" for name in self.files)]
        lines += [f"  left out: {reason}" for reason in self.left_out]
        return "\n".join([*lines, *(f"  not in the card: {key}, {_WANTED[key]}" for key in self.missing)])


def collect_for_hub(
    run_dir: RunDirectories,
    out: str | os.PathLike[str],
    *,
    which: Which = "all",
    engines: bool = False,
    skip_damaged: bool = False,
    wheel: str | os.PathLike[str] | None = None,
    license: str | None = None,
    pipeline_tag: str | None = None,
) -> HubFolder:
    """Lay the artifacts of a run out as a model on the Hugging Face Hub has its files; nothing is uploaded.

    A ``README.md`` that is there already keeps all that is not between our two markers, also the values in its front
    matter, which gets what it lacks.

    Args:
        run_dir: A directory with artifacts in or below it, or its URL, or several.
        out: The folder; made where it is missing.
        which: As for ``lightning_trt_windows.collect``.
        engines: Add the raw engines.
        skip_damaged: Leave damaged artifacts out.
        wheel: As for ``lightning_trt_windows.collect``.
        license: Of the model, as the Hub names licences: ``"apache-2.0"``. By default what the card says.
        pipeline_tag: What the model does, as the Hub names tasks: ``"image-classification"``. By default what the card
            says.

    Returns:
        The folder, and what was left out.

    Raises:
        ConfigurationError: There is nothing to collect, ``out`` is not a folder, the front matter of the existing card
            cannot be read, or it has only one of the markers.
        ArtifactError: Artifacts are damaged; the error lists all that is wrong with them.
        EnvironmentMismatchError: The package ``huggingface_hub`` is not installed.
        OutputError: The folder cannot be written.
    """
    folder = Path(out)
    if folder.suffix.lower() == ".zip" or folder.is_file():
        raise ConfigurationError(f"with the layout of the Hub, out is a folder, got {str(out)!r}")
    selection = select(run_dir, which, skip_damaged=skip_damaged, leave_out=folder)
    members = list(_members(selection, engines=engines, wheel=wheel_member(wheel)))
    card = folder / CARD
    with output_errors(card, 0):
        folder.mkdir(parents=True, exist_ok=True)
        before = card.read_text(encoding="utf-8") if card.exists() else None
    section = model_card_section(selection.items)
    text, missing = card_text(before, section, license=license, pipeline_tag=pipeline_tag)
    members.append(text_member(CARD, text))
    for member in members:
        _write(folder, member)
    names = tuple(sorted(member.name for member in members))
    return HubFolder(folder, names, selection.gathering.left_out, missing)


def _members(selection: Selection, *, engines: bool, wheel: Member | None) -> Iterator[Member]:
    for member in selection.members():
        yield replace(member, name=_at_top(member.name))
    if engines:
        yield from engine_members(selection.items)
    yield text_member("config.json", _config(selection.items))
    if wheel:
        yield wheel
    yield text_member("requirements-windows.txt", selection.requirements(wheel))
    # the Hub keeps these with Git LFS, whatever their size
    patterns = ("*.ep", "*.engine", "*.onnx", "*.safetensors")
    yield text_member(".gitattributes", "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in patterns))


def _at_top(name: str) -> str:
    """On the Hub files lie at the top, not in a folder of artifacts."""
    return name.removeprefix(f"{ARTIFACTS}/")


def _write(folder: Path, member: Member) -> None:
    target = folder.joinpath(*member.name.split("/"))
    with output_errors(target, 0):
        target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as file:
        for piece in member.pieces():
            file.write(piece)
        if (file.size, file.sha256) != (member.size, member.sha256):
            raise ArtifactError(member.origin, ["changed while it was being copied"])


def _config(items: Sequence[tuple[Gathered, str]]) -> str:
    """What a program that downloads the model wants to know before it downloads the large files."""
    first = items[0][0].manifest
    listed = [
        {
            "file": _at_top(f"{place}/{item.artifact.path.name}"),
            "roles": list(item.roles),
            "size": item.manifest.ep.size,
            "sha256": item.manifest.ep.sha256,
            "checkpoint": item.manifest.checkpoint.file if item.manifest.checkpoint else None,
            "inputs": {i.name: {"dtype": i.dtype, "shape": range_of(i)} for i in item.manifest.inputs},
            "outputs": {o.name: {"dtype": o.dtype, "shape": list(o.shape)} for o in item.manifest.outputs},
        }
        for item, place in items
    ]
    config = {"library_name": LIBRARY, "backend": first.backend.name, "artifacts": listed}
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def model_card_section(items: Sequence[tuple[Gathered, str]]) -> str:
    """The section about the artifacts, between its two markers."""
    first, place = items[0]
    rows = ["| File | Made of | Size | Takes | Gives | GPUs |", "|---|---|---|---|---|---|"]
    for item, folder in items:
        made = item.manifest
        takes, gives = interface(made)
        source = code(made.checkpoint.file) if made.checkpoint else ""
        roles = f" ({', '.join(item.roles)})" if item.roles else ""
        scores = [f"{s.monitor} {s.value:.6g}" for s in made.checkpoint.scores] if made.checkpoint else []
        said = code(roles + (f" {', '.join(scores)}" if scores else ""), plain=True)
        name = code(_at_top(f"{folder}/{item.artifact.path.name}"))
        size = readable_size(made.ep.size)
        rows.append(f"| {name} | {source}{said} | {size} | {code(takes)} | {code(gives)} | {gpus_of(made)} |")
    name = _at_top(f"{place}/{first.artifact.path.name}")
    return "\n".join(
        [
            BEGIN,
            "## TensorRT engines for Windows",
            "",
            *rows,
            "",
            "Each `.ep` needs the `.json` of its name beside it, an NVIDIA driver, and what `requirements-windows.txt`",
            "names (`pip install -r requirements-windows.txt`, in this folder); Lightning and Torch-TensorRT are not",
            "needed.",
            "",
            "```python",
            "import lightning_trt_windows",
            "",
            f'model = lightning_trt_windows.load("{name}")  # checks hash, versions and GPU first',
            "print(model(**model.example_arguments()))",
            "```",
            END,
            "",
        ]
    )
