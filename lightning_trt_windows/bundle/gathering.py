"""The artifacts of a run: found by their manifests, checked, and which of them is the best and the last.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from lightning_trt_windows.artifact.artifact import Artifact, artifact_issues, read_artifact
from lightning_trt_windows.artifact.golden_files import golden_issues
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.onnx_files import onnx_issues
from lightning_trt_windows.artifact.windows_names import too_long
from lightning_trt_windows.errors import ArtifactError, ConfigurationError
from lightning_trt_windows.storage.run_index import Order, best_of, last_of, order_of

__all__ = ["Gathered", "Gathering", "Which", "chosen", "gather"]

Which: TypeAlias = Literal["all", "best", "last"]

_WINDOWS_JSON = ".windows.json"


@dataclass(frozen=True)
class Gathered:
    """An artifact of a run, with what lies beside it."""

    artifact: Artifact
    folder: PurePosixPath
    """Where it was found, from the directory that was searched."""
    run: int
    """Number of the directory that was searched, in the order given."""
    roles: tuple[str, ...] = ()
    """``last``, and ``best by val_acc``, among the artifacts of its folder."""

    @property
    def manifest(self) -> Manifest:
        """What the export wrote down."""
        return self.artifact.manifest

    @property
    def files(self) -> tuple[Path, ...]:
        """The ``.ep``, the manifest, and goldens, ONNX model and signature where there are any."""
        paths = self.artifact.paths
        golden = [paths.golden] if self.manifest.golden else []
        model = paths.onnx_files(len(self.manifest.engines))[: len(self.manifest.onnx)]
        return (paths.ep, paths.manifest, *golden, *model, *self.signatures)

    @property
    def signatures(self) -> tuple[Path, ...]:
        """The signatures that lie beside it: this package's, and OpenSSF's."""
        paths = self.artifact.paths
        return tuple(path for path in (paths.signature, paths.openssf) if path.is_file())

    @property
    def signed(self) -> bool:
        """Whether the manifest has a signature of this package beside it."""
        return self.artifact.paths.signature in self.signatures

    @property
    def openssf_signed(self) -> bool:
        """Whether the artifact has a signature of OpenSSF's model signing beside it."""
        return self.artifact.paths.openssf in self.signatures


@dataclass(frozen=True)
class Gathering:
    """What was found."""

    artifacts: tuple[Gathered, ...]
    """Artifacts by run, folder and name."""
    unfinished: tuple[str, ...] = ()
    """What is no artifact because it has no manifest, a sentence each."""
    damaged: tuple[str, ...] = ()
    """What is wrong with those that were left out for it."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was not taken, and why."""
        return (*self.unfinished, *self.damaged)


def gather(
    runs: Sequence[Path],
    *,
    content: bool = True,
    skip_damaged: bool = False,
    leave_out: Path | None = None,
    needs_some: bool = True,
) -> Gathering:
    """Find the artifacts in and below ``runs``, and check them.

    Links to directories are not followed. An ``.ep`` without a manifest is an export that did not finish, and is left
    out.

    Args:
        runs: Directories.
        content: Also compare every byte with the hashes in the manifests.
        skip_damaged: Leave damaged artifacts out rather than raise.
        leave_out: A directory that is not searched: where the result goes.
        needs_some: Whether finding none is an error.

    Returns:
        The artifacts, and what was left out.

    Raises:
        ConfigurationError: A directory is not there, or there is no artifact in any.
        ArtifactError: What is wrong with all that are damaged.
    """
    found: list[Gathered] = []
    unfinished: list[str] = []
    issues: list[str] = []
    for number, run in enumerate(runs):
        if not run.is_dir():
            raise ConfigurationError(
                f"{run} is not a directory{too_long(run)}; artifacts are looked for below the directory of a run"
            )
        for manifest_path, folder in _manifests(run, leave_out, unfinished):
            try:
                artifact = read_artifact(manifest_path)
                wrong = [*artifact_issues(artifact, content=content), *golden_issues(artifact, content=content)]
                wrong += onnx_issues(artifact, content=content)
            except ArtifactError as error:
                wrong = list(error.issues)
            if not wrong:
                found.append(Gathered(artifact, folder, number))
            issues += [f"{folder / manifest_path.name}: {issue}" for issue in wrong]
    where = ", ".join(map(str, runs))
    if issues and not skip_damaged:
        raise ArtifactError(where, issues)
    if needs_some and not found:
        reasons = "".join(f"\n  - {reason}" for reason in (*unfinished, *issues))
        raise ConfigurationError(
            f"there is no artifact in or below {where}: none of the files there is a manifest (*{_WINDOWS_JSON}) that "
            f"could be used{reasons}"
        )
    return Gathering(tuple(_with_roles(found)), tuple(unfinished), tuple(issues))


def chosen(gathering: Gathering, which: Which) -> tuple[Gathered, ...]:
    """The best or the last of each folder, or all.

    Returns:
        The chosen ones, in the order of ``gathering``.

    Raises:
        ConfigurationError: No manifest tells which one is the best.
    """
    if which not in ("all", "best", "last"):
        raise ConfigurationError(f"which must be 'all', 'best' or 'last', got {which!r}")
    if which == "all":
        return gathering.artifacts
    taken = tuple(item for item in gathering.artifacts if any(role.startswith(which) for role in item.roles))
    if not taken:
        names = ", ".join(item.artifact.path.name for item in gathering.artifacts[:5])
        raise ConfigurationError(
            f"which={which!r}: no manifest has a score to compare; a checkpoint has one if a ModelCheckpoint with "
            f"monitor=... kept it. Found: {names}. Take which='all' or 'last', or the directory of the one you want"
        )
    return taken


def _manifests(run: Path, leave_out: Path | None, unfinished: list[str]) -> Iterator[tuple[Path, PurePosixPath]]:
    """Manifests in and below ``run`` in the order of their names, each with its folder."""
    for directory, folders, files in os.walk(run):
        here = Path(directory)
        folder = PurePosixPath(here.relative_to(run).as_posix())
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _is_same(here / f, leave_out))
        names = {os.path.normcase(name) for name in files}
        for name in sorted(files):
            stem, _, ending = name.rpartition(".")
            if ending == "json" and (name.endswith(_WINDOWS_JSON) or os.path.normcase(f"{stem}.ep") in names):
                yield here / name, folder
            elif ending == "ep" and os.path.normcase(f"{stem}.json") not in names:
                unfinished.append(
                    f"{folder / name}: has no manifest; its export did not finish, or it was copied alone"
                )


def _is_same(path: Path, other: Path | None) -> bool:
    if other is None:
        return False
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return False


def _with_roles(found: Sequence[Gathered]) -> Iterator[Gathered]:
    roles: dict[Path, list[str]] = {item.artifact.path: [] for item in found}
    for key in dict.fromkeys((item.run, item.folder) for item in found):
        beside = [item for item in found if (item.run, item.folder) == key]
        for item, role in (*_best(beside), *_last(beside)):
            roles[item.artifact.path].append(role)
    for item in found:
        yield replace(item, roles=tuple(roles[item.artifact.path]))


def _best(items: Sequence[Gathered]) -> Iterator[tuple[Gathered, str]]:
    """For each metric that was monitored, the artifact with the best score."""
    scored = [(s, item) for item in items if item.manifest.checkpoint for s in item.manifest.checkpoint.scores]
    for monitor, mode in dict.fromkeys((score.monitor, score.mode) for score, _ in scored):
        same = [(s.value, _order(item), item) for s, item in scored if (s.monitor, s.mode) == (monitor, mode)]
        yield best_of(same, mode), f"best by {monitor}"


def _last(items: Iterable[Gathered]) -> Iterator[tuple[Gathered, str]]:
    """The artifact of the latest step."""
    if placed := [(_order(item), item) for item in items if item.manifest.checkpoint]:
        yield last_of(placed), "last"


def _order(item: Gathered) -> Order:
    checkpoint = item.manifest.checkpoint
    assert checkpoint is not None
    return order_of(item.artifact.path.name, checkpoint.global_step, checkpoint.epoch)
