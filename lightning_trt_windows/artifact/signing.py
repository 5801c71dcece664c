"""Signatures of manifests: who made an artifact, which hashes do not say. Ed25519, by the package ``cryptography``.

The signature stands in ``NAME.windows.json.sig`` and is over the bytes of the manifest, which holds the hashes of the
``.ep``, of every engine and of the goldens: so it covers all of them. A key of an elliptic curve of NIST's in the place
of an Ed25519 key means a signature of OpenSSF's model signing: ``openssf``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lightning_trt_windows.artifact.artifact import (
    Artifact,
    check_artifact,
    manifest_bytes,
    parse_manifest,
    read_artifact,
)
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.openssf import check_model_signature, sign_model
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError

__all__ = ["KeyKind", "PublicKeyLike", "check_signature", "fingerprint", "make_key", "sign"]

PublicKeyLike: TypeAlias = "str | os.PathLike[str] | bytes | Any"
"""A PEM file with a public key, its content, or a key of ``cryptography``: Ed25519, or of one of NIST's curves."""

KeyKind: TypeAlias = Literal["ed25519", "openssf"]
"""What a key signs: this package's signatures, or those of OpenSSF's model signing (ECDSA over NIST P-256)."""

_DOMAIN = b"lightning-trt-windows manifest signature 1\n"
"""Stands before the manifest in what is signed, so that a signature made for something else is none here."""
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Curves that OpenSSF's model signing takes: P-256, P-384, P-521."""
_LARGEST = 1 << 16
"""Bytes of a signature file or a key file; both have some hundred."""


def make_key(path: str | os.PathLike[str], *, password: str | None = None, kind: KeyKind = "ed25519") -> Path:
    """Write a new private key to ``path``, and the public key to ``path`` with ``.pub``.

    On Linux the private key can be read by its owner only. On Windows whoever may read its folder may read it; a
    warning says so where it has no password.

    Args:
        path: Where the private key goes; must not exist.
        password: Encrypts the private key.
        kind: What it will sign.

    Returns:
        The file with the public key, which goes to those who load.

    Raises:
        ConfigurationError: ``path`` is there already, or there are no keys of this kind.
        OutputError: A file cannot be written.
    """
    serialization, ed25519, ec = _cryptography()
    target = Path(path)
    public = target.with_name(f"{target.name}.pub")
    if existing := [str(file) for file in (target, public) if file.exists()]:
        verb = "are" if existing[1:] else "is"
        raise ConfigurationError(f"{' and '.join(existing)} {verb} there already; a key is not overwritten")
    new = {"ed25519": ed25519.Ed25519PrivateKey.generate, "openssf": lambda: ec.generate_private_key(ec.SECP256R1())}
    if kind not in new:
        raise ConfigurationError(f"kind must be 'ed25519' or 'openssf', got {kind!r}")
    key = new[kind]()
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
        private_key: PEM file with a private key: an Ed25519 key signs the manifest, one of NIST's curves makes a
            signature of OpenSSF's model signing, of both files.
        password: Of the key, where it has one.

    Returns:
        The file with the signature.

    Raises:
        ArtifactError: The manifest is missing or damaged; with a key for OpenSSF, any file of the artifact.
        ConfigurationError: The key cannot be read, or is of another kind.
        EnvironmentMismatchError: The package ``cryptography``, or for OpenSSF ``model-signing``, is not installed.
        OutputError: The signature cannot be written.
    """
    artifact = read_artifact(path)
    key = _private_key(Path(private_key), password)
    if not _is_ed25519(key.public_key()):
        # a hash that was never compared would be vouched for
        return sign_model(check_artifact(artifact), Path(private_key), password)
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
    """Refuse an artifact that was not signed by one of ``trusted_keys``.

    Args:
        artifact: The artifact.
        trusted_keys: Public keys, or files with them: Ed25519 for the signature of the manifest, one of NIST's curves
            for that of OpenSSF's model signing. One that fits is enough.

    Returns:
        The fingerprint of the key that signed it.

    Raises:
        ArtifactError: There is no signature, it is by another key, or the manifest was changed since.
        ConfigurationError: A key cannot be read, or ``trusted_keys`` is empty.
        EnvironmentMismatchError: The package ``cryptography``, or for OpenSSF ``model-signing``, is not installed.
    """
    keys = {fingerprint(key): key for key in map(_public_key, trusted_keys)}
    if not keys:
        raise ConfigurationError("trusted_keys is empty: no signature could be accepted; name at least one public key")
    own = {name: key for name, key in keys.items() if _is_ed25519(key)}
    curves = [(name, _pem(key)) for name, key in keys.items() if name not in own]
    if not curves:
        return _check_own(artifact, own)
    if own:
        with contextlib.suppress(ArtifactError):  # what OpenSSF's signature lacks is what is said then
            return _check_own(artifact, own)
    return check_model_signature(artifact, curves)


def _check_own(artifact: Artifact, keys: Mapping[str, Any]) -> str:
    """Check the signature of the manifest."""
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
    serialization, *_ = _cryptography()
    if _is_ed25519(key):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    else:
        raw = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
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
    serialization, ed25519, ec = _cryptography()
    if isinstance(source, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)):
        return source
    if isinstance(source, str) and source.startswith("-----BEGIN"):
        source = source.encode()
    data = source if isinstance(source, bytes) else _read_key(Path(source))
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{_called(source)} is not a public key in PEM form: {error}") from error
    return _known(key, _called(source))


def _known(key: Any, name: str) -> Any:
    """``key``, if it is of a kind that signs here: Ed25519, or a curve that OpenSSF's model signing takes.

    Raises:
        ConfigurationError: It is of another kind.
    """
    _, ed25519, ec = _cryptography()
    curves = (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)
    known = isinstance(key, (ed25519.Ed25519PublicKey, ed25519.Ed25519PrivateKey))
    if not known and not (isinstance(key, curves) and key.curve.name in _CURVES):
        raise ConfigurationError(
            f"{name} is a key of another kind than Ed25519 or a curve of NIST's ({', '.join(_CURVES)}); make one with "
            "keygen"
        )
    return key


def _is_ed25519(key: Any) -> bool:
    _, ed25519, _ = _cryptography()
    return isinstance(key, ed25519.Ed25519PublicKey)


def _private_key(path: Path, password: str | None) -> Any:
    serialization, *_ = _cryptography()
    try:
        key = serialization.load_pem_private_key(_read_key(path), password.encode() if password else None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a private key that can be read: {error}") from error
    return _known(key, str(path))


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST)
    except OSError as error:
        raise ConfigurationError(f"the key {path} cannot be read: {error.strerror or error}") from error


def _called(source: PublicKeyLike) -> str:
    return "the key" if isinstance(source, bytes) else str(source)


def _pem(key: Any) -> bytes:
    serialization, *_ = _cryptography()
    data: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data


def _cryptography() -> tuple[Any, Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    except ImportError as error:
        raise EnvironmentMismatchError(
            "signatures need the package cryptography, which is not installed: "
            'pip install "lightning-trt-windows[sign]"'
        ) from error
    return serialization, ed25519, ec
