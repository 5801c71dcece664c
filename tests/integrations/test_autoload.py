"""LIGHTNING_TRT_WINDOWS: the callback in scripts that do not know it, through Lightning's entry points."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows import DimRange, RangeOptions, WindowsExport
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.integrations.autoload import VARIABLE

BOTH = pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])


def exports(made: Any) -> list[WindowsExport]:
    """Those that a Trainer has."""
    return [callback for callback in made.callbacks if isinstance(callback, WindowsExport)]


def plain(name: str = "lightning.pytorch", *callbacks: Any) -> Any:
    """A Trainer as a script makes it."""
    L = importlib.import_module(name)  # noqa: N806 -- its usual name
    return L.Trainer(logger=False, callbacks=list(callbacks), enable_model_summary=False)


@BOTH
@pytest.mark.parametrize("value", [None, "", "0", "false", "No", "off"])
def test_unset_it_adds_nothing(name: str, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it says no."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert exports(plain(name)) == []


@BOTH
@pytest.mark.parametrize("value", ["1", "true", "Yes"])
def test_set_it_adds_one_with_the_defaults(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is a callback of that Trainer's Lightning."""
    monkeypatch.setenv(VARIABLE, value)
    (export,) = exports(plain(name))
    assert export.settings == WindowsExport().settings
    assert isinstance(export, importlib.import_module(name).Callback)


def test_settings_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argument by name, nested ones too."""
    path = tmp_path / "windows.yaml"
    path.write_text(
        """
when: checkpoint
precision: "16"
inputs: {x: {shape: [[1, 8, 32], 4]}}
ranges: {caps: {batch: 64}, dynamic: {x.0: [1, 8, 16]}}
compute_capabilities: [8.6]
extra: {classes: [cat, dog]}
""",
        encoding="utf-8",
    )
    monkeypatch.setenv(VARIABLE, str(path))
    (export,) = exports(plain())
    assert (export.when, export.settings.precision) == ("checkpoint", "16")
    assert export.settings.compute_capabilities == ("8.6",)
    assert export.options.ranges == RangeOptions(caps={"batch": 64}, dynamic={"x.0": DimRange(1, 8, 16)})
    assert export.options.extra == {"classes": ["cat", "dog"]}


def test_an_empty_file_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with comments only, that is."""
    (tmp_path / "windows.yaml").write_text("# nothing yet\n", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "windows.yaml"))
    assert len(exports(plain())) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"LIGHTNING_TRT_WINDOWS=\S+windows\.yaml cannot be read: .*No such file.* It must be 1, or a YAML file"),
        ("when: [", r"windows\.yaml is not YAML: .*line 1"),
        ("- when", r"windows\.yaml must hold arguments of WindowsExport by name"),
        ("precison: '16'", r"WindowsExport has no argument 'precison'; did you mean 'precision'\?"),
        ("when: never", r"windows\.yaml: when must be one of 'train_end', 'checkpoint', got 'never'"),
        ("ranges: {cap: 3}", r"windows\.yaml: RangeOptions has no option 'cap'; did you mean 'caps'\?"),
        ("inputs: 3", r"windows\.yaml: "),
        ("\xff", r"windows\.yaml cannot be read: .*decode"),
    ],
    ids=["missing", "broken", "list", "unknown", "value", "nested", "type", "bytes"],
)
def test_a_file_that_will_not_do(
    content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error before the training, with file and reason."""
    path = tmp_path / "windows.yaml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        plain()


def test_a_script_s_own_goes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its settings; the other takes itself off before anything is exported."""
    monkeypatch.setenv(VARIABLE, "1")
    own = WindowsExport(when="checkpoint")
    run = trainer(tmp_path, own, fast_dev_run=True)
    assert len(exports(run)) == 2
    run.fit(Regression(), datamodule=Data())
    assert exports(run) == [own]


def test_two_that_were_configured_are_refused(tmp_path: Path) -> None:
    """They would write the same files."""
    run = trainer(tmp_path, WindowsExport(precision="16", on_error="raise"), WindowsExport(on_error="raise"))
    with pytest.raises(ConfigurationError, match="2 WindowsExport callbacks, which would write the same files"):
        run.fit(Regression(), datamodule=Data())


COST = """
import importlib.metadata, sys, time
import {name} as L
assert not any(name.startswith("lightning_trt_windows") for name in sys.modules)
L.Trainer(logger=False)
ours = [name for name in sys.modules if name.startswith("lightning_trt_windows")]
room = "lightning_trt_windows.integrations"
assert set(ours) <= {{"lightning_trt_windows", room, f"{{room}}.autoload"}}, ours
(entry,) = (e for e in importlib.metadata.entry_points(group="{name}.callbacks_factory") if "trt" in e.name)
start = time.perf_counter()
for _ in range(1000):
    entry.load()()
print((time.perf_counter() - start) / 1000)
"""


def test_unset_it_costs_a_trainer_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small modules of the standard library once, then microseconds, of the milliseconds of a Trainer."""
    monkeypatch.delenv(VARIABLE, raising=False)
    script = COST.format(name="lightning.pytorch")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1e-3
