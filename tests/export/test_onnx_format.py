"""``formats=("ep", "onnx")``: a model for ONNX Runtime beside the artifact, which is treated as the rest of it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.jobs import checkpoint, job
from support.lightning_models import Data, Regression, trainer
from support.outlines import Several

from lightning_trt_windows import DimRange, InputSpec, WindowsExport, export_module, inspect, verify
from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, read_artifact
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.onnx_files import why_no_onnx
from lightning_trt_windows.backends import options
from lightning_trt_windows.builds.queue import remove_artifact
from lightning_trt_windows.bundle.collecting import collect
from lightning_trt_windows.bundle.reading import inspect_bundle
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError, OutputError
from lightning_trt_windows.export import pipeline
from lightning_trt_windows.export.job import SavedProgram
from lightning_trt_windows.export.pipeline import build
from lightning_trt_windows.loggers.record import LoggedArtifact
from lightning_trt_windows.runtime.pc_report import examine_pc
from lightning_trt_windows.settings import ExportSettings
from lightning_trt_windows.storage.remote_artifact import RemoteArtifact


class Doubled(torch.nn.Module):
    """Two engines and float64 between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second((self.first(x).double() * 1.5).floor().float())


BOTH = ExportSettings(formats=("ep", "onnx"))
ALL = {"a.windows.ep", "a.windows.json", "a.windows.onnx", "a.windows.engine"}


def names(directory: Path) -> set[str]:
    """The files of artifacts in ``directory``."""
    return {path.name for path in directory.iterdir() if ".windows." in path.name}


def check_model(artifact: Artifact) -> None:
    """Its model is listed, its files have the hashes, and it names the engine beside it."""
    model, engine = artifact.manifest.onnx
    paths = artifact.paths.onnx_files(1)
    assert [record.file for record in (model, engine)] == [path.name for path in paths]
    assert [record.sha256 for record in (model, engine)] == [sha256_of(path) for path in paths]
    assert [record.size for record in (model, engine)] == [path.stat().st_size for path in paths]
    assert engine.sha256 == artifact.manifest.engines[0].sha256
    (context,) = (node for node in onnx.load(paths[0]).graph.node if node.op_type == "EPContext")
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in context.attribute}
    assert attributes["ep_cache_context"] == engine.file.encode()


class TestWhatIsWritten:
    """Files, manifest, notes."""

    def test_a_model_beside_the_artifact(self, tmp_path: Path) -> None:
        """It is in the manifest, in its text, and in what ``inspect`` says."""
        artifact = build(job(tmp_path, Regression(), BOTH))
        assert names(tmp_path) == ALL
        check_model(artifact)
        assert read_artifact(artifact.path).manifest == artifact.manifest
        assert artifact.manifest.format_version == "1.3"
        assert "a.windows.onnx" in str(inspect(artifact.path))
        assert why_no_onnx(artifact) == ""

    def test_by_default_there_is_none(self, tmp_path: Path) -> None:
        """And one that an earlier export left is of other weights, and goes."""
        build(job(tmp_path, Regression(), BOTH))
        artifact = build(job(tmp_path, Regression()))
        assert artifact.manifest.onnx == ()
        assert not artifact.paths.onnx.exists()

    def test_operators_in_pytorch(self, tmp_path: Path) -> None:
        """The artifact is complete without a model; a warning and a note name the operators."""
        with pytest.warns(
            UserWarning, match=r"m\.windows\.ep is complete\. .*aten\.special_airy_ai\.default .*runs in"
        ):
            artifact = export_module(
                Several(), Several.inputs(), tmp_path / "m.windows.ep", formats=("ep", "onnx"), check=False
            )
        assert artifact.manifest.onnx == ()
        assert "aten.special_airy_ai.default" in why_no_onnx(read_artifact(artifact.path))
        assert names(tmp_path) == {"m.windows.ep", "m.windows.json"}

    def test_operators_that_onnx_has(self, tmp_path: Path) -> None:
        """Two engines and an operator between: three files, listed in the manifest, which nothing is amiss with."""
        inputs = {"x": InputSpec((DimRange(1, 4, 8), 4))}
        artifact = export_module(Doubled().eval(), inputs, tmp_path / "a.windows.ep", formats=("ep", "onnx"))
        assert [record.file for record in artifact.manifest.onnx] == [
            "a.windows.onnx",
            "a.windows.engine_0.engine",
            "a.windows.engine_1.engine",
        ]
        assert "Floor" in {node.op_type for node in onnx.load(artifact.paths.onnx).graph.node}
        assert inspect(artifact.path, check=True).issues == () and why_no_onnx(artifact) == ""

    def test_training_is_left_alone(self, tmp_path: Path) -> None:
        """PyTorch's exporter traces once more: random numbers stay what they were."""
        module = Doubled().eval()
        before = torch.random.get_rng_state()
        export_module(
            module,
            {"x": InputSpec((DimRange(1, 4, 8), 4))},
            tmp_path / "a.windows.ep",
            formats=("ep", "onnx"),
        )
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_nothing_is_left_of_an_earlier_model(self, tmp_path: Path) -> None:
        """Its engines neither: one of other weights, or of more engines, must not pass for this one's."""
        old = {"a.windows.onnx", "a.windows.engine", "a.windows.engine_0.engine", "a.windows.engine_11.engine"}
        others = {"a.windows.engine_x.engine", "ab.windows.engine", "a.windows._run_on_acc_0.engine"}
        for name in old | others:
            (tmp_path / name).write_bytes(b"old")
        build(job(tmp_path, Regression()))
        assert names(tmp_path) == others | {"a.windows.ep", "a.windows.json"}

    def test_nothing_is_left_of_a_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The manifest comes last: when it cannot be written there is no artifact, and no model."""

        def refused(path: Path, manifest: object) -> None:
            assert names(tmp_path) == ALL - {"a.windows.json"}
            raise OutputError("the disk is full")

        monkeypatch.setattr(pipeline, "write_manifest", refused)
        with pytest.raises(OutputError, match="the disk is full"):
            build(job(tmp_path, Regression(), BOTH))
        assert names(tmp_path) == set()


class TestSettings:
    """What cannot be asked for."""

    @pytest.mark.parametrize("formats", ["ep", ("onnx",), (), ("ep", "trt")])
    def test_unknown(self, formats: object) -> None:
        """``ep`` is always written."""
        with pytest.raises(ConfigurationError, match=r"formats must be \['ep'\] or \['ep', 'onnx'\]"):
            ExportSettings(formats=formats)  # type: ignore[arg-type]  # that is the point

    def test_a_list_in_any_order(self) -> None:
        """As YAML has it; the same request is the same settings."""
        assert ExportSettings(formats=["onnx", "ep"]) == BOTH  # type: ignore[arg-type]  # a list, as from YAML

    def test_without_onnx(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The extra that brings it is named, before anything is compiled."""
        for missing, named in (((), "needs onnx and onnxscript"), (("onnx",), "needs onnxscript")):
            monkeypatch.setattr(
                options, "installed_version", lambda name, there=missing: "1.0" if name in there else None
            )
            with pytest.raises(EnvironmentMismatchError, match=rf"{named}.*lightning-trt-windows\[onnx\]"):
                build(job(tmp_path, Regression(), BOTH))
        assert names(tmp_path) <= {"a.windows.log"}

    def test_another_backend(self) -> None:
        """ONNX Runtime's provider for classic TensorRT takes no engines of this kind."""
        with pytest.raises(ConfigurationError, match="the backend is tensorrt"):
            options.check_formats(BOTH, "tensorrt")
        options.check_formats(ExportSettings(), "tensorrt")


class TestLikeTheRest:
    """Whatever happens to an artifact happens to its model."""

    def test_pruned(self, tmp_path: Path) -> None:
        """With the checkpoint's artifact."""
        build(job(tmp_path, Regression(), BOTH))
        assert remove_artifact(tmp_path / "a.ckpt")
        assert names(tmp_path) == set()

    def test_left_as_it_is_or_built_again(self, tmp_path: Path) -> None:
        """An artifact whose model is gone is not the one that was asked for."""
        asked = replace(job(tmp_path, Regression(), BOTH), skip_existing=True)
        artifact = build(asked)
        written = artifact.path.stat().st_mtime_ns
        assert build(asked) == artifact
        assert artifact.path.stat().st_mtime_ns == written
        artifact.paths.onnx.unlink()
        check_model(build(asked))

    def test_twins(self, tmp_path: Path) -> None:
        """A checkpoint of the same weights has a model of its own name."""
        asked = replace(job(tmp_path, Regression(), BOTH), skip_existing=True)
        first = build(asked)
        last = tmp_path / "last.ckpt"
        torch.save({**torch.load(tmp_path / "a.ckpt"), "callbacks": 1}, last)
        program = SavedProgram(tmp_path / "program.pt2", last)
        second = build(replace(asked, paths=ArtifactPaths.beside(last), program=program, twins=(tmp_path / "a.ckpt",)))
        assert second.path.samefile(first.path)
        check_model(second)
        assert second.manifest.onnx[1].file == "last.windows.engine"

    def test_uploaded_fetched_and_removed(self, tmp_path: Path) -> None:
        """To and from another file system."""
        artifact = build(job(tmp_path, Regression(), BOTH))
        remote = RemoteArtifact.of("memory://onnx/a.windows.ep")
        remote.upload(artifact)
        (tmp_path / "copy").mkdir()
        check_model(remote.fetch(tmp_path / "copy"))
        assert names(tmp_path / "copy") == ALL
        assert remote.remove("a.ckpt")
        assert [remote.directory.child(name).size() for name in ALL] == [None] * 4

    def test_collected(self, tmp_path: Path) -> None:
        """Listed with the manifest's hashes, and compared with them."""
        (tmp_path / "run").mkdir()
        artifact = build(job(tmp_path / "run", Regression(), BOTH))
        bundle = collect(tmp_path / "run", tmp_path / "b.zip")
        with zipfile.ZipFile(bundle.path) as archive:
            assert {f"artifacts/{name}" for name in ALL} <= set(archive.namelist())
        assert inspect_bundle(bundle.path, check=True).issues == ()
        artifact.paths.onnx.write_bytes(b"another")
        with pytest.raises(ArtifactError, match=r"ONNX model: a\.windows\.onnx has 7 bytes instead of"):
            collect(tmp_path / "run", tmp_path / "c.zip")

    def test_checked(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """``verify`` and ``inspect --check`` compare it; what loads the artifact does not need it."""
        artifact = build(job(tmp_path, Regression(), BOTH))
        assert verify(artifact.path, numbers=False).integrity == ()
        engine = artifact.paths.onnx_files(1)[1]
        engine.write_bytes(engine.read_bytes()[:-1] + b"?")
        expected = "ONNX model: the content of a.windows.engine is not that of the export"
        assert verify(artifact.path, numbers=False).integrity == (expected,)
        assert main(["inspect", str(artifact.path), "--check"]) == ArtifactError.exit_code
        assert expected in " ".join(capsys.readouterr().out.split())
        assert inspect(artifact.path).issues == ()
        engine.unlink()
        assert "does not exist; copy it together" in verify(artifact.path, numbers=False).integrity[0]
        assert not [f for f in examine_pc(artifact.path) if "ONNX" in str(f)]

    def test_loggers(self, tmp_path: Path) -> None:
        """They are given the files."""
        artifact = build(job(tmp_path, Regression(), BOTH))
        record = LoggedArtifact(artifact, step=5)
        assert {path.name for path in record.files} == ALL


class TestTraining:
    """The callback and the command."""

    def test_every_checkpoint(self, tmp_path: Path) -> None:
        """Models come and go with their checkpoints."""
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", monitor="val_loss", save_top_k=1)
        export = WindowsExport(when="checkpoint", executor="inline", formats=("ep", "onnx"), on_error="raise")
        trainer(tmp_path, saver, export, max_epochs=3).fit(Regression(), datamodule=Data())
        (artifact,) = export.artifacts
        check_model(artifact)
        stem = artifact.path.name.removesuffix(".ep")
        assert names(tmp_path) == {f"{stem}.{ending}" for ending in ("ep", "json", "onnx", "engine")}

    def test_a_warning(self, tmp_path: Path) -> None:
        """Where the module has an operator that engines lack; training and artifact are complete."""

        class Strange(Regression):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = super().forward(x)
                return y + torch.special.airy_ai(y.detach())

        export = WindowsExport(executor="inline", formats=("ep", "onnx"), check=False)
        saver = ModelCheckpoint(tmp_path, filename="a")
        with pytest.warns(UserWarning, match=r"a\.windows\.ep is complete\. There is no ONNX model beside it: .*airy"):
            trainer(tmp_path, saver, export, max_epochs=1).fit(Strange(), datamodule=Data())
        assert export.failures == []
        assert [artifact.manifest.onnx for artifact in export.artifacts] == [()]

    def test_the_command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """``--formats ep,onnx``."""
        checkpoint(tmp_path / "a.ckpt", Regression(), **{"pytorch-lightning_version": "2.5.0"})
        asked = ["export", str(tmp_path / "a.ckpt"), "--module", "support.lightning_models:Regression"]
        asked += ["--datamodule", "support.lightning_models:Data", "--quiet", "--json"]
        assert main([*asked, "--formats", "ep,onnx", "--executor", "inline"]) == 0
        assert json.loads(capsys.readouterr().out)
        check_model(read_artifact(tmp_path / "a.windows.ep"))
        assert main([*asked, "--formats", "onnx"]) == ConfigurationError.exit_code
