"""Signatures: who made an artifact. Real keys, real files; one of them changed at a time."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from support.paths import DATA

from lightning_trt_windows import load, sign, verify
from lightning_trt_windows.artifact.artifact import Artifact, read_artifact, write_manifest
from lightning_trt_windows.artifact.signing import check_signature, fingerprint, make_key
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    """A copy of the real sample that a test may break."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    return read_artifact(tmp_path / "tiny.windows.ep")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key; the public one lies beside it."""
    make_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


@pytest.fixture
def public(key: Path) -> Path:
    """The public key."""
    return key.with_name("key.pem.pub")


def test_a_signed_artifact_is_accepted(tiny: Artifact, key: Path, public: Path) -> None:
    """By the public key in whichever form, and by the file's two names."""
    signature = sign(tiny.path, key)
    assert signature == tiny.paths.signature == tiny.path.with_name("tiny.windows.json.sig")
    loaded = serialization.load_pem_public_key(public.read_bytes())
    for trusted in (public, str(public), public.read_bytes(), public.read_text(), loaded):
        assert check_signature(tiny, [trusted]) == fingerprint(loaded)
    assert sign(tiny.manifest_path, key) == signature
    assert verify(tiny.path, trusted_keys=[public]).signed_by == fingerprint(loaded)


def test_an_unsigned_artifact_is_refused_before_the_ep_is_opened(tiny: Artifact, public: Path) -> None:
    """The .ep is not even there."""
    tiny.path.unlink()
    with pytest.raises(ArtifactError, match="does not exist: the artifact is not signed, and a signature is required"):
        load(tiny.path, trusted_keys=[public])


def test_another_key_is_refused(tiny: Artifact, key: Path, tmp_path: Path) -> None:
    """With both fingerprints, for people to compare."""
    sign(tiny.path, key)
    other = make_key(tmp_path / "other.pem")
    with pytest.raises(
        ArtifactError, match=r"is by the key SHA256:[0-9a-f]{32}, which is not among those trusted here"
    ):
        load(tiny.path, trusted_keys=[other])
    (issue,) = verify(tiny.path, trusted_keys=[other]).integrity
    assert "not among those trusted" in issue


def test_one_of_several_keys_is_enough(tiny: Artifact, key: Path, public: Path, tmp_path: Path) -> None:
    """A key is replaced by trusting the old and the new one for a while."""
    sign(tiny.path, key)
    other = make_key(tmp_path / "other.pem")
    check_signature(tiny, [other, public])


def test_a_changed_manifest_is_refused(tiny: Artifact, key: Path, public: Path) -> None:
    """By one space, by other hashes; a new signature makes it right."""
    sign(tiny.path, key)
    before = tiny.manifest_path.read_bytes()
    tiny.manifest_path.write_bytes(before + b" ")
    with pytest.raises(ArtifactError, match="does not fit the manifest, which was changed after it was signed"):
        check_signature(read_artifact(tiny.path), [public])
    evil = dataclasses.replace(tiny.manifest, ep=dataclasses.replace(tiny.manifest.ep, sha256="0" * 64))
    write_manifest(tiny.manifest_path, evil)
    with pytest.raises(ArtifactError, match="does not fit the manifest"):
        load(tiny.path, trusted_keys=[public])
    sign(tiny.path, key)
    check_signature(read_artifact(tiny.path), [public])


def test_a_changed_program_is_refused_by_its_hash(tiny: Artifact, key: Path, public: Path) -> None:
    """Which stands in the manifest, which is signed."""
    sign(tiny.path, key)
    data = bytearray(tiny.path.read_bytes())
    data[100_000] ^= 1
    tiny.path.write_bytes(data)
    with pytest.raises(ArtifactError, match="its content is not that of the export"):
        load(tiny.path, trusted_keys=[public])


def test_a_signature_of_something_else_is_none(tiny: Artifact, key: Path, public: Path) -> None:
    """A key that signs other files as well: the bytes signed are not the bare manifest."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ed25519.Ed25519PrivateKey)
    bare = base64.b64encode(private.sign(tiny.manifest_path.read_bytes())).decode()
    document = {"algorithm": "Ed25519", "key": fingerprint(private.public_key()), "signature": bare}
    tiny.paths.signature.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="does not fit the manifest"):
        check_signature(tiny, [public])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"algorithm": "none", "key": "", "signature": ""}',
        '{"algorithm": "Ed25519", "key": 1, "signature": 1}',
        '{"algorithm": "Ed25519", "key": "", "signature": "!!!"}',
        '{"algorithm": "Ed25519", "key": "", "signature": "AAAA"}',
        "[" * 30_000,
        "\0" * 100_000,
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_what_is_no_signature_is_refused(tiny: Artifact, public: Path, text: str) -> None:
    """By an error of ours, whatever it is."""
    tiny.paths.signature.write_text(text)
    with pytest.raises(ArtifactError, match=r"json\.sig"):
        check_signature(tiny, [public])


def test_an_empty_list_of_keys_accepts_nothing(tiny: Artifact) -> None:
    """It is a mistake of the caller's."""
    for refuse in (lambda: check_signature(tiny, []), lambda: load(tiny.path, trusted_keys=[])):
        with pytest.raises(ConfigurationError, match="trusted_keys is empty"):
            refuse()
    with pytest.raises(ConfigurationError, match="trusted_keys is empty"):
        verify(tiny.path, trusted_keys=[])


def other_keys() -> dict[str, bytes]:
    """Files that are no Ed25519 public key."""
    encoding, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return {"rsa": rsa.generate_private_key(65537, 2048).public_key().public_bytes(encoding, public), "text": b"hello"}


@pytest.mark.parametrize("kind", ["rsa", "text"])
def test_other_keys_are_explained(tiny: Artifact, tmp_path: Path, kind: str) -> None:
    """Before anything is compared."""
    path = tmp_path / "other.pub"
    path.write_bytes(other_keys()[kind])
    with pytest.raises(ConfigurationError, match=r"other\.pub is (a key of another kind|not a public key)"):
        check_signature(tiny, [path])
    with pytest.raises(ConfigurationError, match=r"cannot be read: No such file"):
        check_signature(tiny, [tmp_path / "none.pub"])
    with pytest.raises(ConfigurationError, match="not a private key"):
        sign(tiny.path, path)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files are POSIX's")
def test_a_private_key_is_its_owner_s(key: Path) -> None:
    """And is never written over."""
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(
        ConfigurationError, match=r"key\.pem and .*key\.pem\.pub are there already; a key is not overwritten"
    ):
        make_key(key)
    assert key.read_bytes() == before


def test_a_key_may_have_a_password(tiny: Artifact, tmp_path: Path) -> None:
    """Which is not taken from the command line, where others see it."""
    public = make_key(tmp_path / "k.pem", password="secret")
    with pytest.raises(ConfigurationError, match="not a private key that can be read"):
        sign(tiny.path, tmp_path / "k.pem")
    with pytest.raises(ConfigurationError):
        sign(tiny.path, tmp_path / "k.pem", password="wrong")
    sign(tiny.path, tmp_path / "k.pem", password="secret")
    check_signature(tiny, [public])


def test_the_commands(tiny: Artifact, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """keygen, sign, verify --key; with a password from the environment."""
    monkeypatch.setenv("LIGHTNING_TRT_WINDOWS_KEY_PASSWORD", "secret")
    key = str(tmp_path / "k.pem")
    assert main(["keygen", key]) == 0
    assert "keep it secret" in capsys.readouterr().out
    assert main(["verify", str(tiny.path), "--key", f"{key}.pub", "--no-numbers"]) == 7
    assert "the artifact is not signed" in capsys.readouterr().out
    assert main(["sign", str(tiny.path), "--key", key]) == 0
    assert main(["verify", str(tiny.path), "--key", f"{key}.pub", "--no-numbers", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["signed_by"].startswith("SHA256:")
    assert main(["sign", str(tiny.path), "--key", key, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signature"].endswith("tiny.windows.json.sig")
    monkeypatch.delenv("LIGHTNING_TRT_WINDOWS_KEY_PASSWORD")
    assert main(["sign", str(tiny.path), "--key", key]) == 2


def test_without_the_package_it_is_said(tiny: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures are optional, and so is what they need."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(EnvironmentMismatchError, match=r"pip install \"lightning-trt-windows\[sign\]\""):
        check_signature(tiny, [b"-----BEGIN PUBLIC KEY-----"])
