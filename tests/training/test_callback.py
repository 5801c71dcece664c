"""WindowsExport in real Trainers, with real engines."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import types
import warnings
import weakref
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, Untraceable, trainer
from support.unchanged import assert_same

from lightning_trt_windows import DimRange, InputSpec, WindowsExport, export_checkpoint
from lightning_trt_windows.artifact.artifact import Artifact, check_artifact
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.errors import CaptureError, ConfigurationError, EnvironmentMismatchError


def best_and_last(directory: Path) -> ModelCheckpoint:
    """Keeps the best of the first epochs and, after each, the last."""
    return ModelCheckpoint(directory, monitor="val_loss", filename="best", save_last=True)


def names(directory: Path) -> set[str]:
    """What is in ``directory``, besides its index."""
    return {path.name for path in directory.iterdir()} - {"artifacts.json"}


class TestTrainEnd:
    """The best and the last checkpoint get an artifact when fit has finished."""

    def test_best_and_last(self, tmp_path: Path) -> None:
        """Both have their artifact beside them, whole, with the hash of the checkpoint in the manifest."""
        every_epoch = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        last = ModelCheckpoint(tmp_path, filename="final", every_n_epochs=2)
        export = WindowsExport(executor="inline")
        trainer(tmp_path, every_epoch, last, export, max_epochs=2).fit(Regression(), datamodule=Data())
        assert export.failures == []
        assert export.artifacts
        for artifact in export.artifacts:
            check_artifact(artifact)
            record = artifact.manifest.checkpoint
            assert record is not None
            assert record.sha256 == sha256_of(tmp_path / record.file)
            assert artifact.path == tmp_path / record.file.replace(".ckpt", ".windows.ep")

    def test_best_and_last_that_differ(self, tmp_path: Path) -> None:
        """Two checkpoints with different weights give two artifacts with different engines, the later one last."""
        best = ModelCheckpoint(tmp_path, filename="best", every_n_epochs=2)
        last = ModelCheckpoint(tmp_path, filename="last")
        export = WindowsExport(executor="inline")
        # the second epoch is the only one of these that counts for the first of them
        trainer(tmp_path, best, last, export, max_epochs=3, num_sanity_val_steps=0).fit(Regression(), datamodule=Data())
        assert [a.path.name for a in export.artifacts] == ["best.windows.ep", "last.windows.ep"]
        steps = [a.manifest.checkpoint.global_step for a in export.artifacts if a.manifest.checkpoint]
        assert steps == sorted(set(steps))
        assert len(steps) == 2
        assert len({a.manifest.engines[0].sha256 for a in export.artifacts}) == 2

    def test_same_weights_once(self, tmp_path: Path) -> None:
        """Where the last checkpoint is a copy of the best, their artifacts share one file."""
        export = WindowsExport(executor="inline", on_error="raise")
        trainer(tmp_path, best_and_last(tmp_path), export, max_epochs=1).fit(Regression(), datamodule=Data())
        both = {f"{stem}.{suffix}" for stem in ("best", "last") for suffix in ("ckpt", "windows.ep", "windows.json")}
        assert names(tmp_path) == both
        assert (tmp_path / "best.windows.ep").samefile(tmp_path / "last.windows.ep")
        assert {artifact.path.name for artifact in export.artifacts} == {"best.windows.ep", "last.windows.ep"}

    def test_a_link_called_last(self, tmp_path: Path) -> None:
        """A link to the best checkpoint has an artifact of its own name, too."""
        saver = ModelCheckpoint(tmp_path, filename="a", save_last="link")
        export = WindowsExport(executor="inline", on_error="raise")
        trainer(tmp_path, saver, export, max_epochs=1).fit(Regression(), datamodule=Data())
        assert (tmp_path / "last.windows.ep").samefile(tmp_path / "a.windows.ep")

    def test_last_written_at_the_very_end(self, tmp_path: Path) -> None:
        """A checkpoint that ModelCheckpoint writes in its own on_train_end, after ours, is exported too."""
        late = ModelCheckpoint(tmp_path, filename="late", every_n_epochs=1, save_on_train_epoch_end=True)
        export = WindowsExport(executor="inline")
        trainer(tmp_path, late, export, max_steps=3, max_epochs=-1).fit(Regression(), datamodule=Data())
        assert names(tmp_path) >= {"late.ckpt", "late.windows.ep", "late.windows.json"}

    def test_ranges_are_what_training_saw(self, tmp_path: Path) -> None:
        """Batch: 1 at least, the usual 8 for tuning, 8 at most; the odd last batch of 5 does not count as usual."""
        export = WindowsExport(executor="inline")
        trainer(tmp_path, ModelCheckpoint(tmp_path), export).fit(Regression(), datamodule=Data())
        (record,) = export.artifacts[-1].manifest.inputs
        assert (record.name, record.min, record.opt, record.max) == ("x", (1, 4), (8, 4), (8, 4))
        assert record.source.kind == "observed"

    def test_ranges_from_the_user(self, tmp_path: Path) -> None:
        """Explicit inputs go before what was seen."""
        export = WindowsExport(executor="inline", inputs={"x": InputSpec((DimRange(1, 16, 64), 4))})
        trainer(tmp_path, ModelCheckpoint(tmp_path), export).fit(Regression(), datamodule=Data())
        (record,) = export.artifacts[-1].manifest.inputs
        assert (record.min, record.opt, record.max) == ((1, 4), (16, 4), (64, 4))
        assert record.source.kind == "argument"

    def test_same_artifact_later(self, tmp_path: Path) -> None:
        """export_checkpoint makes the same engine from the same file, without a Trainer."""
        export = WindowsExport(executor="inline")
        trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export).fit(Regression(width=6), datamodule=Data())
        later = same_engines_later(tmp_path, export)
        assert later.manifest.checkpoint == export.artifacts[-1].manifest.checkpoint

    def test_averaged_weights(self, tmp_path: Path) -> None:
        """With weight averaging the artifact has the averaged weights that are in the file, not the module's own."""
        averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="since Lightning 2.6")
        export = WindowsExport(executor="inline")
        average = averaging.WeightAveraging()
        saver = ModelCheckpoint(tmp_path, filename="a")
        trainer(tmp_path, average, saver, export, max_epochs=3).fit(Regression(), datamodule=Data())
        same_engines_later(tmp_path, export)

    def test_second_fit(self, tmp_path: Path) -> None:
        """A second fit adds its artifacts to those of the first."""
        export = WindowsExport(executor="inline")
        module, data = Regression(), Data()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}")
        run = trainer(tmp_path, saver, export, max_epochs=1)
        run.fit(module, datamodule=data)
        run.fit_loop.max_epochs = 2
        run.fit(module, datamodule=data)
        assert [a.path.name for a in export.artifacts] == ["epoch=0.windows.ep", "epoch=1.windows.ep"]
        assert export.failures == []


class TestNothingToExport:
    """Runs without checkpoints, and what is no run."""

    @pytest.mark.parametrize(
        "options",
        [
            {"enable_checkpointing": False},
            {"max_epochs": 0},
            {"callbacks": [ModelCheckpoint(save_top_k=0)]},
        ],
        ids=["no checkpointing", "no training", "save_top_k=0"],
    )
    def test_no_checkpoint(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """A run that writes no checkpoint has its final weights exported into the Trainer's root directory."""
        export, module = WindowsExport(on_error="raise"), Regression()
        callbacks = [export, *options.get("callbacks", [])]
        others = {key: value for key, value in options.items() if key != "callbacks"}
        trainer(tmp_path, *callbacks, **others).fit(module, datamodule=Data())
        (artifact,) = export.artifacts
        check_artifact(artifact)
        assert artifact.path == tmp_path / "final.windows.ep"
        assert artifact.manifest.checkpoint is None

    def test_fast_dev_run(self, tmp_path: Path) -> None:
        """fast_dev_run exports nothing and warns of nothing."""
        export = WindowsExport(executor="inline")
        trainer(tmp_path, export, fast_dev_run=True).fit(Regression(), datamodule=Data())
        assert (export.artifacts, export.failures, names(tmp_path)) == ([], [], set())

    def test_saved_by_hand(self, tmp_path: Path) -> None:
        """A checkpoint saved by hand after the run is left alone at train_end."""
        export = WindowsExport(executor="inline")
        run = trainer(tmp_path, ModelCheckpoint(tmp_path / "run", filename="a"), export)
        run.fit(Regression(), datamodule=Data())
        run.save_checkpoint(tmp_path / "mine.ckpt")
        assert [a.path.name for a in export.artifacts] == ["a.windows.ep"]
        assert names(tmp_path) == {"run", "mine.ckpt"}

    def test_validate_alone(self, tmp_path: Path) -> None:
        """Nothing is exported by validate and test."""
        export = WindowsExport(executor="inline")
        trainer(tmp_path, export).validate(Regression(), datamodule=Data(), verbose=False)
        assert (export.artifacts, export.failures) == ([], [])

    def test_interrupted(self, tmp_path: Path) -> None:
        """A run that fails keeps its own error; nothing is exported and nothing stays on the module."""

        class Broken(Regression):
            def on_train_epoch_end(self) -> None:
                raise RuntimeError("out of coffee")

        export, module = WindowsExport(executor="inline"), Broken()
        with pytest.raises(RuntimeError, match="out of coffee"):
            trainer(tmp_path, export).fit(module, datamodule=Data())
        assert export.artifacts == []
        assert "forward" not in module.__dict__
        assert not module._forward_pre_hooks


class TestPreflight:
    """What is known before the training is said before the training."""

    def test_all_is_well(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A sentence each for versions, disk and capture, before the first step."""

        class Told(Regression):
            told: list[str] | None = None

            def on_train_start(self) -> None:
                self.told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("WindowsExport: ")]

        module = Told()
        with caplog.at_level("INFO"):
            trainer(tmp_path, WindowsExport(), max_epochs=1).fit(module, datamodule=Data())
        assert module.told is not None
        engines, space, captured = module.told
        assert f"engines by tensorrt_rtx, with torch {importlib.metadata.version('torch')}" in engines
        assert "of free space, an artifact needs about" in space
        assert re.search(r"Told can be captured \(\d\.\d s\), as far as seen with x float32 \[1\.\.8, 4\]\.$", captured)

    def test_without_a_sanity_check(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The first training step shows as much, and the training is the same for it."""
        runs = []
        for callbacks in ([], [WindowsExport()]):
            L.seed_everything(1, verbose=False)
            module = Regression()
            options: dict[str, Any] = {"limit_val_batches": 0, "max_epochs": 1, "enable_checkpointing": False}
            with caplog.at_level("INFO"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # there is no checkpoint to export
                trainer(tmp_path, *callbacks, **options).fit(module, datamodule=Data())
            runs.append((module.state_dict(), torch.get_rng_state()))
        told = [r.getMessage() for r in caplog.records if "can be captured" in r.getMessage()]
        assert len(told) == 1
        assert told[0].endswith("x float32 [1..8, 4].")
        assert_same(*runs)

    def test_capture_fails(self, tmp_path: Path) -> None:
        """A module that cannot be captured is told of once, before the first step, and the training goes on."""
        with pytest.warns(
            UserWarning, match="cannot be captured yet; it is tried again after the first step"
        ) as caught:
            trainer(tmp_path, WindowsExport(), max_epochs=1).fit(Untraceable(), datamodule=Data())
        assert len([w for w in caught if "cannot be captured yet" in str(w.message)]) == 1
        run = trainer(tmp_path, WindowsExport(on_error="raise"), max_epochs=1)
        with pytest.warns(UserWarning, match="cannot be captured yet"), pytest.raises(CaptureError):
            run.fit(Untraceable(), datamodule=Data())
        assert run.current_epoch == 1

    def test_capture_that_works_later(self, tmp_path: Path) -> None:
        """A module that is ready at the end of its training only, as one with a memory bank, is exported then."""

        class Bank(Regression):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("bank", torch.empty(0, 1))
                self.seen: list[torch.Tensor] = []

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                features = super().forward(x)
                if self.training:
                    self.seen.append(features.detach())
                    return features
                if self.bank.numel() == 0:
                    raise ValueError("the memory bank is empty")
                return (features[:, None] - self.bank).abs().amin(1)

            def on_train_epoch_end(self) -> None:
                self.bank = torch.cat(self.seen)

            def validation_step(self, batch: Any, batch_idx: int) -> None:
                pass

        export = WindowsExport(on_error="raise")
        with pytest.warns(UserWarning, match="cannot be captured yet"):
            trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export, max_epochs=1).fit(
                Bank(), datamodule=Data()
            )
        assert (tmp_path / "a.windows.ep").exists()
        assert export.failures == []


class TestFailures:
    """A failed export never costs the training, unless asked to."""

    def test_warn(self, tmp_path: Path) -> None:
        """By default: a warning that names checkpoint, line and cause, an entry in failures, no file, fit succeeds."""
        export = WindowsExport(executor="inline", preflight=False)
        run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export)
        with pytest.warns(UserWarning, match=r"no Windows artifact for a\.ckpt: CaptureError.*lightning_models\.py:"):
            run.fit(Untraceable(), datamodule=Data())
        (failure,) = export.failures
        assert failure.checkpoint == tmp_path / "a.ckpt"
        assert isinstance(failure.error, CaptureError)
        assert names(tmp_path) == {"a.ckpt", "a.windows.log"}
        assert run.state.finished

    def test_raise(self, tmp_path: Path) -> None:
        """With on_error="raise" the error comes out of fit, after the checkpoint was written."""
        export = WindowsExport(on_error="raise", preflight=False)
        with pytest.raises(CaptureError):
            trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export).fit(Untraceable(), datamodule=Data())
        assert len(export.failures) == 1
        assert (tmp_path / "a.ckpt").exists()

    def test_environment_is_refused_at_setup(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Torch-TensorRT missing: with on_error="raise" before the first step, with a sentence that says what to do."""
        hide(monkeypatch, "torch-tensorrt-rtx")
        with pytest.raises(EnvironmentMismatchError, match=r"pip install \"lightning-trt-windows\[rtx\]\""):
            trainer(tmp_path, WindowsExport(on_error="raise")).fit(Regression(), datamodule=Data())

    def test_environment_is_warned_of_at_setup(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Torch-TensorRT missing: by default training goes on, after a warning at its beginning."""
        hide(monkeypatch, "torch-tensorrt-rtx")
        export = WindowsExport(executor="inline")
        with pytest.warns(UserWarning, match="no Windows artifact for this run"):
            trainer(tmp_path, export, max_epochs=1).fit(Regression(), datamodule=Data())
        assert export.failures

    def test_options_are_refused_at_setup(self, tmp_path: Path) -> None:
        """A misspelt option is an error before training with on_error="raise", and otherwise a failure."""
        misspelt = {"workspace_sise": 1}
        with pytest.raises(ConfigurationError, match="workspace_size"):
            trainer(tmp_path, WindowsExport(compile_options=misspelt, on_error="raise")).fit(
                Regression(), datamodule=Data()
            )
        export = WindowsExport(compile_options=misspelt)
        run = trainer(tmp_path, export, max_epochs=1)
        with pytest.warns(UserWarning, match="workspace_size"):
            run.fit(Regression(), datamodule=Data())
        assert run.current_epoch == 1
        assert [type(failure.error) for failure in export.failures] == [ConfigurationError]
        assert export.artifacts == []

    @pytest.mark.parametrize("arguments", [{"when": "never"}, {"on_error": "ignore"}, {"precision": "8"}])
    def test_arguments(self, arguments: dict[str, Any]) -> None:
        """An argument outside its choices is refused with the choices."""
        with pytest.raises(ConfigurationError, match="must be one of"):
            WindowsExport(**arguments)


class TestTrainingUnchanged:
    """Training with the callback is training without it."""

    def test_same_weights_and_random_state(self, tmp_path: Path) -> None:
        """Weights, optimizer and random state after fit are bit for bit those of a run without the callback."""
        results = []
        for callbacks in ([], [WindowsExport(executor="inline")]):
            L.seed_everything(3, verbose=False)
            module = Regression()
            directory = tmp_path / str(len(callbacks))
            run = trainer(directory, ModelCheckpoint(directory), *callbacks)
            run.fit(module, datamodule=Data())
            optimizer = run.optimizers[0].state_dict()["param_groups"][0]["lr"]
            modes = [m.training for m in module.modules()]
            results.append((module.state_dict(), torch.get_rng_state(), optimizer, modes))
        without, with_export = results
        assert all(torch.equal(without[0][key], with_export[0][key]) for key in without[0])
        assert torch.equal(without[1], with_export[1])
        assert without[2:] == with_export[2:]


def same_engines_later(directory: Path, export: WindowsExport) -> Artifact:
    """Export ``a.ckpt`` without a Trainer, and expect the engines that the callback made.

    TensorRT-RTX now and then orders an engine's inner names otherwise, so that a build may have to be repeated.
    """
    for attempt in range(4):
        output = directory / f"later{attempt}"
        output.mkdir()
        later = export_checkpoint(directory / "a.ckpt", Regression, datamodule=Data(), output=output)
        if later.manifest.engines == export.artifacts[-1].manifest.engines:
            return later
    pytest.fail("four exports of the checkpoint gave other engines than the callback's")


def hide(monkeypatch: pytest.MonkeyPatch, distribution: str) -> None:
    """Make ``distribution`` look as if it were not installed."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == distribution:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


class Watched(Regression):
    """Says which of its modules have a ``forward`` that is not that of their class."""

    def stands_in(self) -> list[str]:
        return [name for name, module in self.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("when", ["train_end", "checkpoint"])
@pytest.mark.parametrize("whole", [False, True], ids=["a function", "the module"])
def test_as_many_graphs_are_compiled_as_without_the_callback(tmp_path: Path, when: Any, whole: bool) -> None:
    """However many checkpoints there are: at the 8th further one Dynamo ends a training with ``fullgraph=True``."""

    def graphs(*callbacks: Any) -> int:
        torch._dynamo.reset()
        compiled = 0

        def backend(graph: Any, inputs: Any) -> Any:
            nonlocal compiled
            compiled += 1
            return graph.forward

        module: Any = Watched()
        if whole:
            module = torch.compile(module, backend=backend)
        else:
            module.training_step = torch.compile(
                lambda batch, batch_idx: (module(batch[0]) - batch[1]).square().mean(), backend=backend, fullgraph=True
            )
        saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1)
        run = trainer(tmp_path, saver, *callbacks, max_epochs=1, limit_train_batches=10, num_sanity_val_steps=0)
        run.fit(module, datamodule=Data(batch_size=3))
        return compiled

    export = WindowsExport(when=when, executor="inline")
    assert graphs(export) == graphs()
    assert export.failures == []
    assert export.artifacts


def test_nothing_is_left_on_a_module_whose_training_was_resumed(tmp_path: Path) -> None:
    """Nor on its submodules, whether that training ended or failed."""
    saver = ModelCheckpoint(tmp_path, filename="first")
    trainer(tmp_path, saver, WindowsExport(), max_epochs=1).fit(Watched(), datamodule=Data())

    class Fails(Watched):
        def on_train_epoch_end(self) -> None:
            raise ValueError("ends here")

    for module in (Watched(), Fails()):
        run = trainer(tmp_path / "again", WindowsExport(), max_epochs=2)
        with contextlib.nullcontext() if type(module) is Watched else pytest.raises(ValueError, match="ends here"):
            run.fit(module, datamodule=Data(), ckpt_path=tmp_path / "first.ckpt")
        assert module.stands_in() == []


def test_forward_is_patched_by_its_type_while_training_runs(tmp_path: Path) -> None:
    """A common idiom, which needs a method's type; what it has put there stays."""

    class Patched(Watched):
        def on_train_start(self) -> None:
            assert weakref.WeakMethod(self.forward)() is not None
            self.forward = type(self.forward)(lambda self, x: 2 * self.net(x), self)  # type: ignore[method-assign]

    module, export = Patched(), WindowsExport(when="checkpoint", executor="inline")
    trainer(tmp_path, export, max_epochs=1).fit(module, datamodule=Data())
    assert export.failures == []
    assert module.stands_in() == [""]
    assert type(vars(module)["forward"]) is types.MethodType
