"""The ``lightning-trt-windows`` command: the only place that prints and chooses exit codes.

Codes: 0 done, 1 a fault in this package or in the user's code, 2 wrong usage, and those of
:mod:`lightning_trt_windows.errors`.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import inspect as python_inspect
import io
import json
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from lightning_trt_windows.errors import (
    ArtifactError,
    ConfigurationError,
    EnvironmentMismatchError,
    LightningTrtError,
)
from lightning_trt_windows.inspection import inspect
from lightning_trt_windows.settings import BackendName, ExportSettings, Precision
from lightning_trt_windows.shapes import DimRange, InputSpec

__all__ = ["main", "parse_input"]

_INPUT_HELP = "NAME=DTYPE[SIZES], such as x=float32[1..8..32,3,224,224]"
_AXIS = re.compile(r"(?:(?P<name>[A-Za-z_]\w*):)?(?P<min>\d+)\.\.(?P<opt>\d+)\.\.(?P<max>\d+)(?:%(?P<multiple>\d+))?")
_EPILOG = """\
inputs:
  x=float32[3,224,224]             sizes that never change
  x=float32[1..8..32,3,224,224]    batches of 1 to 32, tuned for 8
  x=float32[batch:1..8..32,10]     a named dimension; dimensions of one name are always equal
  x=float32[1,3,64..224..512%32]   64 to 512 in steps of 32
  batch.image=uint8[1..8..32,3]    an entry of a dict argument
What is not given is taken from the datamodule, then from the module's example_input_array.
Quote the argument: brackets and dots mean something to most shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        The exit code. An exception that is not ours passes through, with its traceback.
    """
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console's code page may lack the letters of a file name
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = arguments.run(arguments)
    except LightningTrtError as error:
        if arguments.traceback:
            traceback.print_exception(error)
        else:
            print(_message(error), file=sys.stderr)
        return error.exit_code
    return code


def parse_input(text: str) -> tuple[str, InputSpec]:
    """Name and spec of ``x=float32[1..8..32,3,224,224]``.

    Raises:
        ConfigurationError: The text is something else.
    """
    found = re.fullmatch(r"\s*([A-Za-z_][\w.]*)\s*=\s*(\w+)\s*\[(.*)\]\s*", text)
    if not found:
        raise ConfigurationError(f"--input wants {_INPUT_HELP}; got {text!r}")
    name, dtype, sizes = found.groups()
    try:
        shape = tuple(_axis(size.strip()) for size in sizes.split(",")) if sizes.strip() else ()
        return name, InputSpec(shape, dtype)
    except ConfigurationError as error:
        raise ConfigurationError(f"--input {text}: {error}") from error


def _axis(text: str) -> DimRange | int:
    if re.fullmatch(r"\d{1,18}", text):
        return int(text)
    found = _AXIS.fullmatch(text)
    if not found or max(map(len, found.group("min", "opt", "max"))) > 18:
        raise ConfigurationError(f"a size is a number or MIN..OPT..MAX, got {text!r}")
    low, opt, high = (int(bound) for bound in found.group("min", "opt", "max"))
    return DimRange(low, opt, high, found["name"], int(found["multiple"] or 1))


def _input_tree(texts: Iterable[str]) -> dict[str, Any] | None:
    """Inputs by argument; dots make dicts. ``None`` where none are given."""
    tree: dict[str, Any] = {}
    for text in texts:
        name, spec = parse_input(text)
        *parents, leaf = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise ConfigurationError(f"--input {text}: {parent!r} is given as a tensor as well")
        if leaf in branch:
            raise ConfigurationError(f"--input {text}: {name!r} is given twice")
        if not all(part.isidentifier() for part in (*parents, leaf)):
            raise ConfigurationError(
                f"--input {text}: {name!r} does not name an entry of a dict; for lists and tuples call "
                "lightning_trt_windows.export_checkpoint from Python"
            )
        branch[leaf] = spec
    return tree or None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-trt-windows", description="TensorRT engines for Windows from PyTorch Lightning checkpoints."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="on failure show where in the code, and all causes")
    _add_export(commands, common)
    _add_inspect(commands, common)
    _add_doctor(commands, common)
    return parser


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that reads files."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("lightning-trt-windows"))
        parser.exit()


def _add_export(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "export",
        parents=[common],
        help="make an artifact of a checkpoint",
        description="Make NAME.windows.ep and NAME.windows.json of the checkpoint NAME.ckpt.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    defaults = ExportSettings()
    add("checkpoint", metavar="CKPT", help="checkpoint file that Lightning wrote")
    add("--module", required=True, metavar="CLASS", help="LightningModule: pkg.mod:Class or path/to/file.py:Class")
    add(
        "--datamodule",
        metavar="CLASS",
        help="LightningDataModule to take shapes from; class, or function returning one",
    )
    add("--input", action="append", default=[], metavar="SPEC", help=f"{_INPUT_HELP}; once for each input, see below")
    add("--output", metavar="DIR", help="where the artifact goes (default: beside the checkpoint)")
    add("--backend", choices=get_args(BackendName), default=defaults.backend, help="default: %(default)s")
    add("--precision", choices=get_args(Precision), help="compute in this precision (default: as the weights are)")
    add("--compute-capability", nargs="+", action="extend", default=[], metavar="8.6", help="build for these GPUs only")
    add("--min-block-size", type=int, default=defaults.min_block_size, metavar="N", help="operators worth an engine")
    add("--trust-checkpoint", action="store_true", help="let the checkpoint run code while it is read")
    parser.set_defaults(run=_export)


def _add_inspect(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "inspect",
        parents=[common],
        help="say what an artifact is and whether it is whole",
        description="Say what an artifact is and whether it is whole. Needs neither PyTorch nor a GPU, runs nothing.",
    )
    parser.add_argument("file", metavar="FILE", help="the .windows.ep or the .windows.json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="read all of the .ep and compare it with its hashes")
    parser.set_defaults(run=_inspect)


def _add_doctor(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "doctor",
        parents=[common],
        help="say whether exports can work on this machine",
        description="Say whether exports can work on this machine: versions, backend, disk, and one small export.",
    )
    parser.add_argument("--directory", default=".", metavar="DIR", help="where artifacts will be written (default: .)")
    parser.add_argument("--backend", choices=get_args(BackendName), default="auto", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from lightning_trt_windows.doctor import examine

    findings = examine(arguments.directory, arguments.backend)
    if arguments.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        print(*findings, sep="\n")
    return 0 if all(finding.ok for finding in findings) else EnvironmentMismatchError.exit_code


def _export(arguments: argparse.Namespace) -> int:
    inputs = _input_tree(arguments.input)
    module = _imported(arguments.module, "--module")
    if not isinstance(module, type):
        raise ConfigurationError(f"--module {arguments.module} is not a class but {type(module).__name__}")
    datamodule = _imported(arguments.datamodule, "--datamodule") if arguments.datamodule else None
    if python_inspect.isfunction(datamodule):
        datamodule = datamodule()
    # here and not above: this brings torch, which takes seconds
    from lightning_trt_windows.export import export_checkpoint

    artifact = export_checkpoint(
        arguments.checkpoint,
        module,
        datamodule=datamodule,
        inputs=inputs,
        output=arguments.output,
        trust_checkpoint=arguments.trust_checkpoint,
        backend=arguments.backend,
        precision=arguments.precision,
        compute_capabilities=tuple(arguments.compute_capability),
        min_block_size=arguments.min_block_size,
    )
    print(f"wrote {artifact}\n\n{inspect(artifact.path)}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    inspection = inspect(arguments.file, check=arguments.check)
    print(json.dumps(inspection.to_dict(), indent=2, ensure_ascii=False) if arguments.json else inspection)
    return ArtifactError.exit_code if inspection.issues else 0


def _imported(path: str, option: str) -> Any:
    """Import ``pkg.mod:Name`` or ``path/to/file.py:Name``."""
    place, colon, name = path.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise ConfigurationError(f"{option} wants pkg.mod:Class or path/to/file.py:Class, got {path!r}")
    module = _from_file(Path(place), option) if place.endswith(".py") else _from_name(place, option)
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, vars(module), n=1)
        raise ConfigurationError(
            f"{option}: {place} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return getattr(module, name)


def _from_name(name: str, option: str) -> ModuleType:
    _look_in(Path.cwd())
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"{option}: cannot import {name} (looked in {Path.cwd()} first)") from error


def _from_file(file: Path, option: str) -> ModuleType:
    if not file.is_file():
        raise ConfigurationError(f"{option}: there is no file {file}")
    _look_in(Path.cwd())
    _look_in(file.parent.resolve())
    known = sys.modules.get(file.stem)
    if known is not None and getattr(known, "__file__", None) == str(file.resolve()):
        return known
    # under its own name, by which its neighbours import it; unless that would replace a module in use
    name = file.stem if known is None else f"{file.stem}_"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None and spec.loader is not None  # a .py always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]  # as the import statement does
        if isinstance(error, ImportError):
            raise ConfigurationError(f"{option}: cannot import {file}") from error
        raise
    return module


def _look_in(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _message(error: BaseException) -> str:
    """The error, and the first line of what caused it where it does not say so itself."""
    text = f"error: {error}"
    cause = error.__cause__
    first = next(iter(str(cause).strip().splitlines()), "")
    # what the operating system said stands in our message already
    if cause is not None and not isinstance(cause, OSError) and (not first or first not in text):
        text += f"\n  caused by {type(cause).__name__}: {first}\n  --traceback shows where"
    return text
