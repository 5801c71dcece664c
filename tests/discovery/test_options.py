"""How ranges are derived, said in Python, in YAML and on the command line: each way reaches what is derived."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jsonargparse
import lightning.pytorch as L
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from support.lightning_models import Data, Regression, trainer
from support.paths import MODELS as MODELS_FILE
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_trt_windows import DimRange, InputSpec, RangeOptions, WindowsExport, export_checkpoint, export_module
from lightning_trt_windows.cli import main
from lightning_trt_windows.cli.ranges import add_ranges, range_options
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.errors import ConfigurationError


class Lengths(L.LightningDataModule):
    """Sequences of 10, 12 and 17 numbers, two each."""

    def val_dataloader(self) -> Any:
        return DataLoader([torch.rand(2, length) for length in (10, 12, 17)], batch_size=None)


class Smooth(L.LightningModule):
    """Takes sequences of any length."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool1d(x.unsqueeze(1), 3, 1, 1).squeeze(1)


def bounds(artifact: Any) -> list[tuple[int, int, int]]:
    """(min, opt, max) of each axis of the first input."""
    record = artifact.manifest.inputs[0]
    return list(zip(record.min, record.opt, record.max))


def test_export_module_takes_options(tmp_path: Path) -> None:
    """An object, or the mapping that a file gives."""
    path = tmp_path / "m.windows.ep"
    plain = export_module(Smooth(), None, path, datamodule=Lengths())
    assert bounds(plain) == [(1, 2, 2), (10, 12, 17)]
    wide = export_module(
        Smooth(), None, path, datamodule=Lengths(), ranges=RangeOptions(margin=0.5, dynamic={"batch": [1, 4, 8]})
    )
    assert bounds(wide) == [(1, 4, 8), (5, 12, 26)]
    fixed = export_module(Smooth(), None, path, datamodule=Lengths(), ranges={"static": ["x.1"]})  # type: ignore[arg-type]  # YAML
    assert bounds(fixed) == [(1, 2, 2), (12, 12, 12)]


def test_fewer_batches_are_looked_at() -> None:
    """The number of batches bounds what is drawn from a loader."""
    found = discover(Smooth(), datamodule=Lengths(), options=RangeOptions(max_batches=2))
    assert found.inputs["x"].at("max") == (2, 12)


def test_the_callback_and_export_checkpoint_take_options(tmp_path: Path) -> None:
    """The same options give the same ranges, with a Trainer and without."""
    ranges = RangeOptions(caps={"batch": 4})
    callback = WindowsExport(ranges=ranges, on_error="raise")
    run = trainer(tmp_path, callback, max_epochs=1)
    run.fit(Regression(), datamodule=Data())
    (artifact,) = callback.artifacts
    assert bounds(artifact) == [(1, 4, 4), (4, 4, 4)]
    checkpoint = Path(run.checkpoint_callback.best_model_path)  # type: ignore[union-attr]  # the Trainer has one
    later = export_checkpoint(checkpoint, Regression, Data(), output=tmp_path, ranges=ranges)
    assert bounds(later) == bounds(artifact)


def test_a_symbol_that_has_not_been_seen_yet_does_not_stop_the_preflight(tmp_path: Path) -> None:
    """The sanity check may show one length only; the training shows the others."""

    class Sizes(Lengths):
        def train_dataloader(self) -> Any:
            return self.val_dataloader()

    class Module(Smooth):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            self(batch)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch)

        def configure_optimizers(self) -> None:
            return None

    callback = WindowsExport(ranges=RangeOptions(caps={"dim1": 16}), on_error="raise")
    trainer(tmp_path, callback, max_epochs=1, num_sanity_val_steps=1).fit(Module(), datamodule=Sizes())
    assert bounds(callback.artifacts[-1]) == [(1, 2, 2), (10, 12, 16)]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"margins": 0.1}, r"RangeOptions has no option 'margins'; did you mean 'margin'\?"),
        ("0.1", r"ranges: expected RangeOptions\(\.\.\.\), got '0\.1'"),
        ({"caps": ["x.2"]}, r"caps is a mapping by dimension, got \['x\.2'\]"),
        ({"same": ["x.2", "x.3"]}, r"same is a list of lists of axes"),
        ({"dynamic": {"x.2": {"low": 1}}}, r"dynamic\['x\.2'\]: .*'low'"),
        ({"max_batches": 0}, r"max_batches is a whole number from 1, got 0"),
    ],
)
def test_options_that_are_none_are_refused_when_the_callback_is_made(ranges: Any, message: str) -> None:
    """Not after the training."""
    with pytest.raises(ConfigurationError, match=message):
        WindowsExport(ranges=ranges)


# YAML

CALLBACK = """
    class_path: lightning_trt_windows.WindowsExport
    init_args:
      ranges:
        margin: 0.25
        round_to: 8
        caps: {batch: 16}
        static: [x.1]
        dynamic: {dim1: [8, 16, 32], x.3: {min: 8, opt: 16, max: 32, multiple_of: 8}}
        same: [[x.2, x.3]]
        max_batches: 4
      inputs:
        image: {shape: [[1, 8, 32], 3, {min: 64, opt: 64, max: 128, multiple_of: 32, name: side}], dtype: uint8}
        ids: {shape: [4], dtype: int64, values: [0, 99]}
        nested: {mask: {shape: [4], dtype: bool}, scale: 0.5, none: null, name: text, list: [1, 2]}
        flag: true
"""
"""Everything that can be written, as LightningCLI takes it."""


def check(callback: WindowsExport) -> None:
    """It is what :data:`CALLBACK` says."""
    assert callback.options.ranges == RangeOptions(
        margin=0.25,
        round_to=8,
        caps={"batch": 16},
        static=("x.1",),
        dynamic={"dim1": DimRange(8, 16, 32), "x.3": DimRange(8, 16, 32, multiple_of=8)},
        same=(("x.2", "x.3"),),
        max_batches=4,
    )

    class Module(nn.Module):
        def forward(self, image: Tensor, ids: Tensor, nested: dict[str, Any], flag: bool) -> Tensor:
            return image

    found = discover(Module(), inputs=callback.options.inputs).inputs
    side = DimRange(64, 64, 128, "side", 32)
    assert found["image"] == InputSpec((DimRange(1, 8, 32, "batch"), 3, side), "uint8")
    assert found["ids"] == InputSpec((4,), "int64", (0, 99))
    mask = InputSpec((4,), "bool")
    assert found["nested"] == {"mask": mask, "scale": 0.5, "none": None, "name": "text", "list": [1, 2]}
    assert found["flag"] is True


def test_jsonargparse_makes_the_callback() -> None:
    """Options and nested inputs, from YAML to the objects."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(WindowsExport, "callback")
    config = parser.parse_string(yaml.dump({"callback": yaml.safe_load(CALLBACK)}))
    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)
    check(instantiate(config).callback)


def test_lightning_cli_makes_the_callback_and_saves_what_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration that LightningCLI saves beside a run makes the same callback once more."""
    monkeypatch.chdir(tmp_path)
    config = {"trainer": {"callbacks": [yaml.safe_load(CALLBACK)], "logger": False, "accelerator": "cpu"}}
    for _ in range(2):
        Path("config.yaml").write_text(yaml.dump(config))
        cli = LightningCLI(Regression, Data, run=False, args=["--config", "config.yaml"])
        (callback,) = (c for c in cli.trainer.callbacks if isinstance(c, WindowsExport))  # type: ignore[attr-defined]
        check(callback)
        config = yaml.safe_load(cli.parser.dump(cli.config))


def test_lightning_cli_explains_a_wrong_option(capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of the option, before anything runs."""
    arguments = ["--trainer.callbacks+=lightning_trt_windows.WindowsExport", "--trainer.callbacks.ranges.margin=2"]
    with pytest.raises((SystemExit, ValueError)) as raised:
        LightningCLI(Regression, Data, run=False, args=arguments)
    assert "RangeOptions.margin is a fraction" in f"{raised.value}{capsys.readouterr().err}"


# the command line


def test_options_of_ranges_are_written_compactly() -> None:
    """Each option of the command line is the one of RangeOptions with its name."""
    parser = argparse.ArgumentParser()
    add_ranges(parser)
    written = "--margin 0.25 --round-to 8 --cap x.2=512 --cap batch=16 --static x.1 --dynamic x.3=64..128..256%32"
    options = range_options(parser.parse_args([*written.split(), "--same", "x.2, y.1", "--max-batches", "4"]))
    assert options == RangeOptions(
        margin=0.25,
        round_to=8,
        caps={"x.2": 512, "batch": 16},
        static=("x.1",),
        dynamic={"x.3": DimRange(64, 128, 256, multiple_of=32)},
        same=(("x.2", "y.1"),),
        max_batches=4,
    )
    assert range_options(parser.parse_args([])) == RangeOptions()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--cap", "x.2", r"--cap: expected a dimension and its size, as --cap x\.2=8; got 'x\.2'"),
        ("--cap", "x.2=many", r"--cap x\.2=many: a size is a whole number"),
        ("--dynamic", "x.2=8", r"--dynamic x\.2=8: one size is --static, a range is MIN\.\.OPT\.\.MAX"),
        ("--dynamic", "x.2=8..4..2", r"--dynamic x\.2=8\.\.4\.\.2: DimRange: expected 1 <= min <= opt <= max"),
        ("--margin", "2", r"margin is a fraction from 0 to below 1, got 2\.0"),
        ("--max-batches", "0", r"max_batches is a whole number from 1, got 0"),
    ],
)
def test_wrong_options_of_ranges_are_explained(option: str, value: str, message: str) -> None:
    """With what was expected in their place."""
    parser = argparse.ArgumentParser()
    add_ranges(parser)
    with pytest.raises(ConfigurationError, match=message):
        range_options(parser.parse_args([option, value]))


def test_the_command_takes_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to the ranges in the manifest."""
    run = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    run.fit(Regression(), datamodule=Data())
    run.save_checkpoint(tmp_path / "m.ckpt")
    here = str(MODELS_FILE)
    command = ["export", str(tmp_path / "m.ckpt"), "--module", f"{here}:Regression", "--datamodule", f"{here}:Data"]
    assert main([*command, "--cap", "batch=4"]) == 0
    text = (tmp_path / "m.windows.json").read_text(encoding="utf-8")
    assert "4 largest (capped)" in text
