"""``collect``: one zip with all that the Windows machine needs. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.artifact.files import readable_size, sha256_of
from lightning_trt_windows.bundle.engines import engine_members
from lightning_trt_windows.bundle.gathering import Gathered, Which, chosen, gather
from lightning_trt_windows.bundle.layout import with_folders
from lightning_trt_windows.bundle.pins import requirements
from lightning_trt_windows.bundle.report import report_page
from lightning_trt_windows.bundle.texts import readme, run_script
from lightning_trt_windows.bundle.zipped import Member, file_member, text_member, write_archive
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.storage.remote_artifact import fetch_run

__all__ = ["BUNDLE_FORMAT", "CONTENTS", "Bundle", "Place", "collect", "directories", "package_version"]

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
        """The same as JSON values."""
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
    run_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
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
        wheel: A wheel of this package to add, for where no index has it.

    Raises:
        ConfigurationError: Nothing to collect, nothing that tells the best, or artifacts that no single environment
            can run.
        ArtifactError: All that is wrong with those that are damaged.
        OutputError: The zip cannot be written.
    """
    target = Path(out)
    if target.suffix.lower() != ".zip":
        raise ConfigurationError(f"a bundle is a zip; name it so: {target.name or 'bundle'}.zip, got {str(out)!r}")
    runs = directories(run_dir)
    gathering = gather(runs, skip_damaged=skip_damaged)
    names = [run.resolve().name for run in runs]
    items = list(with_folders(chosen(gathering, which), names))
    left_out = [*gathering.left_out, *_not_chosen(gathering.artifacts, [item for item, _ in items], which)]
    members = list(_members(items, engines=engines, wheel=None if wheel is None else Path(wheel)))
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


def directories(run_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """One directory or several, as paths.

    Raises:
        ConfigurationError: None at all.
    """
    runs = [fetch_run(run) for run in ([run_dir] if isinstance(run_dir, (str, os.PathLike)) else run_dir)]
    if not runs:
        raise ConfigurationError("no directory was given to collect from")
    return runs


def package_version() -> str:
    """Version of this package; of a checkout that is not installed, what it would say."""
    try:
        return version("lightning-trt-windows")
    except PackageNotFoundError:
        return "unknown"


def _not_chosen(everything: Iterable[Gathered], taken: Sequence[Gathered], which: Which) -> Iterator[str]:
    folders = {(item.run, item.folder) for item in taken}
    for item in everything:
        if (item.run, item.folder) not in folders:
            yield f"{item.folder / item.artifact.path.name}: nothing in its folder is known to be the {which}"


def _members(items: Sequence[tuple[Gathered, str]], *, engines: bool, wheel: Path | None) -> Iterator[Member]:
    goldens = any(item.manifest.golden for item, _ in items)
    signatures = False
    for item, folder in items:
        recorded = item.manifest
        known = {recorded.ep.file: recorded.ep}
        if recorded.golden:
            known[recorded.golden.file] = recorded.golden
        for path in item.files:
            record = known.get(path.name)
            size, sha256 = (record.size, record.sha256) if record else (path.stat().st_size, sha256_of(path))
            yield file_member(f"{folder}/{path.name}", path, size, sha256)
            signatures |= path.name.endswith(".sig")
    if engines:
        yield from engine_members(items)
    if wheel:
        if wheel.suffix != ".whl" or not wheel.is_file():
            raise ConfigurationError(f"{wheel} is not a wheel")
        yield file_member(f"wheels/{wheel.name}", wheel, wheel.stat().st_size, sha256_of(wheel))
    made_with = [(item.manifest.backend.name, item.manifest.versions) for item, _ in items]
    text = requirements(made_with, package=package_version(), goldens=goldens, signatures=signatures)
    yield text_member("requirements-windows.txt", text + ("--find-links wheels\n" if wheel else ""))
    yield text_member("run.py", run_script())
    yield text_member("README.md", readme(items, engines=engines, goldens=goldens, version=package_version()))
    yield text_member("report.html", report_page([item for item, _ in items], names=_named(items)))


def _named(items: Sequence[tuple[Gathered, str]]) -> list[str]:
    """The artifacts by their place in the bundle, without the folder that all are in."""
    return [f"{folder}/{item.artifact.path.name}".partition("/")[2] for item, folder in items]


def _contents(items: Sequence[tuple[Gathered, str]], members: Sequence[Member]) -> str:
    listed = [
        {
            "ep": f"{folder}/{item.artifact.path.name}",
            "manifest": f"{folder}/{ArtifactPaths.of(item.artifact.path).manifest.name}",
            "roles": list(item.roles),
        }
        for item, folder in items
    ]
    files = {m.name: {"size": m.size, "sha256": m.sha256} for m in sorted(members, key=lambda member: member.name)}
    content = {"bundle_format": BUNDLE_FORMAT, "artifacts": listed, "files": files}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
