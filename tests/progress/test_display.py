"""What people see while training waits for artifacts, in the style of their Trainer's progress bar."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar
from rich.console import Console
from support.lightning_models import Data, Regression, Untraceable

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.builds.executors.process import BuildProcess
from lightning_trt_windows.cli import exported
from lightning_trt_windows.progress.display import Lines, Progress, RichDisplay, Silent, TqdmDisplay, display_like
from lightning_trt_windows.progress.events import listening, stage


def fit(directory: Path, module: L.LightningModule, *callbacks: Any, **options: Any) -> WindowsExport:
    """A training of an epoch, with a progress bar unless ``options`` say otherwise."""
    export = WindowsExport(preflight=False)
    saver = ModelCheckpoint(directory, filename="{epoch}")
    L.Trainer(
        accelerator="cpu", logger=False, enable_model_summary=False, default_root_dir=directory, max_epochs=1,
        callbacks=[saver, export, *callbacks], **options,
    ).fit(module, datamodule=Data())  # fmt: skip
    return export


class TestStyle:
    """As the Trainer's own bar."""

    @pytest.mark.parametrize(
        ("bar", "display"),
        [(RichProgressBar(), RichDisplay), (TQDMProgressBar(), TqdmDisplay), (TQDMProgressBar(refresh_rate=0), Silent)],
        ids=["rich", "tqdm", "refreshed never"],
    )
    def test_as_the_bar_of_the_trainer(self, bar: Any, display: type) -> None:
        """Rich for rich, tqdm for tqdm, nothing for a bar that shows nothing."""
        run = L.Trainer(callbacks=[bar], logger=False, enable_checkpointing=False, accelerator="cpu")
        assert type(display_like(run)) is display

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing where the progress bar is switched off, and in all processes but the first."""
        assert type(display_like(L.Trainer(enable_progress_bar=False, logger=False, accelerator="cpu"))) is Silent
        run = L.Trainer(callbacks=[TQDMProgressBar()], logger=False, accelerator="cpu")
        monkeypatch.setattr(type(run.strategy), "is_global_zero", property(lambda self: False))
        assert type(display_like(run)) is Silent

    def test_rich_draws_stages(self) -> None:
        """The line has count, file and stage; it is gone at the end."""
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        with Progress(RichDisplay(console)).shown():
            stage("capture", "a.windows.ep")
            time.sleep(0.3)
        drawn = console.file.getvalue()  # type: ignore[attr-defined]
        assert re.search(r"Windows engines.*0/1.*0:00:00.*a\.windows\.ep: capture", drawn)
        assert drawn.rstrip().endswith("\x1b[2K")

    def test_tqdm_draws_stages(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The line has count, file and stage, and its clock goes on while a stage takes long."""
        with (progress := Progress(TqdmDisplay())).shown():
            progress.update(1, 3, "a.windows.ep: compile")
            time.sleep(1.3)
        drawn = capsys.readouterr().out
        assert "Windows engines: 1/3 [00:00, a.windows.ep: compile]" in drawn
        assert "Windows engines: 1/3 [00:01, a.windows.ep: compile]" in drawn


class TestSummary:
    """What was made, when it is done."""

    def test_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A row for each artifact: checkpoint, size, engines, operators left to PyTorch, seconds."""
        fit(tmp_path, Regression(), TQDMProgressBar())
        shown = capsys.readouterr().out
        assert re.search(r"checkpoint +size +engines +in PyTorch +seconds", shown)
        assert re.search(r"epoch=0\.ckpt +\d+\.\d kB +1 +0 +\d+\.\d", shown)

    def test_failure(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A failure is a line with its checkpoint and the beginning of the reason."""
        with pytest.warns(UserWarning, match="no Windows artifact"):
            fit(tmp_path, Untraceable(), RichProgressBar())
        shown = re.sub(r"\x1b\[[0-9;?]*\w|\n", "", capsys.readouterr().out)
        assert "epoch=0.ckpt: CaptureError: " in shown

    def test_quiet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Where the Trainer is quiet nothing is printed."""
        export = fit(tmp_path, Regression(), enable_progress_bar=False)
        assert len(export.artifacts) == 1
        assert capsys.readouterr().out == ""


def test_listeners_hear_their_own_thread() -> None:
    """A stage goes to the innermost listener, and to nobody afterwards."""
    heard: list[tuple[str, str]] = []
    with listening(lambda name, of: heard.append((name, of))):
        stage("capture", "a")
        with listening(lambda name, of: None):
            stage("compile", "a")
        stage("write")
    stage("again")
    assert heard == [("capture", "a"), ("write", "")]


def test_stages_of_another_process(tmp_path: Path) -> None:
    """What a build process is doing is known while it runs."""
    from support import building
    from support.jobs import job

    executor = BuildProcess()
    future: Any = executor.submit(building.says_what_it_does, job(tmp_path, Regression()))
    deadline = time.monotonic() + 120
    while future.doing != "compile":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    future.cancel()
    executor.shutdown()
    assert future.doing == ""


class TestLines:
    """Where nobody looks while it happens: in a file."""

    def test_how_far(self) -> None:
        """A line every 20 s, with the time that the rest takes at this rate."""
        now, written = [0.0], io.StringIO()
        lines = Lines(written, clock=lambda: now[0])
        for second, done in ((0, 0), (5, 0), (19, 1), (20, 1), (30, 3), (41, 4), (5000, 299), (9000, 300)):
            now[0] = float(second)
            lines.show(done, 300, "a.windows.ep: build" if done < 300 else "")
        lines.close()
        assert written.getvalue().splitlines() == [
            "1 of 300 done, about 1.7 h left; a.windows.ep: build",
            "4 of 300 done, about 51 min left; a.windows.ep: build",
            "299 of 300 done, about 17 s left; a.windows.ep: build",
            "300 of 300 done",
        ]

    def test_of_a_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of several checkpoints, and not where somebody has asked for quiet."""
        assert not sys.stderr.isatty()
        assert isinstance(exported.display(quiet=False, several=True), Lines)
        assert isinstance(exported.display(quiet=False), Silent)
        assert isinstance(exported.display(quiet=True, several=True), Silent)
