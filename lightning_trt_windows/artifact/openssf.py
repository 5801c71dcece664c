"""Signatures of OpenSSF's model signing, by the package ``model_signing``: an alternative to this package's own.

The signature stands in ``NAME.windows.sigstore.json`` and is over the SHA-256 of two files, the ``.ep`` and the
manifest, which holds the hashes of everything else. The key is one of NIST's elliptic curves. OpenSSF's own tool signs
and verifies the same. The package is imported when it is needed.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.files import atomic_file, output_errors
from lightning_trt_windows.errors import ArtifactError, EnvironmentMismatchError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["check_model_signature", "sign_model"]

_LARGEST = 1 << 16
"""Bytes of a signature file; one has some two thousand."""


def sign_model(artifact: Artifact, private_key: Path, password: str | None = None) -> Path:
    """Sign the ``.ep`` and the manifest of an artifact.

    Args:
        artifact: The artifact.
        private_key: PEM file with a private key of an elliptic curve.
        password: Of the key, where it has one.

    Returns:
        The file with the signature.

    Raises:
        EnvironmentMismatchError: The package ``model_signing`` is not installed.
        OutputError: The signature cannot be written.
    """
    library = _library()
    paths = artifact.paths
    with output_errors(paths.openssf, 0), tempfile.TemporaryDirectory(dir=paths.directory, prefix=".signing-") as place:
        # a folder of the two alone: its name stands in the signature, and it tells nothing of this machine
        folder = Path(place, paths.stem)
        folder.mkdir()
        for path in (paths.ep, paths.manifest):
            _link(path, folder / path.name)
        signer = library.signing.Config().set_hashing_config(_hashing(library))
        # the bytes: model_signing 1.1 hands a text to a function that takes none
        secret: Any = password.encode() if password else None
        signer.use_elliptic_key_signer(private_key=private_key, password=secret)
        written = Path(place, paths.openssf.name)
        signer.sign(folder, written)
        with atomic_file(paths.openssf) as file:
            file.write(written.read_bytes())
    return paths.openssf


def check_model_signature(artifact: Artifact, keys: Iterable[tuple[str, bytes]]) -> str:
    """Refuse an artifact that was not signed by one of ``keys``: exactly its ``.ep`` and its manifest, as they are.

    Args:
        artifact: The artifact.
        keys: Public keys of elliptic curves in PEM form, each with its fingerprint.

    Returns:
        The fingerprint of the key that signed it.

    Raises:
        ArtifactError: There is no signature, it is by another key, or a file was changed since.
        EnvironmentMismatchError: The package ``model_signing`` is not installed.
    """
    library = _library()
    paths = artifact.paths
    _check_file(paths.openssf)
    why = ""
    for name, pem in keys:
        with tempfile.TemporaryDirectory() as place:
            key = Path(place, "key.pem")
            key.write_bytes(pem)
            verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=key)
            verifier.set_hashing_config(_hashing(library, files=(paths.ep, paths.manifest)))
            try:
                # where it has something to say it prints
                with contextlib.redirect_stdout(sys.stderr):
                    verifier.verify(paths.directory, paths.openssf)
            except Exception as error:  # anything: the file may be a stranger's, and what reads it has many layers
                why = str(error).strip() or f"the signature is not by the key {name}"
                continue
        # what was parsed is what was signed, also if somebody wrote in between
        if read_artifact(paths.manifest).manifest != artifact.manifest:
            raise ArtifactError(paths.manifest, ["changed while it was being read"])
        return name
    raise ArtifactError(paths.openssf, [f"is not a signature of this artifact by a key that is trusted here: {why}"])


def _check_file(path: Path) -> None:
    """Refuse a signature that is not there, or too large to be one."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ArtifactError(
            path, ["does not exist: the artifact has no OpenSSF signature, and one is required"]
        ) from error
    except OSError as error:
        raise ArtifactError(path, [f"cannot be read: {error.strerror or error}"]) from error
    if size > _LARGEST:
        raise ArtifactError(path, [f"has {size} bytes, more than a signature has"])


def _hashing(library: ModuleType, files: tuple[Path, ...] | None = None) -> Any:
    """How files are hashed: each with SHA-256, and of a folder only ``files`` where they are named."""

    class Config(library.hashing.Config):  # type: ignore[misc, name-defined]  # it comes with the package
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:
            """Hash ``files``, whatever else is in the folder."""
            return super().hash(model_path, files_to_hash=files or files_to_hash)

    return Config().set_ignored_paths(paths=[], ignore_git_paths=False)


def _link(path: Path, target: Path) -> None:
    """Make ``target`` the same file as ``path``, or a copy where the file system has no links."""
    try:
        target.hardlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, target)


def _library() -> ModuleType:
    try:
        import model_signing
    except ImportError as error:
        raise EnvironmentMismatchError(
            "signatures of OpenSSF's model signing need the package model-signing, which is not installed: "
            'pip install "lightning-trt-windows[model-signing]"'
        ) from error
    library: ModuleType = model_signing
    return library
