"""Goldens: what the captured program gives on the CPU, before anything is lowered, beside the artifact."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer
from support.stand_in import export_for_test
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, WindowsExport, export_module
from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, read_artifact
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.golden_files import golden_issues
from lightning_trt_windows.capture import goldens as recording
from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.verification.golden_file import Goldens, golden_shapes, read_goldens

BATCH = DimRange(1, 4, 16, name="batch")


class Reader(nn.Module):
    """Token ids, and a mask that must leave something over."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        weights = mask[..., None] / mask.sum(1)[:, None, None]
        y = self.head((self.table(ids) * weights).sum(1))
        return {"logits": y, "choice": y.argmax(-1)}


READER = {
    "ids": InputSpec((BATCH, DimRange(2, 6, 12, name="length", multiple_of=2)), "int64", values=(3, 10)),
    "mask": InputSpec((BATCH, DimRange(2, 6, 12, name="length", multiple_of=2)), "bool"),
}


def recorded(artifact: Artifact) -> Goldens:
    """The goldens, which must be there."""
    goldens = read_goldens(artifact)
    assert goldens is not None, artifact.manifest.notes
    return goldens


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Artifact]:
    """A module and its artifact with goldens."""
    torch.manual_seed(0)
    module = Reader().eval()
    return module, export_module(module, READER, tmp_path_factory.mktemp("g") / "m.windows.ep", golden=True)


def test_they_are_what_the_module_gives_at_several_sizes(reader: tuple[nn.Module, Artifact]) -> None:
    """At the usual, the smallest and the largest sizes and between them, in steps where there are steps."""
    module, artifact = reader
    goldens = recorded(artifact)
    assert [golden.name for golden in goldens.sets] == ["opt", "min", "between", "max"]
    assert [tuple(golden.inputs[0].shape) for golden in goldens.sets] == [(4, 6), (1, 2), (10, 8), (16, 12)]
    for golden in goldens.sets:
        with torch.no_grad():
            wanted = module(*golden.inputs)
        assert set(golden.outputs) == {"output.logits", "output.choice"}
        torch.testing.assert_close(golden.outputs["output.logits"], wanted["logits"])
        assert golden.outputs["output.choice"].equal(wanted["choice"])
        assert golden.outputs["output.logits"].isfinite().all()


def test_indices_are_among_the_values_seen(reader: tuple[nn.Module, Artifact]) -> None:
    """Others would be outside of the vocabulary."""
    for golden in recorded(reader[1]).sets:
        assert int(golden.inputs[0].min()) >= 3 and int(golden.inputs[0].max()) <= 10


def test_the_manifest_has_their_hash(reader: tuple[nn.Module, Artifact]) -> None:
    """So that changed goldens are found before they are parsed, and by no name from the manifest."""
    artifact = reader[1]
    paths = ArtifactPaths.of(artifact.path)
    record = artifact.manifest.golden
    assert record is not None
    assert (record.file, record.sha256) == (paths.golden.name, sha256_of(paths.golden))
    assert list(golden_issues(artifact)) == []
    before = paths.golden.read_bytes()
    try:
        paths.golden.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(ArtifactError, match=r"the content of m\.windows\.golden\.safetensors is not that of the"):
            read_goldens(artifact)
        paths.golden.write_bytes(before[:-1])
        with pytest.raises(ArtifactError, match="bytes instead of"):
            read_goldens(artifact)
        paths.golden.unlink()
        with pytest.raises(ArtifactError, match="does not exist; copy it together with the artifact"):
            read_goldens(artifact)
    finally:
        paths.golden.write_bytes(before)
    elsewhere = dataclasses.replace(
        artifact, manifest=dataclasses.replace(artifact.manifest, golden=dataclasses.replace(record, file="other.json"))
    )
    with pytest.raises(ArtifactError, match=r"describes other\.json, and of this artifact it is called"):
        read_goldens(elsewhere)


def test_the_same_export_gives_the_same_goldens(reader: tuple[nn.Module, Artifact], tmp_path: Path) -> None:
    """Byte for byte, whatever the random state."""
    module, artifact = reader
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = export_module(module, READER, tmp_path / "m.windows.ep", golden=True)
    assert again.manifest.golden == artifact.manifest.golden
    assert torch.get_rng_state().equal(before)


def test_without_being_asked_none_are_recorded_and_old_ones_go(
    reader: tuple[nn.Module, Artifact], tmp_path: Path
) -> None:
    """Goldens of another export would be taken for those of this one."""
    module, _ = reader
    first = export_module(module, READER, tmp_path / "m.windows.ep", golden=True)
    assert ArtifactPaths.of(first.path).golden.exists()
    second = export_module(module, READER, tmp_path / "m.windows.ep")
    assert second.manifest.golden is None
    assert not ArtifactPaths.of(second.path).golden.exists()
    assert read_goldens(second) is None


def test_the_precision_is_the_engine_s_and_not_the_golden_s(tmp_path: Path) -> None:
    """A float16 engine is held against float32."""
    torch.manual_seed(0)
    module = nn.Linear(8, 4).eval()
    stand_in = export_for_test(
        module, {"input": InputSpec((BATCH, 8))}, tmp_path / "m.windows.ep", precision="16", golden=True
    )
    golden = recorded(stand_in.artifact).sets[0]
    with torch.no_grad():
        torch.testing.assert_close(golden.outputs["output"], module(*golden.inputs))
        found = stand_in.load()(*golden.inputs)
    error = float((found - golden.outputs["output"]).norm() / golden.outputs["output"].norm())
    assert 1e-6 < error < 1e-2, "half precision shows"
    assert error / 10 < golden.rounding["output"] < error * 10, "and it was foreseen"


def test_matrix_products_in_full_float32_whatever_the_training_chose(tmp_path: Path) -> None:
    """``medium`` lets CPUs multiply in bfloat16, and Lightning advises to set it."""
    torch.manual_seed(0)
    module, before = nn.Linear(64, 64).eval(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        artifact = export_module(module, {"input": InputSpec((4, 64))}, tmp_path / "m.windows.ep", golden=True)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    (golden,) = recorded(artifact).sets
    with torch.no_grad():
        torch.testing.assert_close(golden.outputs["output"], module(*golden.inputs), rtol=1e-5, atol=1e-6)


class Sampler(nn.Module):
    """As a variational autoencoder does."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Pointers(nn.Module):
    """Reads where another input says; the largest position is beyond the smallest input."""

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        return torch.gather(x * 2, 1, last[:, None])


def test_random_outputs_are_no_goldens(tmp_path: Path) -> None:
    """The next run would give others."""
    artifact = export_module(Sampler(), {"x": InputSpec((BATCH, 8))}, tmp_path / "m.windows.ep", golden=True)
    assert artifact.manifest.golden is None
    assert any("no goldens: the module draws random numbers" in note for note in artifact.manifest.notes)


def test_positions_fit_the_smallest_input(tmp_path: Path) -> None:
    """Where the values seen do not fit the sizes, the lowest ones do."""
    inputs = {
        "x": InputSpec((BATCH, DimRange(2, 4, 8, name="length"))),
        "last": InputSpec((BATCH,), "int64", values=(0, 7)),
    }
    goldens = recorded(export_module(Pointers(), inputs, tmp_path / "m.windows.ep", golden=True))
    smallest = next(golden for golden in goldens.sets if golden.name == "min")
    assert int(smallest.inputs[1].max()) < 2
    largest = next(golden for golden in goldens.sets if golden.name == "max")
    assert int(largest.inputs[1].max()) > 1


class TwoTables(nn.Module):
    """Rows of a table, and positions that must lie inside the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)

    def forward(self, ids: Tensor, last: Tensor) -> Tensor:
        return torch.gather(self.table(ids).sum(-1), 1, last[:, None])


class Loss(nn.Module):
    """The logarithm of what is negative somewhere, or everywhere."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"some": torch.log(x), "none": torch.log(-x.abs() - 1.0), "fine": x + 1.0}


def test_only_what_does_not_fit_is_the_lowest(tmp_path: Path) -> None:
    """The ids keep their values where the positions do not fit the size, and the manifest says which are all alike."""
    length = DimRange(2, 4, 8, name="length")
    inputs = {
        "ids": InputSpec((BATCH, length), "int64", values=(0, 10)),
        "last": InputSpec((BATCH,), "int64", values=(0, 7)),
    }
    artifact = export_module(TwoTables().eval(), inputs, tmp_path / "m.windows.ep", golden=True)
    smallest = next(golden for golden in recorded(artifact).sets if golden.name == "min")
    assert len(smallest.inputs[0].unique()) > 1
    assert smallest.inputs[1].unique().tolist() == [0]
    said = [note for note in artifact.manifest.notes if "at the sizes min" in note]
    assert said and all("lowest whole number everywhere in last:" in note for note in said)


def test_goldens_that_check_nothing_are_noted(tmp_path: Path) -> None:
    """NaN is no number to compare with."""
    spec = {"x": InputSpec((2, 8))}
    artifact = export_module(Loss(), spec, tmp_path / "m.windows.ep", golden=True)
    notes = " ".join(artifact.manifest.notes)
    assert "goldens at the sizes opt check nothing of output.none: it is NaN or infinite" in notes
    assert "of 16 values of output.some, which are NaN or infinite in the module as well" in notes
    assert "output.fine" not in notes
    assert artifact.manifest.check is not None
    assert any("are NaN or infinite in the module as well" in said for said in artifact.manifest.check.not_checked)


def test_what_is_too_large_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest size of a large model would fill the disk."""
    monkeypatch.setattr(recording, "_LARGEST", 4096)
    inputs = {"input": InputSpec((DimRange(1, 8, 1024), 8))}
    artifact = export_module(nn.Linear(8, 4).eval(), inputs, tmp_path / "m.windows.ep", golden=True)
    assert [golden.name for golden in recorded(artifact).sets] == ["opt", "min"]
    assert "no goldens at the sizes max: goldens have at most 0 MiB" in artifact.manifest.notes


def test_what_takes_too_long_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the smaller sizes let expect."""
    monkeypatch.setattr(recording, "_LONGEST", 0.0)
    inputs = {"input": InputSpec((DimRange(1, 8, 1024), 8))}
    artifact = export_module(nn.Linear(8, 4).eval(), inputs, tmp_path / "m.windows.ep", golden=True)
    assert [golden.name for golden in recorded(artifact).sets] == ["min"]
    assert any("sizes max: they would take about" in note for note in artifact.manifest.notes)


def test_a_link_in_their_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What it points to is somebody else's; without goldens, only the link goes."""
    victim = tmp_path / "victim.txt"
    victim.write_text("untouched")
    link = tmp_path / "m.windows.golden.safetensors"
    for golden in (True, False):
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(victim)
        except OSError:
            pytest.skip("this file system or user has no symbolic links")
        artifact = export_module(
            nn.Linear(8, 4).eval(), {"input": InputSpec((2, 8))}, tmp_path / "m.windows.ep", golden=golden
        )
        assert victim.read_text() == "untouched" and not link.is_symlink() and link.exists() is golden
        assert (read_goldens(artifact) is not None) is golden


def test_sizes_that_are_the_same_are_recorded_once(reader: tuple[nn.Module, Artifact]) -> None:
    """A model without dynamic dimensions has one call."""
    (x, _) = reader[1].manifest.inputs
    fixed = dataclasses.replace(x, min=(4, 6), max=(4, 6), symbols=(None, None))
    assert list(golden_shapes([fixed])) == ["opt"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 64, (1 << 62).to_bytes(8, "little") + b"{}", b"\x02\0\0\0\0\0\0\0{}"],
    ids=["empty", "zeros", "long", "bare"],
)
def test_other_files_are_no_goldens(reader: tuple[nn.Module, Artifact], tmp_path: Path, content: bytes) -> None:
    """Named by the user, so without a hash: an error of ours, whatever it is."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"are not goldens of m\.windows\.ep"):
        read_goldens(reader[1], path)


def test_a_twin_of_the_checkpoint_has_them_too(tmp_path: Path) -> None:
    """``last.ckpt`` has the weights of the best one: its artifact is a second name of the first, goldens included."""
    keep = ModelCheckpoint(tmp_path, save_last=True)
    callback = WindowsExport(when="checkpoint", executor="inline", golden=True)
    trainer(tmp_path, callback, keep, max_epochs=1).fit(Regression(), Data())
    assert not callback.failures
    assert len(callback.artifacts) == 2
    for artifact in callback.artifacts:
        assert len(recorded(read_artifact(artifact.path)).sets) > 1
        written = json.loads(artifact.manifest_path.read_text(encoding="utf-8"))
        assert written["golden"]["file"] == f"{artifact.path.stem}.golden.safetensors"
