"""A checkpoint carries the shapes of its training: it is exported without data, and a resumed training counts on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows import WindowsExport, export_checkpoint, export_checkpoints
from lightning_trt_windows.errors import ShapeDiscoveryError


def trained(folder: Path, export: WindowsExport | None, **options: Any) -> Path:
    """A checkpoint of one epoch."""
    callbacks = [export] if export else []
    run = trainer(folder, ModelCheckpoint(folder, filename="a"), *callbacks, max_epochs=1, **options)
    run.fit(Regression(), datamodule=Data())
    return folder / "a.ckpt"


class TestExport:
    """Without data."""

    def test_alone(self, tmp_path: Path) -> None:
        """The ranges are those of the training, and so is the artifact: it is there already."""
        export = WindowsExport()
        checkpoint = trained(tmp_path, export)
        (tmp_path / "later").mkdir()
        later = export_checkpoint(checkpoint, Regression, output=tmp_path / "later")
        one, other = later.manifest.inputs[0], export.artifacts[0].manifest.inputs[0]
        assert (one.min, one.opt, one.max, one.symbols) == (other.min, other.opt, other.max, other.symbols)
        assert one.source.reason.endswith(", by the training that wrote a.ckpt")
        (again,) = export_checkpoints([checkpoint], Regression, executor="inline").made
        assert again.existed

    def test_a_checkpoint_without_them(self, tmp_path: Path) -> None:
        """Is as it always was: data or inputs are asked for."""
        checkpoint = trained(tmp_path, None)
        with pytest.raises(ShapeDiscoveryError, match="there is no datamodule to ask"):
            export_checkpoint(checkpoint, Regression)

    def test_weights_only(self, tmp_path: Path) -> None:
        """Lightning leaves out all states of callbacks there."""
        export = WindowsExport(when="checkpoint", executor="inline")
        saver = ModelCheckpoint(tmp_path, filename="a", save_weights_only=True)
        trainer(tmp_path, saver, export, max_epochs=1).fit(Regression(), datamodule=Data())
        assert len(export.artifacts) == 1
        with pytest.raises(ShapeDiscoveryError):
            export_checkpoint(tmp_path / "a.ckpt", Regression)

    def test_a_forward_that_has_changed(self, tmp_path: Path) -> None:
        """What was seen is none of its calls, and the message says so."""

        class Changed(Regression):
            def forward(self, one: Any, two: Any) -> Any:  # type: ignore[override]
                return super().forward(one + two)

        checkpoint = trained(tmp_path, WindowsExport())
        with pytest.raises(ShapeDiscoveryError, match=r"seen by the training that wrote a\.ckpt does not count: .*two"):
            export_checkpoint(checkpoint, Changed)

    def test_data_goes_before(self, tmp_path: Path) -> None:
        """Who names a datamodule wants its shapes."""
        checkpoint = trained(tmp_path, WindowsExport())
        (tmp_path / "later").mkdir()
        later = export_checkpoint(checkpoint, Regression, Data(batch_size=16), output=tmp_path / "later")
        assert later.manifest.inputs[0].max == (16, 4)


class TestState:
    """What stands in the file."""

    def test_plain_values(self, tmp_path: Path) -> None:
        """PyTorch reads them without running anything, with the reasons for people."""
        state = torch.load(trained(tmp_path, WindowsExport()), weights_only=True)["callbacks"]["WindowsExport"]
        (entry,) = state["ranges"]
        assert (entry["name"], entry["min"], entry["opt"], entry["max"]) == ("x", [1, 4], [8, 4], [8, 4])
        assert entry["source"] == "observed"
        assert len(entry["dims"]) == 2

    @pytest.mark.parametrize("when", ["train_end", "checkpoint"])
    def test_a_resumed_training_counts_on(self, tmp_path: Path, when: Any) -> None:
        """The largest batch was seen before only, and is in the range; the number of calls is that of both."""
        checkpoint = trained(tmp_path, WindowsExport())
        export = WindowsExport(when=when, executor="inline")
        run = trainer(tmp_path / "again", ModelCheckpoint(tmp_path / "again"), export, max_epochs=2)
        run.fit(Regression(), datamodule=Data(batch_size=5), ckpt_path=checkpoint)
        assert export.failures == []
        record = export.artifacts[-1].manifest.inputs[0]
        assert record.max == (8, 4)
        assert record.source.sizes[0]["8"] >= 4
        assert record.source.sizes[0]["5"] >= 7

    def test_another_fit_begins_anew(self, tmp_path: Path) -> None:
        """Where it is not resumed; looking at a checkpoint is not resuming."""
        checkpoint = trained(tmp_path, WindowsExport())
        export = WindowsExport()
        module = Regression()
        saver = ModelCheckpoint(tmp_path / "again")
        run = trainer(tmp_path / "again", saver, export, max_epochs=1)
        run.validate(module, datamodule=Data(), ckpt_path=checkpoint, verbose=False)
        run.fit(module, datamodule=Data(batch_size=5))
        assert export.artifacts[-1].manifest.inputs[0].max == (5, 4)

    def test_a_state_that_does_not_fit(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A sentence, and training and export go on with what is seen now."""
        checkpoint = trained(tmp_path, WindowsExport())
        content = torch.load(checkpoint)
        other = copy.deepcopy(content)
        other["callbacks"]["WindowsExport"]["format"] = 99
        torch.save(other, checkpoint)
        export = WindowsExport()
        run = trainer(tmp_path / "again", ModelCheckpoint(tmp_path / "again"), export, max_epochs=2)
        with caplog.at_level("INFO"):
            run.fit(Regression(), datamodule=Data(), ckpt_path=checkpoint)
        assert "shapes in the form 99 were found" in caplog.text
        assert len(export.artifacts) == 1
