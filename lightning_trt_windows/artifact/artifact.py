"""Artifacts on disk: their names, writing without half files, reading and integrity. Standard library only.

An artifact is an ``.ep`` with its manifest. The manifest is written last, each file appears whole or not at all, and
nothing here unpickles anything. ``docs/format.md`` is the specification.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.files import atomic_file, output_errors, readable_size
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.open_elsewhere import patiently, reason_of
from lightning_trt_windows.artifact.windows_names import (
    LONGEST,
    hash_suffix,
    illegal_on_windows,
    legal_form,
    too_long,
    windows_name,
)
from lightning_trt_windows.errors import ArtifactError, ConfigurationError

__all__ = [
    "Artifact",
    "ArtifactPaths",
    "artifact_issues",
    "check_artifact",
    "manifest_bytes",
    "open_checked",
    "parse_manifest",
    "read_artifact",
    "remove_manifest",
    "why_not_read",
    "write_manifest",
]

_LONGEST_ENGINE = 60
"""Characters of an engine's name in the name of its file."""
_LONGEST_STEM = 120
"""Bytes. With the longest suffix and a short folder in a bundle that fits ``bundle.layout.LONGEST``, and so the 260
characters that Windows allows a path."""
_LARGEST_MANIFEST = 1 << 24
"""Bytes. Manifests have some KiB; a reader must not fill its memory with something else."""


@dataclass(frozen=True)
class ArtifactPaths:
    """The files of one artifact: what each is called and where it is, whether it is there or not."""

    directory: Path
    """Directory of all of them."""
    stem: str
    """What all names begin with, such as ``epoch=3-step=99.windows``."""

    @classmethod
    def beside(cls, checkpoint: str | os.PathLike[str]) -> ArtifactPaths:
        """Name the files of the artifact of ``checkpoint``, in its directory.

        Names are legal on Windows even where the checkpoint's is not. Two checkpoints never share an artifact: a name
        that had to be changed, or does not end in ``.ckpt``, gets a hash of the original.

        Returns:
            The paths; nothing need be there.
        """
        path = Path(checkpoint)
        stem = legal_form(path.name.removesuffix(".ckpt"), _LONGEST_STEM)
        if f"{stem}.ckpt" != path.name:
            stem += hash_suffix(path.name)
        return cls(path.parent, f"{stem}.windows")

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> ArtifactPaths:
        """Name the files of the artifact that ``path`` belongs to: its ``.ep`` or its ``.json``.

        Returns:
            The paths; nothing need be there.

        Raises:
            ConfigurationError: ``path`` has another ending, or a name that is illegal on Windows.
        """
        path = Path(path)
        stem, _, suffix = path.name.rpartition(".")
        if not stem or suffix.lower() not in ("ep", "json"):
            advice = f"; perhaps {cls.beside(path).ep.name}" if suffix == "ckpt" else ""
            raise ConfigurationError(f"an artifact is named by its .ep or its .json, got {str(path)!r}{advice}")
        if why := illegal_on_windows(path.name):
            raise ConfigurationError(f"{path.name!r} {why}, which Windows does not allow; choose another name")
        return cls(path.parent, stem)

    @property
    def ep(self) -> Path:
        """The program with its engines."""
        return self._file("ep")

    @property
    def manifest(self) -> Path:
        """The manifest, which is written last."""
        return self._file("json")

    @property
    def golden(self) -> Path:
        """Reference outputs with their inputs (goldens); optional."""
        return self._file("golden.safetensors")

    @property
    def signature(self) -> Path:
        """The signature of the manifest; optional."""
        return self._file("json.sig")

    @property
    def openssf(self) -> Path:
        """The signature of OpenSSF's model signing; optional."""
        return self._file("sigstore.json")

    @property
    def bench(self) -> Path:
        """What ``bench`` measured; optional, and no part of the artifact: figures are of one machine."""
        return self._file("bench.json")

    @property
    def log(self) -> Path:
        """The log of an export that failed."""
        return self._file("log")

    @property
    def failed(self) -> Path:
        """The folder of a build process that failed: its log, and a script that repeats it."""
        return self._file("failed")

    @property
    def onnx(self) -> Path:
        """The model for ONNX Runtime; optional."""
        return self._file("onnx")

    def onnx_files(self, engines: int) -> tuple[Path, ...]:
        """Name the model for ONNX Runtime and then the engines that it names, of which there are ``engines``."""
        endings = ["engine"] if engines == 1 else [f"engine_{number}.engine" for number in range(engines)]
        return self.onnx, *map(self._file, endings)

    def left_onnx_files(self) -> tuple[Path, ...]:
        """Find the model for ONNX Runtime that is there, and all engines of one, however many there were."""
        prefix = f"{self.stem}.engine_"
        folder = list(self.directory.iterdir()) if self.directory.is_dir() else []
        numbered = (path for path in folder if path.name.startswith(prefix) and path.suffix == ".engine")
        several = [path for path in numbered if path.name[len(prefix) : -len(".engine")].isdigit()]
        return tuple(path for path in (*self.onnx_files(1), *sorted(several)) if path.exists())

    def optional(self, engines: int) -> tuple[Path, ...]:
        """Name what an artifact with so many engines may have besides its ``.ep`` and its manifest."""
        return self.golden, self.signature, self.openssf, *self.onnx_files(engines)

    @property
    def name(self) -> str:
        """Name of the checkpoint without ``.ckpt``, as it is legal on Windows."""
        return self.stem.removesuffix(".windows")

    def engine(self, name: str, number: int, longest: int = LONGEST) -> Path:
        """Name the file of a raw engine; no other engine has that name.

        Args:
            name: What the manifest calls the engine.
            number: Its place in the manifest's list.
            longest: The most characters that the name of the file may have.

        Returns:
            The path of its ``.engine`` file.
        """
        short = name if name.isascii() and len(name) < _LONGEST_ENGINE else f"engine_{number}"
        return self._short_file(short, ".engine", longest)

    def constant(self, number: int, longest: int = LONGEST) -> Path:
        """Name the file of a constant that stands beside raw engines.

        Args:
            number: Its place among them.
            longest: The most characters that the name of the file may have.

        Returns:
            The path of its ``.bin`` file.
        """
        return self._short_file(f"constant_{number}", ".bin", longest)

    def _short_file(self, part: str, suffix: str, longest: int) -> Path:
        stem = f"{self.stem}.{part}"
        file = windows_name(f"{stem}{suffix}")
        if len(file) > longest:
            ending = f"{hash_suffix(stem)}{suffix}"
            file = legal_form(stem, longest - len(ending)) + ending
        return self.directory / file

    def _file(self, ending: str) -> Path:
        return self.directory / f"{self.stem}.{ending}"


@dataclass(frozen=True)
class Artifact:
    """An ``.ep`` and what its manifest says about it."""

    path: Path
    """The ``.ep``."""
    manifest: Manifest
    url: str | None = None
    """Where the ``.ep`` has been uploaded to, if its checkpoint is on another file system. ``path`` was its place on
    this machine, and need not last."""

    @property
    def paths(self) -> ArtifactPaths:
        """The files of the artifact."""
        return ArtifactPaths.of(self.path)

    @property
    def manifest_path(self) -> Path:
        """The ``.json`` beside it."""
        return self.paths.manifest

    @property
    def size(self) -> int:
        """Bytes of the ``.ep``, according to the manifest."""
        return self.manifest.ep.size

    def __str__(self) -> str:
        count = len(self.manifest.engines)
        engines = f"{count} {self.manifest.backend.name} engine{'' if count == 1 else 's'}"
        source = f", from {self.manifest.checkpoint.file}" if self.manifest.checkpoint else ""
        return f"{self.url or self.path} ({readable_size(self.size)}, {engines}{source})"


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write the manifest, which makes the ``.ep`` beside it an artifact: call this last.

    Raises:
        ArtifactError: The manifest could not be read back.
        OutputError: The file cannot be written.
    """
    data = manifest.to_json().encode()
    with atomic_file(path) as file:
        file.write(data)


def remove_manifest(paths: ArtifactPaths) -> None:
    """Make the files at ``paths`` no artifact: call this before the ``.ep`` is written over.

    Otherwise the old manifest would vouch for the new ``.ep`` until it is replaced, or for ever if that never happens.

    Raises:
        OutputError: The manifest cannot be removed.
    """
    with output_errors(paths.manifest, 0), contextlib.suppress(FileNotFoundError):
        patiently(paths.manifest.unlink, paths.manifest, replaces=True)


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read the manifest of an artifact, named by its ``.ep`` or its ``.json``. The ``.ep`` is not looked at.

    Returns:
        The artifact, as its manifest describes it.

    Raises:
        ArtifactError: There is no manifest, it is damaged, or it describes a file of another name.
    """
    paths = ArtifactPaths.of(path)
    manifest = parse_manifest(manifest_bytes(paths), paths.manifest)
    if os.path.normcase(manifest.ep.file) != os.path.normcase(paths.ep.name):
        raise ArtifactError(
            paths.manifest,
            [f"describes {manifest.ep.file}, not {paths.ep.name}; give both files the names that belong together"],
        )
    return Artifact(paths.ep, manifest)


def parse_manifest(data: bytes, where: object) -> Manifest:
    """Parse the content of a manifest's file; ``where`` names the file in messages.

    Returns:
        The manifest.

    Raises:
        ArtifactError: The data is not a valid manifest.
    """
    if len(data) > _LARGEST_MANIFEST:
        raise ArtifactError(where, [f"is larger than {_LARGEST_MANIFEST} bytes, so it is not a manifest"])
    try:
        text = data.decode("utf-8-sig")  # editors on Windows may have put a byte order mark
    except UnicodeDecodeError as error:
        raise ArtifactError(where, [f"is not UTF-8 text: {error}"]) from error
    return Manifest.from_json(text, str(where))


def check_artifact(artifact: Artifact | str | os.PathLike[str]) -> Artifact:
    """Compare an artifact with its manifest, byte for byte, before anything trusts it.

    Returns:
        The artifact.

    Raises:
        ArtifactError: The artifact differs from its manifest; the error lists every difference.
    """
    if not isinstance(artifact, Artifact):
        artifact = read_artifact(artifact)
    with open_checked(artifact):
        return artifact


@contextlib.contextmanager
def open_checked(artifact: Artifact) -> Iterator[EpFile]:
    """Open the ``.ep`` of an artifact and compare it with its manifest, byte for byte.

    Yields:
        The file that was compared: what is read from it is what was checked.

    Raises:
        ArtifactError: The artifact differs from its manifest; the error lists every difference.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(EpFile(artifact.path))
            issues = list(file.issues(artifact.manifest))
        except OSError as error:
            raise ArtifactError(artifact.path, [why_not_read(error, artifact.path)]) from error
        if issues:
            raise ArtifactError(artifact.path, issues)
        yield file


def artifact_issues(artifact: Artifact, *, content: bool = True) -> Iterator[str]:
    """Say what is wrong with the ``.ep``, sentence by sentence; without ``content`` its bytes are not hashed."""
    try:
        with EpFile(artifact.path) as file:
            yield from file.issues(artifact.manifest, content=content)
    except OSError as error:
        yield why_not_read(error, artifact.path)


def why_not_read(error: OSError, path: Path) -> str:
    """Say why a file of an artifact could not be read, for a sentence that has named it."""
    if isinstance(error, FileNotFoundError):
        return f"does not exist{too_long(path) or '; copy it together with its manifest'}"
    return f"cannot be read: {reason_of(error, path)}"


def manifest_bytes(paths: ArtifactPaths) -> bytes:
    """Read the file of a manifest.

    Returns:
        Its bytes, a few more than a manifest may have at most.

    Raises:
        ArtifactError: The file does not exist or cannot be read.
    """
    try:
        with patiently(lambda: paths.manifest.open("rb"), paths.manifest) as stream:
            return stream.read(_LARGEST_MANIFEST + 1)
    except FileNotFoundError as error:
        orphan = f"{paths.ep.name} is not an artifact without it: its export did not finish, or it was copied alone"
        rest = orphan if paths.ep.exists() else f"neither does {paths.ep.name}"
        raise ArtifactError(paths.manifest, [f"does not exist{too_long(paths.manifest) or f'; {rest}'}"]) from error
    except OSError as error:
        raise ArtifactError(paths.manifest, [f"cannot be read: {reason_of(error, paths.manifest)}"]) from error
