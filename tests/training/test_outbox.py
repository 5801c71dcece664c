"""What a copy of the callback exports is in the user's own, also where the copy is in another process."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from support.lightning_models import Data, Regression, trainer
from support.paths import TESTS

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.integrations.yaml_config import export_described_in


class Mine(WindowsExport):
    """A project's own, with an argument and an attribute of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(when="checkpoint", precision="16")
        self.more = [name]


class Copies(Callback):
    """Copies another callback at every moment, as projects do that keep callbacks among hyperparameters."""

    def __init__(self, export: WindowsExport) -> None:
        self.export = export
        self.copies: list[WindowsExport] = []

    def make(self, *args: Any, **kwargs: Any) -> None:
        """Both ways."""
        self.copies += [copy.deepcopy(self.export), pickle.loads(pickle.dumps(self.export))]

    setup = on_fit_start = on_train_batch_end = on_save_checkpoint = on_train_end = on_fit_end = teardown = make


def test_copied_at_any_time(tmp_path: Path) -> None:
    """Before, during and after fit: the settings travel, and nothing of the run."""
    export = WindowsExport(precision="16", extra={"a": 1})
    copies = Copies(export)
    copies.make()
    run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export, copies, max_epochs=1)
    run.fit(Regression(), datamodule=Data())
    assert len(copies.copies) > 10
    assert all(made.options == export.options for made in copies.copies)
    assert all(made._session is None for made in copies.copies)
    assert len(export.artifacts) == 1


def test_a_copy_that_trains(tmp_path: Path) -> None:
    """Some projects (darts, neuralforecast) train with a deep copy: the user's object has its artifacts."""
    export = WindowsExport()
    trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), copy.deepcopy(export), max_epochs=1).fit(
        Regression(), datamodule=Data()
    )
    assert [artifact.path.name for artifact in export.artifacts] == ["a.windows.ep"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["deep", "pickle"])
def test_classes_and_attributes_of_others(copied: Any) -> None:
    """A class that derives from ours stays what it is, and so does what switched it on."""
    made = copied(Mine("a"))
    assert isinstance(made, Mine)
    assert (made.name, made.more, made.when, made.settings.precision) == ("a", ["a"], "checkpoint", "16")
    assert copied(export_described_in(None, "LIGHTNING_TRT_WINDOWS")).default_of == "LIGHTNING_TRT_WINDOWS"


def test_word_from_a_child(tmp_path: Path) -> None:
    """A process that was forked, as in notebooks, trains on a copy of this one's memory."""
    export = WindowsExport()
    child = os.fork()
    if child == 0:
        export._events._listeners.append(export._outbox)
        export._events.on_failure(tmp_path / "a.ckpt", CaptureError("of the child"))
        os._exit(0)
    os.waitpid(child, 0)
    (failure,) = export.failures
    assert (failure.checkpoint, str(failure.error)) == (tmp_path / "a.ckpt", "of the child")
    assert isinstance(failure.error, CaptureError)
    assert export.failures == [failure], "it is taken once"


def test_a_copy_in_a_stranger_leaves_no_file(tmp_path: Path) -> None:
    """Read from a file by a process that this one has not started: nobody would take the word."""
    (tmp_path / "export.pickle").write_bytes(pickle.dumps(WindowsExport()))
    code = (
        "import os, pickle, sys\n"
        "if os.fork() == 0:\n"
        f"    export = pickle.load(open({str(tmp_path / 'export.pickle')!r}, 'rb'))\n"
        "    export._outbox.on_finished()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list((tmp_path / "temporary").glob("*.json")) == []


SPAWNED = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer
from lightning_trt_windows import WindowsExport
if __name__ == "__main__":
    export = WindowsExport()
    saver = ModelCheckpoint({directory!r}, filename="a")
    run = trainer({directory!r}, saver, export, max_epochs=1, devices=2, strategy={strategy!r})
    run.fit(Regression(), datamodule=Data())
    print(*[artifact.path for artifact in export.artifacts], export.failures)
"""


@pytest.mark.processes
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_spawned(tmp_path: Path, strategy: str) -> None:
    """Two processes train, the one that started them has the artifacts."""
    script = tmp_path / "train.py"
    script.write_text(SPAWNED.format(tests=str(TESTS), directory=str(tmp_path / "run"), strategy=strategy))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'run' / 'a.windows.ep'} []" in done.stdout
    check_artifact(tmp_path / "run" / "a.windows.json")
