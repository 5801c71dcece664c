"""What is known before hours of training."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from support.lightning_models import Regression
from torch import nn

from lightning_trt_windows import InputSpec, WindowsExport
from lightning_trt_windows.errors import CaptureError, ConfigurationError, OutputError, ShapeDiscoveryError
from lightning_trt_windows.training.preflight import (
    PREFLIGHT,
    Preflight,
    check_arguments,
    check_space,
    check_strategy,
    checkpoint_paths,
)


class TestArguments:
    """Names that are nowhere in the module."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"inputs": {"y": InputSpec((1, 4))}}, r"inputs: forward of Regression has no 'y'; it takes x"),
            ({"inputs": {"xx": InputSpec((1, 4))}}, r"has no 'xx'; did you mean 'x'\?"),
            ({"method": "encode"}, "has no method 'encode' to export"),
            ({"method": "net", "inputs": {"x": (1, 4)}}, "net of Sequential has no 'x'; did you mean|it takes input"),
        ],
    )
    def test_refused(self, arguments: dict[str, Any], message: str) -> None:
        """With what there is instead."""
        with pytest.raises(ConfigurationError, match=message):
            check_arguments(Regression(), WindowsExport(**arguments).options)

    def test_what_cannot_be_known(self) -> None:
        """Keyword arguments of any name, and a module without a forward, whose steps may call a submodule."""

        class Any_(nn.Module):  # noqa: N801
            def forward(self, **inputs: Any) -> Any:
                return inputs

        class Without(L.LightningModule): ...

        options = WindowsExport(inputs={"ids": (1, 4)}).options
        check_arguments(Any_(), options)
        check_arguments(Without(), WindowsExport().options)


class TestSpace:
    """Room for one artifact."""

    def test_a_sentence(self, tmp_path: Path) -> None:
        """About the directory that is there: a run's own need not be yet."""
        assert f"{tmp_path} has" in check_space(tmp_path / "not" / "yet", Regression())

    def test_too_little(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Weights twice, and some."""
        usage = namedtuple("usage", ["total", "used", "free"])
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 1_000_000))
        with pytest.raises(OutputError, match="free some, or let ModelCheckpoint write to another disk"):
            check_space(tmp_path, Regression())

    def test_large_weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Their engine is written once more while the artifact is made."""
        usage = namedtuple("usage", ["total", "used", "free"])
        with torch.device("meta"):
            large, larger = (torch.nn.Linear(10_000, size, bias=False) for size in (6_000, 8_000))
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 900_000_000))
        assert "an artifact needs about 481.0 MB" in check_space(tmp_path, large)
        with pytest.raises(OutputError, match=r"an artifact needs about 961\.0 MB"):
            check_space(tmp_path, larger)

    def test_a_model_for_onnx_runtime(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has the engines once more."""
        usage = namedtuple("usage", ["total", "used", "free"])
        large = torch.nn.Linear(1000, 10_000, bias=False)  # 40 MB
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 100_000_000))
        assert "an artifact needs about" in check_space(tmp_path, large)
        with pytest.raises(OutputError):
            check_space(tmp_path, large, ("ep", "onnx"))


def test_others_would_wait() -> None:
    """Builds in the training process, with several of them, while training goes on."""
    trainer = SimpleNamespace(strategy=object(), world_size=3)
    with pytest.raises(ConfigurationError, match="would let 2 other processes wait"):
        check_strategy(trainer, WindowsExport(when="checkpoint", executor="inline").options)
    check_strategy(trainer, WindowsExport(executor="inline").options)
    check_strategy(trainer, WindowsExport(when="checkpoint").options)


def test_the_best_and_the_last(tmp_path: Path) -> None:
    """Of each ModelCheckpoint, once, if it is there; or all that it keeps, of a resumed run all of its directory."""
    for name in ("a", "b", "last", "older"):
        (tmp_path / f"{name}.ckpt").touch()
    saver = SimpleNamespace(
        best_model_path=str(tmp_path / "b.ckpt"),
        last_model_path=str(tmp_path / "last.ckpt"),
        best_k_models={str(tmp_path / f"{name}.ckpt"): 1.0 for name in ("a", "b", "deleted")},
        dirpath=str(tmp_path),
    )
    trainer = SimpleNamespace(checkpoint_callbacks=[saver, saver], ckpt_path=None)
    assert [path.name for path in checkpoint_paths(trainer, every=False)] == ["b.ckpt", "last.ckpt"]
    assert [path.name for path in checkpoint_paths(trainer, every=True)] == ["a.ckpt", "b.ckpt", "last.ckpt"]
    trainer.ckpt_path = "a.ckpt"
    assert "older.ckpt" in [path.name for path in checkpoint_paths(trainer, every=True)]


class TestMoments:
    """A module that cannot be captured yet."""

    def test_until_it_can(self, caplog: pytest.LogCaptureFixture) -> None:
        """Each moment once; a failure that is the same is told of once, success ends it."""
        answers: list[Any] = [CaptureError("not ready"), CaptureError("not ready"), "Net can be captured"]

        def capture() -> str:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        preflight = Preflight(True)
        with pytest.warns(UserWarning, match="cannot be captured yet; it is tried again after the first step") as told:
            preflight.attempt(PREFLIGHT[0], "Net", capture)
            preflight.attempt(PREFLIGHT[0], "Net", capture)
            preflight.attempt(PREFLIGHT[1], "Net", capture)
        assert len(told) == 1
        with caplog.at_level("INFO"):
            preflight.attempt(PREFLIGHT[2], "Net", capture)
        assert "WindowsExport: Net can be captured." in caplog.text
        assert preflight.left == []

    @pytest.mark.filterwarnings("error")
    def test_shapes_that_are_not_known_yet(self) -> None:
        """Training will show more."""

        def capture() -> str:
            raise ShapeDiscoveryError("nothing was seen")

        preflight = Preflight(True)
        preflight.attempt(PREFLIGHT[0], "Net", capture)
        assert preflight.left == list(PREFLIGHT[1:])

    def test_nobody_wants_to_know(self) -> None:
        """preflight=False."""
        Preflight(False).attempt(PREFLIGHT[0], "Net", lambda: pytest.fail("it was captured"))


def test_a_setup_that_is_refused_warns(tmp_path: Path) -> None:
    """By default a mistake in an argument is one warning at setup, and the training goes on without exports."""
    export = WindowsExport(inputs={"y": InputSpec((1, 4))})
    trainer = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[export], max_epochs=1, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    x = torch.rand(16, 4)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), 8)
    with pytest.warns(UserWarning, match="no Windows artifact for this run: ConfigurationError: inputs: .* no 'y'"):
        trainer.fit(Regression(), data)
    assert trainer.state.finished
    assert len(export.failures) == 1
    assert export.artifacts == []
