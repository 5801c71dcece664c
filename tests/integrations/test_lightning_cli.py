"""WindowsExport on the command line and in YAML, in the LightningCLI of both Lightnings."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.both_lightnings import classes
from support.paths import MODELS, REPOSITORY

import lightning_trt_windows
from lightning_trt_windows import DimRange, RangeOptions, WindowsExport, WindowsExportCLI, add_windows_export
from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.integrations.lightning_flag import NoWindowsExport, WindowsExportByFlag, WindowsExportOptions
from lightning_trt_windows.training import callback

OfEitherLightning = callback.WindowsExport
"""What every WindowsExport is, whichever Lightning was imported first."""
BOTH = pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])

EVERYTHING = """
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: {class_path: CSVLogger, init_args: {save_dir: RUN, version: 0}}
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {dirpath: RUN, filename: a}
    - class_path: WindowsExport
      init_args:
        when: train_end
        inputs:
          x:
            shape: [{min: 1, opt: 8, max: 32, name: batch}, 4]
            dtype: float32
            values: [0, 1]
        ranges: {margin: 0.25, caps: {batch: 64}, dynamic: {x.0: {min: 1, opt: 8, max: 16}}}
        executor: inline
        on_error: raise
        precision: "16"
        compile_options: {torch_executed_ops: [torch.ops.aten.relu.default]}
        compute_capabilities: ["8.6", "8.9"]
        extra: {classes: [cat, dog], nested: {deep: 1}}
        build_deadline: 60
        workers: 2
"""


@pytest.fixture(autouse=True)
def no_arguments_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightningCLI reads the command line unless it is given another."""
    monkeypatch.setattr(sys, "argv", ["train.py"])


def cli(name: str, *arguments: str, base: Any = None, run: bool = False) -> Any:
    """A LightningCLI with ``arguments``, made and not run."""
    _, model, data = classes(name)
    base = base or importlib.import_module(f"{name}.cli").LightningCLI
    return base(model, data, run=run, args=list(arguments), seed_everything_default=1)


def with_flag(name: str, *arguments: str, run: bool = False) -> Any:
    """One whose author has called :func:`add_windows_export`."""

    class FlagCLI(importlib.import_module(f"{name}.cli").LightningCLI):  # type: ignore[misc]
        def add_arguments_to_parser(self, parser: Any) -> None:
            add_windows_export(parser)

    return cli(name, *arguments, base=FlagCLI, run=run)


def export_of(made: Any) -> WindowsExport:
    """The one that its Trainer has."""
    (export,) = (callback for callback in made.trainer.callbacks if isinstance(callback, OfEitherLightning))
    return export


def described(export: WindowsExport) -> dict[str, Any]:
    """Everything that an export was told."""
    return vars(export.options) | {"executor": str(export.options.executor)}


class TestAmongTheCallbacks:
    """``trainer.callbacks``, in any LightningCLI."""

    @BOTH
    @pytest.mark.parametrize("path", ["WindowsExport", "lightning_trt_windows.WindowsExport"])
    def test_on_the_command_line(self, name: str, path: str) -> None:
        """Short name and path, of either Lightning, as of a script that has imported the class."""
        importlib.import_module(name)
        assert lightning_trt_windows.WindowsExport is not None
        export = export_of(cli(name, f"--trainer.callbacks+={path}", "--trainer.callbacks.when=checkpoint"))
        assert export.when == "checkpoint"
        assert isinstance(export, importlib.import_module(name).Callback)

    def test_everything_in_yaml_runs_and_is_saved(self, tmp_path: Path) -> None:
        """Every kind of argument out of YAML; the configuration that the run saved gives the same callback again."""
        config = tmp_path / "config.yaml"
        config.write_text(EVERYTHING.replace("RUN", str(tmp_path / "run")), encoding="utf-8")
        made = cli("lightning.pytorch", f"--config={config}")
        made.trainer.fit(made.model, made.datamodule)
        export = export_of(made)
        manifest = export.artifacts[0].manifest
        assert (manifest.inputs[0].max, manifest.inputs[0].source.kind) == ((32, 4), "argument")
        assert manifest.extra == {"classes": ["cat", "dog"], "nested": {"deep": 1}}
        assert manifest.backend.compute_capabilities == ("8.6", "8.9")
        saved = next((tmp_path / "run").rglob("config.yaml"))
        again = export_of(cli("lightning.pytorch", f"--config={saved}"))
        assert described(again) == described(export)
        assert again.options.ranges == RangeOptions(
            margin=0.25, caps={"batch": 64}, dynamic={"x.0": DimRange(1, 8, 16)}
        )

    def test_print_config_is_a_config(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What ``--print_config`` prints is read again and gives the same callback."""
        arguments = ("--trainer.callbacks+=WindowsExport", "--trainer.callbacks.precision=bf16")
        with pytest.raises(SystemExit):
            cli("lightning.pytorch", *arguments, "--print_config")
        config = tmp_path / "printed.yaml"
        config.write_text(capsys.readouterr().out, encoding="utf-8")
        again = export_of(cli("lightning.pytorch", f"--config={config}"))
        assert described(again) == described(export_of(cli("lightning.pytorch", *arguments)))
        assert again.settings.precision == "bf16"

    def test_an_executor_of_the_user(self, tmp_path: Path) -> None:
        """An executor is a class with arguments, as everything else is."""
        config = tmp_path / "config.yaml"
        config.write_text(
            "trainer: {callbacks: [{class_path: WindowsExport, init_args: {executor: "
            "{class_path: concurrent.futures.ProcessPoolExecutor, init_args: {max_workers: 1}}}}]}",
            encoding="utf-8",
        )
        export = export_of(cli("lightning.pytorch", f"--config={config}"))
        assert isinstance(export.options.executor, ProcessPoolExecutor)

    @pytest.mark.parametrize("argument", ["--trainer.callbacks.precision=8", "--trainer.callbacks.precison=16"])
    def test_what_it_does_not_take(self, argument: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A wrong value and a wrong name are usage errors that name them."""
        with pytest.raises(SystemExit):
            cli("lightning.pytorch", "--trainer.callbacks+=WindowsExport", argument)
        assert argument.rpartition(".")[2].partition("=")[0] in capsys.readouterr().err


class TestFlag:
    """``--windows_export``: true, false, and a group."""

    @BOTH
    def test_off_by_default_and_when_false(self, name: str) -> None:
        """Nothing is exported, and what stands for it takes itself off the Trainer."""
        for arguments in ([], ["--windows_export=false"]):
            made = with_flag(name, *arguments)
            (off,) = (callback for callback in made.trainer.callbacks if isinstance(callback, NoWindowsExport))
            assert not any(isinstance(callback, WindowsExport) for callback in made.trainer.callbacks)
            off.setup(made.trainer, None, "fit")
            assert off not in made.trainer.callbacks

    @BOTH
    def test_on(self, name: str) -> None:
        """True: the defaults."""
        export = export_of(with_flag(name, "--windows_export=true"))
        assert described(export) == described(WindowsExport())
        assert isinstance(export, importlib.import_module(name).Callback)

    @BOTH
    def test_group(self, name: str) -> None:
        """An option switches it on; later ones are laid over earlier ones."""
        export = export_of(with_flag(name, "--windows_export.precision=16", "--windows_export.when=checkpoint"))
        assert described(export) == described(WindowsExport(when="checkpoint", precision="16"))

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("windows_export: true", WindowsExport()),
            ('windows_export: {precision: "16"}', WindowsExport(precision="16")),
            (
                "windows_export: {ranges: {caps: {batch: 8}}, compute_capabilities: ['8.6'], extra: {a: 1}}",
                WindowsExport(ranges=RangeOptions(caps={"batch": 8}), compute_capabilities=("8.6",), extra={"a": 1}),
            ),
        ],
        ids=["true", "group", "nested"],
    )
    def test_in_yaml_and_saved(self, text: str, expected: WindowsExport, tmp_path: Path) -> None:
        """Both forms in YAML; the configuration that would be saved says the same, and no more than was asked for."""
        config = tmp_path / "config.yaml"
        config.write_text(text, encoding="utf-8")
        made = with_flag("lightning.pytorch", f"--config={config}")
        assert described(export_of(made)) == described(expected)
        made.parser.save(made.config, tmp_path / "saved.yaml")
        assert "windows_export_callback" not in (tmp_path / "saved.yaml").read_text(encoding="utf-8")
        again = with_flag("lightning.pytorch", f"--config={tmp_path / 'saved.yaml'}")
        assert described(export_of(again)) == described(expected)

    def test_the_command_line_goes_over_yaml(self, tmp_path: Path) -> None:
        """An option is laid over the file's; false switches the file's off."""
        config = tmp_path / "config.yaml"
        config.write_text('windows_export: {precision: "16", when: checkpoint}', encoding="utf-8")
        export = export_of(with_flag("lightning.pytorch", f"--config={config}", "--windows_export.precision=bf16"))
        assert (export.settings.precision, export.when) == ("bf16", "checkpoint")
        off = with_flag("lightning.pytorch", f"--config={config}", "--windows_export=false")
        assert not any(isinstance(callback, WindowsExport) for callback in off.trainer.callbacks)

    def test_in_the_cli_of_this_package(self) -> None:
        """WindowsExportCLI has it without more, also where the user's own arguments are added."""

        class Own(WindowsExportCLI):
            def add_arguments_to_parser(self, parser: Any) -> None:
                parser.add_argument("--mine", type=int, default=3)

        made = cli("lightning.pytorch", "--windows_export=true", "--mine=4", base=Own)
        assert described(export_of(made)) == described(WindowsExport())
        assert made.config.mine == 4

    def test_help_has_every_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Each argument of WindowsExport with its text, beside the flag."""
        with pytest.raises(SystemExit):
            with_flag("lightning.pytorch", "--help")
        shown = " ".join(capsys.readouterr().out.split())
        for name in WindowsExportOptions.__dataclass_fields__:
            assert f"--windows_export.{name} {name.upper()} " in shown
        assert "--windows_export.build_deadline BUILD_DEADLINE Seconds that one build may take" in shown

    def test_a_wrong_option_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With what was given."""
        with pytest.raises(SystemExit):
            with_flag("lightning.pytorch", "--windows_export.precison=16")
        assert "precison" in capsys.readouterr().err

    def test_an_old_jsonargparse_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where links do not make objects, the flag would be silently off."""
        monkeypatch.setattr("lightning_trt_windows.integrations.lightning_flag.version", lambda name: "4.40.0")
        with pytest.raises(EnvironmentMismatchError, match=r"needs jsonargparse 4\.46 or newer, found 4\.40\.0"):
            with_flag("lightning.pytorch")


def test_the_flag_makes_room_for_a_configured_one() -> None:
    """``--windows_export=true`` beside one among trainer.callbacks: that one, with its settings."""
    made = with_flag("lightning.pytorch", "--windows_export=true", "--trainer.callbacks+=WindowsExport")
    by_flag = next(callback for callback in made.trainer.callbacks if isinstance(callback, WindowsExportByFlag))
    by_flag.setup(made.trainer, made.model, "validate")
    assert not isinstance(export_of(made), WindowsExportByFlag)


PAGE = (REPOSITORY / "docs" / "lightning-cli.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python train\.py (fit .+)$", PAGE, flags=re.M)
FILES = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.S | re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_are_taken(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a CLI with the flag, down to the configuration that it would run with; config.yaml is the page's own."""
    assert len(COMMANDS) == 4
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(FILES[-1], encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        with_flag("lightning.pytorch", *command.split(), "--print_config", run=True)
    assert end.value.code in (None, 0)
    assert "windows" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("text", FILES)
def test_the_files_of_the_page_are_taken(text: str, tmp_path: Path) -> None:
    """Each gives the Trainer an export."""
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert export_of(with_flag("lightning.pytorch", f"--config={tmp_path / 'config.yaml'}")).settings.precision == "16"


SCRIPT = """
from lightning.pytorch.cli import LightningCLI
from lightning_models import Data, Regression
LightningCLI(Regression, Data)
"""


def test_a_script_that_knows_nothing_of_it(tmp_path: Path) -> None:
    """The path of the class is enough in any LightningCLI: a real command line leaves artifact and configuration."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    shutil.copy(MODELS, tmp_path)
    trainer = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    export = ["--trainer.callbacks+=lightning_trt_windows.WindowsExport", "--trainer.callbacks.on_error=raise"]
    command = [sys.executable, script, "fit", *trainer, *export]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.rglob("*.windows.ep")] == ["epoch=0-step=5.windows.ep"]
    assert "on_error: raise" in (tmp_path / "config.yaml").read_text(encoding="utf-8")
