"""``verify`` with the artifact's own engines on a GPU: right ones pass, and what is tampered with does not."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module, load, sign, verify, verify_metric
from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, read_artifact, write_manifest
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.signing import make_key
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, VerificationError
from lightning_trt_windows.verification.golden_file import Golden, read_goldens, write_goldens

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="runs engines, which needs an NVIDIA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="runs engines with tensorrt-rtx"),
    pytest.mark.filterwarnings("ignore:.*NVIDIA does not support it"),
]

BATCH = DimRange(1, 8, 32, name="batch")


class Reader(nn.Module):
    """Tokens and a mask, a part in PyTorch between two engines, a float and an integer output."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.mix = nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.mix(self.table(ids)).relu() * mask[..., None]
        values = torch.linalg.svdvals(x.mean(1).reshape(-1, 4, 8) + 0.1)
        logits = self.head(x.sum(1)) + values.sum(-1, keepdim=True)
        return {"logits": logits, "choice": logits.argmax(-1)}


LENGTH = DimRange(4, 16, 64, name="length", multiple_of=4)
INPUTS = {
    "ids": InputSpec((BATCH, LENGTH), "int64", values=(0, 49)),
    "mask": InputSpec((BATCH, LENGTH), "bool"),
}


@pytest.fixture(scope="module", params=[None, "16", "bf16"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Artifact]:
    """A module and its artifact with goldens, in each precision."""
    torch.manual_seed(0)
    module = Reader().eval()
    path = tmp_path_factory.mktemp("verify") / "m.windows.ep"
    return module, export_module(module, INPUTS, path, golden=True, precision=request.param)


@pytest.fixture
def copied(exported: tuple[nn.Module, Artifact], tmp_path: Path) -> Iterator[Artifact]:
    """A copy of the artifact that a test may break."""
    for path in exported[1].path.parent.iterdir():
        shutil.copy(path, tmp_path)
    yield read_artifact(tmp_path / exported[1].path.name)
    torch.cuda.empty_cache()


def test_right_engines_pass(exported: tuple[nn.Module, Artifact], capsys: pytest.CaptureFixture[str]) -> None:
    """At every recorded size, by function and by command; the figures are those of rounding and not zero."""
    found = verify(exported[1].path)
    print(found)
    assert found.passed and len(found.calls) == 4
    norms = [
        output.relative_norm for call in found.calls for output in call.outputs if output.relative_norm is not None
    ]
    assert norms and max(norms) > 0
    assert found.machine["gpu"] == torch.cuda.get_device_name()
    capsys.readouterr()
    assert main(["verify", str(exported[1].path), "--json", "--require-numbers"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "passed"


def test_against_the_module_itself(exported: tuple[nn.Module, Artifact]) -> None:
    """On the GPU, at the goldens' inputs and at one's own."""
    module, artifact = exported
    on_gpu = Reader().eval()
    on_gpu.load_state_dict(module.state_dict())
    on_gpu.cuda()
    assert verify(artifact.path, reference=on_gpu).passed
    ids, mask = torch.randint(0, 50, (3, 8)), torch.ones(3, 8, dtype=torch.bool)
    assert verify(artifact.path, inputs=[ids, mask], reference=module).passed
    wrong = Reader().eval()
    assert verify(artifact.path, inputs=[ids, mask], reference=wrong).verdict == "failed"


def test_goldens_of_another_module_fail(copied: Artifact) -> None:
    """The wrong verdict, with its exit code; the file is whole, so that only the numbers tell."""
    goldens = read_goldens(copied)
    assert goldens is not None
    sets = tuple(
        Golden(g.name, g.inputs, {k: v.flip(0) * 2 if v.is_floating_point() else v for k, v in g.outputs.items()})
        for g in goldens.sets
    )
    record = write_goldens(
        ArtifactPaths.of(copied.path).golden, copied.manifest.inputs, dataclasses.replace(goldens, sets=sets)
    )
    write_manifest(copied.manifest_path, dataclasses.replace(copied.manifest, golden=record))
    found = verify(copied.path)
    assert found.verdict == "failed" and isinstance(found.error(), VerificationError)
    assert main(["verify", str(copied.path)]) == 11


def test_a_changed_program_is_found_before_it_runs(copied: Artifact) -> None:
    """One bit of an engine."""
    engine = copied.manifest.engines[0]
    data = bytearray(copied.path.read_bytes())
    data[data.find(b"dnRydA") + engine.location.length // 2] ^= 1
    copied.path.write_bytes(data)
    found = verify(copied.path)
    assert found.verdict == "failed" and found.calls == () and main(["verify", str(copied.path)]) == 7


def test_an_engine_that_tensorrt_does_not_take_is_a_verdict(copied: Artifact) -> None:
    """The hashes were made to match: what TensorRT says is in the report."""
    data = bytearray(copied.path.read_bytes())
    start = data.find(b"dnRydA") + 4096
    data[start : start + 4096] = b"A" * 4096
    copied.path.write_bytes(data)
    ep = dataclasses.replace(copied.manifest.ep, sha256=sha256_of(copied.path))
    write_manifest(copied.manifest_path, dataclasses.replace(copied.manifest, ep=ep))
    found = verify(copied.path)
    assert found.verdict == "failed"
    print(found)


def test_a_signed_artifact_loads_and_an_unsigned_one_does_not(copied: Artifact, tmp_path: Path) -> None:
    """With the key that is trusted."""
    pytest.importorskip("cryptography")
    public = make_key(tmp_path / "key.pem")
    with pytest.raises(ArtifactError, match="a signature is required"):
        load(copied.path, trusted_keys=[public])
    sign(copied.path, tmp_path / "key.pem")
    module = load(copied.path, trusted_keys=[public])
    ids, mask = torch.zeros(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.bool)
    assert module(ids.cuda(), mask.cuda())["logits"].shape == (2, 10)


def test_verified_when_it_is_written(tmp_path: Path) -> None:
    """The verdict stands in the manifest, with the GPU that it is from."""
    torch.manual_seed(0)
    artifact = export_module(Reader().eval(), INPUTS, tmp_path / "m.windows.ep", verify=True)
    written = artifact.manifest.verification
    assert written is not None and written["verdict"] == "passed" and written["gpu"] == torch.cuda.get_device_name()
    assert [call["name"] for call in written["calls"]] == ["opt", "min", "between", "max"]


def test_a_metric_of_the_engine_and_of_the_module(exported: tuple[nn.Module, Artifact]) -> None:
    """On batches that are moved to the GPU."""
    module, artifact = exported
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randint(0, 50, (16, 8), generator=generator), torch.ones(16, 8, dtype=torch.bool))] * 3

    def spread(model: object, data: object) -> float:
        assert callable(model) and isinstance(data, Iterator)
        return float(sum(model(*batch)["logits"].double().std() for batch in data))

    outcome = verify_metric(artifact.path, module, batches, spread, max_drop=0.1)
    assert outcome.passed and outcome.module > 0 and next(module.parameters()).device.type == "cpu"
