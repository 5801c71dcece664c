"""What upstream says while it works: kept aside, in a log on failure, and never what others say."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluating import compile_evaluated
from support.lightning_models import Data, Regression, Untraceable
from torch import Tensor, nn

from lightning_trt_windows import export_module
from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.errors import ArtifactError, CaptureError, CompileError
from lightning_trt_windows.progress.upstream_output import (
    KEEP_LOG,
    forward_lines,
    log_beside,
    quiet,
    record_line,
    stderr_kept,
)


def elsewhere(action: Callable[[], Any]) -> None:
    """Do it in another thread."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


class TestQuiet:
    """This thread's noise, and nobody else's."""

    def test_warnings(self) -> None:
        """Warnings are collected, also those that are errors to the user; other threads' are shown as ever."""
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("error")
            with quiet() as lines:
                warnings.warn("mine", stacklevel=1)
                elsewhere(lambda: warnings.warn("yours", stacklevel=1))
        assert lines == ["UserWarning: mine"]
        assert [str(w.message) for w in shown] == ["yours"]

    def test_filters_are_back(self) -> None:
        """Afterwards all is as it was."""
        before = warnings.showwarning, warnings.filters[:], logging.getLogger("torch").handlers[:]
        with quiet():
            pass
        assert (warnings.showwarning, warnings.filters[:], logging.getLogger("torch").handlers[:]) == before

    def test_records(self, caplog: pytest.LogCaptureFixture) -> None:
        """Upstream's warnings and errors are collected; those of other threads and other loggers are not touched."""
        log = logging.getLogger("torch_tensorrt.some.part")
        with quiet() as lines:
            log.warning("mine %d", 1)
            log.info("not worth it")
            elsewhere(lambda: log.error("yours"))
            logging.getLogger("my.app").warning("of the app")
        assert lines == ["WARNING torch_tensorrt.some.part: mine 1"]
        assert [record.getMessage() for record in caplog.records] == ["yours", "of the app"]

    def test_loggers_with_handlers_of_their_own(self, capfd: pytest.CaptureFixture[str]) -> None:
        """They do not hand on what they are told: a lowering pass that fails prints nothing (``fft2``)."""

        class Spectrum(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.fft.fft2(x).real * 2

        before = logging.getLogger("torch._subclasses.fake_tensor").handlers[:]
        with quiet() as lines:
            logging.getLogger("torch._subclasses.fake_tensor").error("mine")
        assert lines == ["ERROR torch._subclasses.fake_tensor: mine"]
        compiled = compile_evaluated(torch.export.export(Spectrum(), (torch.randn(2, 8, 8),), strict=False))
        assert "aten._fft_c2c.default" in compiled.compiled.fallback_ops
        assert capfd.readouterr().err == ""
        assert logging.getLogger("torch._subclasses.fake_tensor").handlers == before

    def test_standard_error(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """What this thread prints to stderr is kept for the log, what others print appears."""
        heard: list[str] = []
        with forward_lines(heard.append), stderr_kept():
            print("mine", file=sys.stderr)
            elsewhere(lambda: print("yours", file=sys.stderr, flush=True))
        assert heard == ["mine"]
        assert capsys.readouterr().err == "yours\n"


class TestLog:
    """Beside the artifact, when it failed."""

    def test_failure(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """torch.export's graph stands in the log that the message names; the next success deletes it."""
        path = tmp_path / "m.windows.ep"
        with pytest.raises(CaptureError, match=r"m\.windows\.log has what PyTorch and TensorRT said"):
            export_module(Untraceable(), None, path, datamodule=Data())
        assert capfd.readouterr().err == ""
        assert "def forward" in (tmp_path / "m.windows.log").read_text()
        export_module(Regression(), None, path, datamodule=Data())
        assert {p.name for p in tmp_path.iterdir()} == {"m.windows.ep", "m.windows.json"}

    def test_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the environment variable the log of a success is there as well."""
        monkeypatch.setenv(KEEP_LOG, "1")
        with log_beside(ArtifactPaths.of(tmp_path / "m.ep")):
            record_line("all is well")
        assert (tmp_path / "m.log").read_text() == "all is well\n"

    def test_nothing_said(self, tmp_path: Path) -> None:
        """A failure without noise has no log, and its message names none."""
        with pytest.raises(CompileError, match=r"^no$"), log_beside(ArtifactPaths.of(tmp_path / "m.ep")):
            raise CompileError("no")
        assert not list(tmp_path.iterdir())

    def test_cannot_be_written(self, tmp_path: Path) -> None:
        """Where the log cannot be written the failure is itself."""
        with pytest.raises(CompileError, match=r"^no$"), log_beside(ArtifactPaths.of(tmp_path / "gone" / "m.ep")):
            record_line("something")
            raise CompileError("no")

    def test_parts(self, tmp_path: Path) -> None:
        """A part's noise is in the log of the whole, and a log that somebody keeps is not written twice."""
        whole, part = ArtifactPaths.of(tmp_path / "whole.ep"), ArtifactPaths.of(tmp_path / "part.ep")
        with pytest.raises(ArtifactError), log_beside(whole), log_beside(part):
            record_line("something")
            raise ArtifactError("x", ["is wrong"])
        assert [p.name for p in tmp_path.iterdir()] == [whole.log.name]
        heard: list[str] = []
        with pytest.raises(CompileError, match=r"^no$"), forward_lines(heard.append), log_beside(part):
            record_line("something")
            raise CompileError("no")
        assert heard == ["something"]
        assert not part.log.exists()
