"""Signatures of manifests: who made an artifact, which hashes do not say. Ed25519, by the package ``cryptography``.

The signature stands in ``NAME.windows.json.sig`` and is over the bytes of the manifest, which holds the hashes of the
``.ep``, of every engine and of the goldens: so it covers all of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lightning_trt_windows.artifact.artifact import (
    Artifact,
    manifest_bytes,
    parse_manifest,
    read_artifact,
)
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError

__all__ = ["PublicKeyLike", "check_signature", "fingerprint", "make_key", "sign"]

PublicKeyLike: TypeAlias = "str | os.PathLike[str] | bytes | Any"
"""A PEM file with an Ed25519 public key, its content, or a key of ``cryptography``."""

_DOMAIN = b"lightning-trt-windows manifest signature 1\n"
"""Stands before the manifest in what is signed, so that a signature made for something else is none here."""
_LARGEST = 1 << 16
"""Bytes of a signature file or a key file; both have some hundred."""


def make_key(path: str | os.PathLike[str], *, password: str | None = None) -> Path:
    """Write a new private key to ``path``, and the public key to ``path`` with ``.pub``.

    On Linux the private key can be read by its owner only. On Windows whoever may read its folder may read it; a
    warning says so where it has no password.

    Returns:
        The file with the public key, which goes to those who load.

    Raises:
        ConfigurationError: ``path`` is there already.
        OutputError: A file cannot be written.
    """
    serialization, ed25519 = _cryptography()
    target = Path(path)
    public = target.with_name(f"{target.name}.pub")
    if existing := [str(file) for file in (target, public) if file.exists()]:
        verb = "are" if existing[1:] else "is"
        raise ConfigurationError(f"{' and '.join(existing)} {verb} there already; a key is not overwritten")
    key = ed25519.Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    with atomic_file(target, mode=0o600) as file:
        file.write(secret)
    with atomic_file(public) as file:
        file.write(_pem(key.public_key()))
    if sys.platform == "win32" and not password:
        warnings.warn(
            f"whoever may read {target.absolute().parent} can read the private key in it: Windows gives a file the "
            "permissions of its folder. Keep it below your user profile, or give it a password",
            stacklevel=2,
        )
    return public


def sign(path: str | os.PathLike[str], private_key: str | os.PathLike[str], *, password: str | None = None) -> Path:
    """Sign the manifest of an artifact, named by its ``.ep`` or its ``.json``, once it is as it will be delivered.

    Args:
        path: Either of the two files.
        private_key: PEM file with an Ed25519 private key.
        password: Of the key, where it has one.

    Returns:
        The file with the signature.

    Raises:
        ArtifactError: The manifest is missing or damaged.
        ConfigurationError: The key cannot be read, or is not an Ed25519 key.
        EnvironmentMismatchError: The package ``cryptography`` is not installed.
        OutputError: The signature cannot be written.
    """
    artifact = read_artifact(path)
    key = _private_key(Path(private_key), password)
    data = manifest_bytes(artifact.paths)
    signed = {
        "algorithm": "Ed25519",
        "key": fingerprint(key.public_key()),
        "signature": base64.b64encode(key.sign(_DOMAIN + data)).decode(),
    }
    target = artifact.paths.signature
    with atomic_file(target) as file:
        file.write((json.dumps(signed, indent=2) + "\n").encode())
    return target


def check_signature(artifact: Artifact, trusted_keys: Sequence[PublicKeyLike]) -> str:
    """Refuse an artifact whose manifest was not signed by one of ``trusted_keys``.

    Args:
        artifact: The artifact.
        trusted_keys: Ed25519 public keys, or files with them.

    Returns:
        The fingerprint of the key that signed it.

    Raises:
        ArtifactError: There is no signature, it is by another key, or the manifest was changed since.
        ConfigurationError: A key cannot be read, or ``trusted_keys`` is empty.
        EnvironmentMismatchError: The package ``cryptography`` is not installed.
    """
    keys = {fingerprint(key): key for key in map(_public_key, trusted_keys)}
    if not keys:
        raise ConfigurationError("trusted_keys is empty: no signature could be accepted; name at least one public key")
    from cryptography.exceptions import InvalidSignature

    path = artifact.paths.signature
    claimed, signature = _read_signature(path)
    data = manifest_bytes(artifact.paths)
    # all keys are tried: the fingerprint in the file is a hint for people, and nothing depends on it
    for name, key in keys.items():
        try:
            key.verify(signature, _DOMAIN + data)
        except InvalidSignature:
            continue
        # what was parsed is what was signed, also if somebody wrote in between
        if parse_manifest(data, artifact.manifest_path) != artifact.manifest:
            raise ArtifactError(artifact.manifest_path, ["changed while it was being read"])
        return name
    if claimed in keys:
        changed = "was changed after it was signed"
        if b"\r\n" in data:
            changed = (
                "has line ends of Windows (CRLF), which git or an editor made of it after it was signed: copy it anew"
            )
        raise ArtifactError(path, [f"does not fit the manifest, which {changed}"])
    trusted = ", ".join(keys)
    raise ArtifactError(path, [f"is by the key {claimed}, which is not among those trusted here: {trusted}"])


def fingerprint(key: Any) -> str:
    """``SHA256:`` and the first 32 hexadecimal digits of the hash of a public key: what people compare."""
    serialization, _ = _cryptography()
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"SHA256:{hashlib.sha256(raw).hexdigest()[:32]}"


def _read_signature(path: Path) -> tuple[str, bytes]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        document = json.loads(data.decode("utf-8"))
        if document["algorithm"] != "Ed25519":
            raise ValueError(f"its algorithm is {document['algorithm']!r}, not Ed25519")
        return str(document["key"])[:80], base64.b64decode(document["signature"], validate=True)
    except FileNotFoundError as error:
        raise ArtifactError(
            path, ["does not exist: the artifact is not signed, and a signature is required"]
        ) from error
    except OSError as error:
        raise ArtifactError(path, [f"cannot be read: {error.strerror or error}"]) from error
    except (ValueError, LookupError, TypeError, RecursionError, binascii.Error) as error:
        raise ArtifactError(path, [f"is not a signature: {error}"]) from error


def _public_key(source: PublicKeyLike) -> Any:
    serialization, ed25519 = _cryptography()
    if isinstance(source, ed25519.Ed25519PublicKey):
        return source
    if isinstance(source, str) and source.startswith("-----BEGIN"):
        source = source.encode()
    data = source if isinstance(source, bytes) else _read_key(Path(source))
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{_called(source)} is not a public key in PEM form: {error}") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigurationError(f"{_called(source)} is a key of another kind than Ed25519; make one with keygen")
    return key


def _private_key(path: Path, password: str | None) -> Any:
    serialization, ed25519 = _cryptography()
    try:
        key = serialization.load_pem_private_key(_read_key(path), password.encode() if password else None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a private key that can be read: {error}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is a key of another kind than Ed25519; make one with keygen")
    return key


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST)
    except OSError as error:
        raise ConfigurationError(f"the key {path} cannot be read: {error.strerror or error}") from error


def _called(source: PublicKeyLike) -> str:
    return "the key" if isinstance(source, bytes) else str(source)


def _pem(key: Any) -> bytes:
    serialization, _ = _cryptography()
    data: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise EnvironmentMismatchError(
            "signatures need the package cryptography, which is not installed: "
            'pip install "lightning-trt-windows[sign]"'
        ) from error
    return serialization, ed25519
