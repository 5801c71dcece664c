"""What a bundle and a folder for the Hugging Face Hub have in common: which artifacts, and which files of them.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.bundle.gathering import Gathered, Gathering, Which, chosen, gather
from lightning_trt_windows.bundle.layout import with_folders
from lightning_trt_windows.bundle.pins import requirements
from lightning_trt_windows.bundle.wheel import is_published, package_version, package_wheel
from lightning_trt_windows.bundle.zipped import Member, file_member
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.storage.remote_artifact import fetch_run

__all__ = ["RunDirectories", "Selection", "select", "wheel_member"]

_WHEELS = "wheels"
"""Folder of wheels in a bundle."""

RunDirectories = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A directory with artifacts in or below it, or its URL, or several."""


@dataclass(frozen=True)
class Selection:
    """The artifacts that are collected."""

    gathering: Gathering
    """All that were found."""
    items: tuple[tuple[Gathered, str], ...]
    """Artifacts that were chosen, each with its folder in the bundle; at least one."""

    @property
    def has_goldens(self) -> bool:
        """Whether reference outputs (goldens) are among the files."""
        return any(item.manifest.golden for item, _ in self.items)

    def members(self) -> Iterator[Member]:
        """The files of the artifacts, under the names that they have in a bundle."""
        for item, folder in self.items:
            manifest = item.manifest
            known = {record.file: record for record in manifest.files}
            for path in item.files:
                record = known.get(path.name)
                size, sha256 = (record.size, record.sha256) if record else (path.stat().st_size, sha256_of(path))
                yield file_member(f"{folder}/{path.name}", path, size, sha256)

    def requirements(self, wheel: Member | None) -> str:
        """The text of ``requirements-windows.txt``.

        Args:
            wheel: This package, where no index has it.

        Raises:
            ConfigurationError: No single environment can run all of the artifacts.
        """
        return requirements(
            [(item.manifest.backend.name, item.manifest.versions) for item, _ in self.items],
            package=f"./{wheel.name}" if wheel else f"lightning-trt-windows=={package_version()}",
            goldens=self.has_goldens,
            signatures=any(item.signed for item, _ in self.items),
            openssf=any(item.openssf_signed for item, _ in self.items),
        )


def select(run_dir: RunDirectories, which: Which, *, skip_damaged: bool, leave_out: Path | None = None) -> Selection:
    """Find the artifacts of a run, check them, and choose.

    Args:
        run_dir: A directory with artifacts in or below it, or its URL, or several.
        which: ``"best"`` or ``"last"`` of each directory that holds artifacts, or ``"all"``.
        skip_damaged: Leave damaged artifacts out rather than raise.
        leave_out: A directory that is not searched: where the result goes.

    Returns:
        The chosen artifacts, and what was left out.

    Raises:
        ConfigurationError: There is no directory or no artifact, or nothing tells the best.
        ArtifactError: All that is wrong with those that are damaged.
    """
    runs = [fetch_run(run) for run in ([run_dir] if isinstance(run_dir, (str, os.PathLike)) else run_dir)]
    if not runs:
        raise ConfigurationError("no directory was given to collect from")
    gathering = gather(runs, skip_damaged=skip_damaged, leave_out=leave_out)
    names = [run.resolve().name for run in runs]
    return Selection(gathering, tuple(with_folders(chosen(gathering, which), names)))


def wheel_member(wheel: str | os.PathLike[str] | None) -> Member | None:
    """This package as a wheel: the one that was given, else what is installed, unless an index has that.

    Raises:
        ConfigurationError: What was given is not a wheel.
    """
    if wheel is None:
        return None if is_published() else package_wheel(_WHEELS)
    path = Path(wheel)
    if path.suffix != ".whl" or not path.is_file():
        raise ConfigurationError(f"{path} is not a wheel; without one, the bundle gets the package as it is installed")
    return file_member(f"{_WHEELS}/{path.name}", path, path.stat().st_size, sha256_of(path))
