"""What is exported in place of forward, and what the manifest is given beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.lightning_models import Data, Regression, trainer
from support.paths import MODELS
from torch import Tensor, nn

from lightning_trt_windows import Artifact, WindowsExport
from lightning_trt_windows.cli import main

EXTRA = {"classes": ["cat", "dog"], "mean": [0.485, 0.456, 0.406], "nested": {"threshold": 0.5}}


class WithSteps(Regression):
    """Normalises before the net, and rounds after it."""

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        x, _ = batch
        return (self((x - 0.5) * 2) > 0).float()


class InPieces(Regression):
    """Its steps call submodules, and never ``forward``."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.net[3](self.net[:3](x)), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])


def signature(artifact: Artifact) -> list[tuple[str, tuple[int, ...]]]:
    """Names and largest shapes of the inputs."""
    return [(record.name, record.max) for record in artifact.manifest.inputs]


def test_a_submodule_has_the_ranges_that_it_received(tmp_path: Path) -> None:
    """At the end of a training: what comes before it and after it is left out."""
    callback = WindowsExport(method="net.3", extra=EXTRA, on_error="raise")
    trainer(tmp_path, callback, max_epochs=1).fit(Regression(), datamodule=Data())
    (artifact,) = callback.artifacts
    assert signature(artifact) == [("input", (8, 8))]
    assert artifact.manifest.extra == EXTRA
    assert "calls of net.3" in artifact.manifest.inputs[0].source.reason


def test_batches_stand_for_calls_where_the_steps_call_submodules(tmp_path: Path) -> None:
    """They are mapped to the arguments of ``forward``, and the manifest says how."""
    callback = WindowsExport(on_error="raise")
    trainer(tmp_path, callback, max_epochs=1).fit(InPieces(), datamodule=Data())
    (artifact,) = callback.artifacts
    assert signature(artifact) == [("x", (8, 4))]
    reason = artifact.manifest.inputs[0].source.reason
    assert reason == "no call of forward was seen; in the batches (5 in train, 5 in val) the batch's first element is x"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of :class:`Regression`."""
    run = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    run.fit(Regression(), datamodule=Data())
    run.save_checkpoint(tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def test_the_command_takes_a_method_and_extra_values(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``predict_step`` with what it does around ``forward``, and a file of values."""
    extra = checkpoint.with_name("extra.json")
    extra.write_text(json.dumps(EXTRA), encoding="utf-8")
    here = Path(__file__)
    command = ["export", str(checkpoint), "--module", f"{here}:WithSteps", "--method", "predict_step"]
    data = ["--datamodule", f"{MODELS}:Data"]
    assert main([*command, *data, "--extra", str(extra)]) == 0
    manifest = json.loads(checkpoint.with_name("m.windows.json").read_text(encoding="utf-8"))
    assert next(record["name"] for record in manifest["inputs"]) == "batch.0"
    assert manifest["extra"] == EXTRA
    for text, message in (("[1]", "expected a JSON object"), ("{", "is not valid JSON")):
        extra.write_text(text, encoding="utf-8")
        assert main([*command, "--extra", str(extra)]) == 2
        assert message in capsys.readouterr().err
    assert main([*command, "--extra", str(checkpoint.with_name("no.json"))]) == 2
