"""Signatures of OpenSSF's model signing, by its own library: what they cover, and that its own tool verifies them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.artifacts import put
from support.paths import DATA

from lightning_trt_windows import collect, load, sign, verify
from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.signing import check_signature, fingerprint, make_key
from lightning_trt_windows.bundle.reading import extract_bundle
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError

needs_library = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import model_signing"], capture_output=True, check=False).returncode != 0,
    reason="signs with OpenSSF's own library: pip install model-signing pyopenssl",
)


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    """A copy of the real sample, beside other files of a run."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    (tmp_path / "tiny.ckpt").write_bytes(b"a checkpoint")
    return read_artifact(tmp_path / "tiny.windows.ep")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key of P-256; the public one lies beside it."""
    make_key(tmp_path / "k.pem", kind="openssf")
    return tmp_path / "k.pem"


@needs_library
def test_a_signed_artifact_is_accepted(tiny: Artifact, key: Path) -> None:
    """By the public key in whichever form; the other files of the folder do not matter, then or later."""
    signature = sign(tiny.path, key)
    assert signature == tiny.paths.openssf == tiny.path.with_name("tiny.windows.sigstore.json")
    assert sorted(p.name for p in tiny.path.parent.iterdir() if p.name.startswith(".")) == []
    (tiny.path.parent / "later.txt").write_text("later", encoding="utf-8")
    public = key.with_name("k.pem.pub")
    loaded = serialization.load_pem_public_key(public.read_bytes())
    for trusted in (public, str(public), public.read_bytes(), public.read_text(encoding="utf-8"), loaded):
        assert check_signature(tiny, [trusted]) == fingerprint(loaded)
    found = verify(tiny.path, trusted_keys=[public], numbers=False)
    assert found.signed_by == fingerprint(loaded) and found.issues == ()


@needs_library
def test_what_it_covers(tiny: Artifact, key: Path) -> None:
    """The ``.ep`` and the manifest, each with its SHA-256; nothing of this machine stands in it."""
    payload = json.loads(
        base64.b64decode(json.loads(sign(tiny.path, key).read_text(encoding="utf-8"))["dsseEnvelope"]["payload"])
    )
    resources = {item["name"]: item["digest"] for item in payload["predicate"]["resources"]}
    assert set(resources) == {"tiny.windows.ep", "tiny.windows.json"}
    assert resources["tiny.windows.ep"] == tiny.manifest.ep.sha256
    assert payload["subject"][0]["name"] == "tiny.windows"
    assert tiny.path.parent.name not in json.dumps(payload)


@needs_library
def test_openssf_s_own_tool_agrees(tiny: Artifact, key: Path, tmp_path: Path) -> None:
    """It verifies what is signed here, and refuses it after a change; what it signs is accepted here."""
    tool = [sys.executable, "-m", "model_signing"]
    signature, folder = sign(tiny.path, key), str(tiny.path.parent)
    check = [*tool, "verify", "key", folder, "--signature", str(signature), "--public_key", f"{key}.pub"]
    done = subprocess.run([*check, "--ignore_unsigned_files"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "alone"
    alone.mkdir()
    for path in (tiny.path, tiny.manifest_path):
        shutil.copy(path, alone)
    theirs = alone / "tiny.windows.sigstore.json"
    make = [*tool, "sign", "key", str(alone), "--signature", str(theirs), "--private_key", str(key)]
    subprocess.run(make, capture_output=True, check=True)
    assert check_signature(read_artifact(alone / "tiny.windows.ep"), [f"{key}.pub"]).startswith("SHA256:")
    tiny.path.write_bytes(tiny.path.read_bytes()[:-1] + b"x")
    done = subprocess.run([*check, "--ignore_unsigned_files"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "tiny.windows.ep" in done.stderr + done.stdout


@needs_library
@pytest.mark.parametrize("what", ["ep", "manifest", "other key", "of another artifact", "of other files", "nonsense"])
def test_what_is_not_signed_is_refused(tiny: Artifact, key: Path, tmp_path: Path, what: str) -> None:
    """Each change, and each signature that is good and says nothing of these two files."""
    public = key.with_name("k.pem.pub")
    sign(tiny.path, key)
    check_signature(tiny, [public])
    if what == "ep":
        tiny.path.write_bytes(tiny.path.read_bytes()[:-1] + b"x")
    elif what == "manifest":
        text = tiny.manifest_path.read_text(encoding="utf-8")
        tiny.manifest_path.write_text(text.replace('"notes": []', '"notes": ["x"]'), encoding="utf-8")
        tiny = read_artifact(tiny.path)
    elif what == "other key":
        public = make_key(tmp_path / "other.pem", kind="openssf")
    elif what == "of another artifact":
        sign(put(tmp_path / "run", "tiny"), key)
        shutil.copy(tmp_path / "run" / "tiny.windows.sigstore.json", tiny.paths.openssf)
    elif what == "of other files":
        import model_signing

        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "tiny.windows.json").write_bytes(tiny.manifest_path.read_bytes())
        signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
        signer.sign(tmp_path / "folder", tiny.paths.openssf)  # of the manifest alone
    else:
        tiny.paths.openssf.write_text('{"verificationMaterial": 3}', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"sigstore\.json: is not a signature of this artifact by a key"):
        check_signature(tiny, [public])


@needs_library
def test_an_unsigned_artifact_is_refused_before_the_ep_is_opened(tiny: Artifact, key: Path) -> None:
    """The .ep is not even there; and what is too large to be a signature is not read."""
    tiny.path.unlink()
    with pytest.raises(ArtifactError, match="has no OpenSSF signature, and one is required"):
        load(tiny.manifest_path, trusted_keys=[f"{key}.pub"])
    tiny.paths.openssf.write_bytes(b"{" + b" " * (1 << 17) + b"}")
    with pytest.raises(ArtifactError, match="more than a signature has"):
        load(tiny.manifest_path, trusted_keys=[f"{key}.pub"])


@needs_library
def test_either_signature_is_enough(tiny: Artifact, key: Path, tmp_path: Path) -> None:
    """Where keys of both kinds are trusted; each checks its own file alone."""
    own = make_key(tmp_path / "own.pem")
    curve = key.with_name("k.pem.pub")
    sign(tiny.path, tmp_path / "own.pem")
    assert check_signature(tiny, [curve, own]) == check_signature(tiny, [own])
    with pytest.raises(ArtifactError, match="no OpenSSF signature"):
        check_signature(tiny, [curve])
    sign(tiny.path, key)
    tiny.paths.signature.unlink()
    assert check_signature(tiny, [curve, own]) == check_signature(tiny, [curve])


@needs_library
def test_the_commands(tiny: Artifact, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """keygen, sign, verify --key, with a password; the signature travels in a bundle, with what checks it."""
    monkeypatch.setenv("LIGHTNING_TRT_WINDOWS_KEY_PASSWORD", "secret")
    key = str(tmp_path / "p.pem")
    assert main(["keygen", key, "--kind", "openssf"]) == 0
    assert main(["sign", str(tiny.path), "--key", key]) == 0
    capsys.readouterr()
    assert main(["verify", str(tiny.path), "--key", f"{key}.pub", "--no-numbers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed_by"].startswith("SHA256:")
    extract_bundle(collect(tmp_path, tmp_path / "b.zip").path, tmp_path / "out")
    (bundled,) = (tmp_path / "out" / "artifacts").rglob("*.ep")
    assert main(["verify", str(bundled), "--key", f"{key}.pub", "--no-numbers"]) == 0
    lines = (tmp_path / "out" / "requirements-windows.txt").read_text(encoding="utf-8").splitlines()
    assert {"model-signing>=1.1,<2", "pyopenssl>=24"} <= set(lines)


@needs_library
def test_a_damaged_artifact_is_not_signed(tiny: Artifact, key: Path) -> None:
    """The signature would vouch for it."""
    tiny.path.write_bytes(tiny.path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="content"):
        sign(tiny.path, key)
    assert not tiny.paths.openssf.exists()


def test_other_curves_are_explained(tiny: Artifact, tmp_path: Path) -> None:
    """OpenSSF's model signing takes three."""
    private = ec.generate_private_key(ec.SECP256K1())
    path = tmp_path / "bitcoin.pem"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(ConfigurationError, match=r"a curve of NIST's \(secp256r1, secp384r1, secp521r1\)"):
        sign(tiny.path, path)
    with pytest.raises(ConfigurationError, match="kind must be 'ed25519' or 'openssf'"):
        make_key(tmp_path / "x.pem", kind="rsa")  # type: ignore[arg-type]


def test_without_the_package_it_is_said(tiny: Artifact, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which other signatures do without."""
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(EnvironmentMismatchError, match=r"pip install \"lightning-trt-windows\[model-signing\]\""):
        sign(tiny.path, key)
    with pytest.raises(EnvironmentMismatchError, match=r"\[model-signing\]"):
        check_signature(tiny, [f"{key}.pub"])
