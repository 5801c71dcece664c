"""``lightning`` and ``pytorch_lightning``: one callback, of the Trainer that uses it, whichever that is."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.both_lightnings import classes, fit
from support.paths import TESTS

from lightning_trt_windows import WindowsExport, export_checkpoint
from lightning_trt_windows.artifact.artifact import check_artifact

BOTH = pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])


@BOTH
def test_each_trainer_gets_its_artifacts(name: str, tmp_path: Path) -> None:
    """The callback in a Trainer of either: an artifact beside its checkpoint, which the function makes again."""
    export = WindowsExport(on_error="raise")
    trainer = fit(name, tmp_path, export)
    assert isinstance(export, importlib.import_module(name).Callback)
    (artifact,) = export.artifacts
    check_artifact(artifact)
    _, model, data = classes(name)
    (tmp_path / "later").mkdir()
    later = export_checkpoint(tmp_path / "a.ckpt", model, datamodule=data(), output=tmp_path / "later")
    assert later.manifest.inputs[0].max == artifact.manifest.inputs[0].max
    assert later.manifest.checkpoint == artifact.manifest.checkpoint
    assert export.state_key == "WindowsExport"
    assert torch.load(trainer.checkpoint_callback.best_model_path)["callbacks"]["WindowsExport"]["ranges"]


@BOTH
def test_a_single_callback_needs_no_list(name: str, tmp_path: Path) -> None:
    """``Trainer(callbacks=WindowsExport())``, where Lightning looks at the class itself."""
    L = importlib.import_module(name)  # noqa: N806
    export = WindowsExport()
    assert export in L.Trainer(callbacks=export, default_root_dir=tmp_path, logger=False).callbacks


def test_pickling_keeps_both_bases() -> None:
    """As strategies that spawn processes do it."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        assert isinstance(pickle.loads(pickle.dumps(WindowsExport())), importlib.import_module(name).Callback)


def alone(tmp_path: Path, source: str, *hidden: str) -> str:
    """What a script prints in a Python of its own, in which ``hidden`` are not installed."""
    lines = ["import sys", f"sys.path.insert(0, {str(TESTS)!r})", *(f"sys.modules[{name!r}] = None" for name in hidden)]
    script = tmp_path / "script.py"
    script.write_text("\n".join([*lines, source]), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ONE_ALONE = """
from pathlib import Path
from lightning_trt_windows import WindowsExport
export = WindowsExport(on_error="raise")
assert not any(sys.modules.get(name) for name in ("lightning", "pytorch_lightning", "lightning_fabric"))

import importlib
from support.both_lightnings import fit
fit("{name}", Path.cwd(), export, fast_dev_run={only_a_step})  # imports it, after the callback was made
assert isinstance(export, importlib.import_module("{name}").Callback)
print(*[artifact.path.name for artifact in export.artifacts])
"""


def test_pytorch_lightning_alone_is_enough(tmp_path: Path) -> None:
    """With the other not installed, and the callback made before its Lightning is imported: an artifact."""
    source = ONE_ALONE.format(name="pytorch_lightning", only_a_step=False)
    assert alone(tmp_path, source, "lightning", "lightning.pytorch") == "a.windows.ep\n"


def test_lightning_alone_is_enough(tmp_path: Path) -> None:
    """With the other not installed; nothing but what it needs is imported for the callback's sake."""
    source = ONE_ALONE.format(name="lightning.pytorch", only_a_step=True)
    assert alone(tmp_path, source, "pytorch_lightning", "lightning_fabric") == "\n"


NEITHER = """
try:
    from lightning_trt_windows import WindowsExport
except ImportError as error:
    print(error)
from lightning_trt_windows import DimRange               # all else is there
"""


def test_without_any_lightning_it_says_so(tmp_path: Path) -> None:
    """Where neither is installed, the import of the callback says what to do, as an ImportError."""
    assert "pip install lightning" in alone(tmp_path, NEITHER, "lightning", "pytorch_lightning")
