"""``collect``: one zip with all that the Windows machine needs. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.files import readable_size, sha256_of
from lightning_trt_windows.bundle.engines import engine_members
from lightning_trt_windows.bundle.gathering import Gathered, Which
from lightning_trt_windows.bundle.report import report_page
from lightning_trt_windows.bundle.selection import RunDirectories, Selection, select, wheel_member
from lightning_trt_windows.bundle.texts import readme, run_script
from lightning_trt_windows.bundle.wheel import package_version
from lightning_trt_windows.bundle.zipped import Member, text_member, write_archive
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["BUNDLE_FORMAT", "CONTENTS", "Bundle", "Place", "collect"]

BUNDLE_FORMAT = 1
"""Version of ``bundle.json``; a reader refuses a newer one."""
CONTENTS = "bundle.json"
"""Lists every other file of a bundle with its size and SHA-256."""


@dataclass(frozen=True)
class Place:
    """An artifact in a bundle."""

    artifact: Artifact
    """Where it was collected from."""
    ep: str
    """Name of its ``.ep`` in the bundle."""
    roles: tuple[str, ...]
    """``last``, and ``best by val_acc``."""


@dataclass(frozen=True)
class Bundle:
    """What ``collect`` wrote. ``str()`` says it in some lines."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    artifacts: tuple[Place, ...]
    files: tuple[str, ...]
    """Names of all files in it."""
    left_out: tuple[str, ...]
    """What was found and not taken, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON values.

        Returns:
            Plain values, by the names of the fields.
        """
        return {
            "file": self.path.name,
            "size": self.size,
            "sha256": self.sha256,
            "artifacts": [{"ep": place.ep, "roles": list(place.roles)} for place in self.artifacts],
            "files": list(self.files),
            "left_out": list(self.left_out),
        }

    def __str__(self) -> str:
        lines = [f"{self.path} ({readable_size(self.size)}, {len(self.files)} files)"]
        for place in self.artifacts:
            roles = f" ({', '.join(place.roles)})" if place.roles else ""
            lines.append(f"  {place.ep}{roles}")
        return "\n".join([*lines, *(f"  left out: {reason}" for reason in self.left_out)])


def collect(
    run_dir: RunDirectories,
    out: str | os.PathLike[str],
    *,
    which: Which = "all",
    engines: bool = False,
    skip_damaged: bool = False,
    wheel: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Gather the artifacts of a run into one zip for the Windows machine.

    Every artifact is compared with its hashes first. The same artifacts give the same bytes.

    Args:
        run_dir: A directory with artifacts in or below it, or its URL, or several.
        out: The zip, such as ``bundle.zip``; replaced if it is there.
        which: ``"best"`` by what ModelCheckpoint monitored, ``"last"`` by the step, both for each directory that holds
            artifacts; or ``"all"``.
        engines: Add the raw engines and a table of their bindings, for C++ and C#.
        skip_damaged: Leave damaged artifacts out, rather than refuse to make the bundle.
        wheel: A wheel of this package to take; by default one is made of what is installed, unless an index has it.

    Returns:
        What was written, and what was left out.

    Raises:
        ConfigurationError: There is nothing to collect, nothing tells which artifact is the best, or no single
            environment can run all of them.
        ArtifactError: Artifacts are damaged; the error lists all that is wrong with them.
        OutputError: The zip cannot be written.
    """
    target = Path(out)
    if target.suffix.lower() != ".zip":
        raise ConfigurationError(f"a bundle is a zip; name it so: {target.name or 'bundle'}.zip, got {str(out)!r}")
    selection = select(run_dir, which, skip_damaged=skip_damaged)
    items = selection.items
    left_out = [*selection.gathering.left_out, *_not_chosen(selection, which)]
    members = list(_members(selection, engines=engines, wheel=wheel_member(wheel)))
    contents = text_member(CONTENTS, _contents(items, members))
    members = sorted([contents, *members], key=lambda member: (member.name != CONTENTS, member.name))
    write_archive(target, members)
    places = tuple(Place(i.artifact, f"{folder}/{i.artifact.path.name}", i.roles) for i, folder in items)
    return Bundle(
        path=target,
        size=target.stat().st_size,
        sha256=sha256_of(target),
        artifacts=places,
        files=tuple(member.name for member in members),
        left_out=tuple(left_out),
    )


def _not_chosen(selection: Selection, which: Which) -> Iterator[str]:
    folders = {(item.run, item.folder) for item, _ in selection.items}
    for item in selection.gathering.artifacts:
        if (item.run, item.folder) not in folders:
            yield f"{item.folder / item.artifact.path.name}: nothing in its folder is known to be the {which}"


def _members(selection: Selection, *, engines: bool, wheel: Member | None) -> Iterator[Member]:
    items, goldens, package = selection.items, selection.has_goldens, package_version()
    yield from selection.members()
    if engines:
        yield from engine_members(items)
    if wheel:
        yield wheel
    yield text_member("requirements-windows.txt", selection.requirements(wheel))
    yield text_member("run.py", run_script())
    yield text_member("README.md", readme(items, engines=engines, goldens=goldens, wheel=bool(wheel), version=package))
    yield text_member("report.html", report_page([item for item, _ in items], names=_named(items)))


def _named(items: Sequence[tuple[Gathered, str]]) -> list[str]:
    """The artifacts by their place in the bundle, without the folder that all are in."""
    return [f"{folder}/{item.artifact.path.name}".partition("/")[2] for item, folder in items]


def _contents(items: Sequence[tuple[Gathered, str]], members: Sequence[Member]) -> str:
    listed = [
        {
            "ep": f"{folder}/{item.artifact.path.name}",
            "manifest": f"{folder}/{item.artifact.paths.manifest.name}",
            "roles": list(item.roles),
        }
        for item, folder in items
    ]
    files = {m.name: {"size": m.size, "sha256": m.sha256} for m in sorted(members, key=lambda member: member.name)}
    content = {"bundle_format": BUNDLE_FORMAT, "artifacts": listed, "files": files}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
