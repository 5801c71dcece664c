"""The layout of a model on the Hugging Face Hub, written locally: files, ``config.json`` and a model card.

Nothing is uploaded. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.files import atomic_file, output_errors, readable_size
from lightning_trt_windows.bundle.engines import engine_members
from lightning_trt_windows.bundle.gathering import Gathered, Which
from lightning_trt_windows.bundle.layout import ARTIFACTS
from lightning_trt_windows.bundle.selection import RunDirectories, Selection, select, wheel_member
from lightning_trt_windows.bundle.texts import code, gpus_of, interface, range_of
from lightning_trt_windows.bundle.zipped import Member, text_member
from lightning_trt_windows.errors import ArtifactError, ConfigurationError

__all__ = ["BEGIN", "END", "HubFolder", "collect_for_hub", "model_card_section", "with_section"]

BEGIN = "<!-- lightning-trt-windows: begin -->"
END = "<!-- lightning-trt-windows: end -->"
"""Around our section of a model card; what stands between them is ours, all else is the user's."""

_TAGS = ("pytorch-lightning", "windows")
_CARD = "README.md"


@dataclass(frozen=True)
class HubFolder:
    """What ``collect_for_hub`` wrote."""

    path: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"folder": self.path.name, "files": list(self.files), "left_out": list(self.left_out)}

    def __str__(self) -> str:
        lines = [f"{self.path}", *(f"  {name}" for name in self.files)]
        return "\n".join([*lines, *(f"  left out: {reason}" for reason in self.left_out)])


def collect_for_hub(
    run_dir: RunDirectories,
    out: str | os.PathLike[str],
    *,
    which: Which = "all",
    engines: bool = False,
    skip_damaged: bool = False,
    wheel: str | os.PathLike[str] | None = None,
) -> HubFolder:
    """Lay the artifacts of a run out as a model on the Hugging Face Hub has its files; nothing is uploaded.

    A ``README.md`` that is there already keeps all that is not between our two markers, also its front matter, which
    gets what it lacks.

    Args:
        run_dir: A directory with artifacts in or below it, or its URL, or several.
        out: The folder; made where it is missing.
        which: As for ``lightning_trt_windows.collect``.
        engines: Add the raw engines.
        skip_damaged: Leave damaged artifacts out.
        wheel: As for ``lightning_trt_windows.collect``.

    Returns:
        The folder, and what was left out.

    Raises:
        ConfigurationError: There is nothing to collect, ``out`` is not a folder, or the existing card has only one of
            the markers.
        ArtifactError: Artifacts are damaged; the error lists all that is wrong with them.
        OutputError: The folder cannot be written.
    """
    folder = Path(out)
    if folder.suffix.lower() == ".zip" or folder.is_file():
        raise ConfigurationError(f"with the layout of the Hub, out is a folder, got {str(out)!r}")
    selection = select(run_dir, which, skip_damaged=skip_damaged, leave_out=folder)
    members = list(_members(selection, engines=engines, wheel=wheel_member(wheel)))
    card = folder / _CARD
    with output_errors(card, 0):
        folder.mkdir(parents=True, exist_ok=True)
        before = card.read_text(encoding="utf-8") if card.exists() else "# Model\n"
    members.append(text_member(_CARD, with_section(_with_front_matter(before), model_card_section(selection.items))))
    for member in members:
        _write(folder, member)
    return HubFolder(folder, tuple(sorted(member.name for member in members)), selection.gathering.left_out)


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
    config = {"library_name": "lightning-trt-windows", "backend": first.backend.name, "artifacts": listed}
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _with_front_matter(card: str) -> str:
    """``card`` with what the Hub needs in its front matter; what the user wrote there stays as it is."""
    found = re.match(r"---\r?\n(.*?)\r?\n?---\r?\n", card, re.DOTALL)
    matter = found[1] if found else ""
    rest = card[found.end() :] if found else card
    lines = [matter] if matter.strip() else []
    if not re.search("^library_name:", matter, re.MULTILINE):
        lines.append("library_name: lightning-trt-windows")
    tags = re.search(r"^tags:(?=[ \t]*\n([ \t]*)- )", matter, re.MULTILINE)
    missing = [tag for tag in _TAGS if not re.search(rf"^\s*-\s*{tag}\s*$", matter, re.MULTILINE)]
    if missing and tags and lines:
        at = tags.end()
        lines[0] = matter[:at] + "".join(f"\n{tags[1]}- {tag}" for tag in missing) + matter[at:]
    elif missing and not re.search("^tags:", matter, re.MULTILINE):
        lines.append("\n".join(["tags:", *(f"- {tag}" for tag in missing)]))
    return "---\n" + "\n".join(lines) + "\n---\n" + ("" if found else "\n") + rest


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


def with_section(card: str, section: str) -> str:
    """``card`` with ``section`` in the place of the one that it has, or at its end.

    Returns:
        The text of the new card.

    Raises:
        ConfigurationError: A marker is there without the other, or they are in the wrong order.
    """
    begin, end = card.find(BEGIN), card.find(END)
    if (begin < 0) != (end < 0) or end < begin or card.count(BEGIN) > 1 or card.count(END) > 1:
        raise ConfigurationError(
            f"the model card has the markers {BEGIN} and {END} not exactly once each, in this order; put them right, "
            "or delete both and the section is added at the end"
        )
    if begin < 0:
        return card.rstrip("\n") + "\n\n" + section if card.strip() else section
    with contextlib.suppress(IndexError):
        if card[end + len(END)] == "\n":
            end += 1
    return card[:begin] + section + card[end + len(END) :]
