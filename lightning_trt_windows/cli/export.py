"""The command ``export``: artifacts of checkpoints, one or hundreds."""

from __future__ import annotations

import argparse
import inspect as python_inspect
from typing import Any, get_args

from lightning_trt_windows.artifact.inspection import inspect
from lightning_trt_windows.builds.executors.names import EXECUTORS, check_executor
from lightning_trt_windows.cli.exported import display, export_several
from lightning_trt_windows.cli.imported import imported
from lightning_trt_windows.cli.inputs import EPILOG, INPUT_HELP, input_tree, json_object
from lightning_trt_windows.cli.ranges import EPILOG as RANGES_EPILOG
from lightning_trt_windows.cli.ranges import add_ranges, range_options
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.settings import BackendName, ExportSettings, IOPrecision, PrecisionName, Recurrent

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "export",
        parents=[common],
        help="make artifacts of checkpoints",
        description="Make NAME.windows.ep and NAME.windows.json of each checkpoint NAME.ckpt.",
        epilog=f"{EPILOG}\n\n{RANGES_EPILOG}\n\n{_SEVERAL}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    defaults = ExportSettings()
    add("checkpoint", nargs="+", metavar="CKPT", help="checkpoint that Lightning wrote, directory, or quoted pattern")
    add("--module", required=True, metavar="CLASS", help="LightningModule: pkg.mod:Class or path/to/file.py:Class")
    add(
        "--datamodule",
        metavar="CLASS",
        help="LightningDataModule to take shapes from; class, or function returning one",
    )
    add("--input", action="append", default=[], metavar="SPEC", help=f"{INPUT_HELP}; once for each input, see below")
    add("--method", default="forward", metavar="NAME", help="method or submodule to export (default: %(default)s)")
    add("--extra", metavar="FILE", help="JSON object for the manifest, such as class names, mean and std")
    add("--output", metavar="DIR", help="where the artifact goes (default: beside the checkpoint)")
    add(
        "--formats",
        default=",".join(defaults.formats),
        metavar="ep,onnx",
        help="what is written: ep, or ep,onnx for a model for ONNX Runtime beside it (default: %(default)s)",
    )
    add("--backend", choices=get_args(BackendName), default=defaults.backend, help="default: %(default)s")
    add(
        "--precision",
        choices=[name for name in get_args(PrecisionName) if isinstance(name, str)],
        metavar="{32,16,bf16}",
        help="compute in this precision (default: as the weights are); the Trainer's names are taken too, as 16-mixed",
    )
    add(
        "--io-precision",
        choices=get_args(IOPrecision),
        default=defaults.io_precision,
        help="types of floating-point inputs and outputs: the module's, or that of --precision (default: %(default)s)",
    )
    add(
        "--recurrent",
        choices=get_args(Recurrent),
        default=defaults.recurrent,
        help="where LSTM, GRU and RNN run: in the engine, in PyTorch, or where they are faster (default: %(default)s)",
    )
    add(
        "--compute-capability",
        type=lambda text: [part.strip() for part in text.split(",")],
        action="extend",
        default=[],
        metavar="8.6,8.9",
        help="build for these GPUs only; may be repeated",
    )
    add("--tensorrt-rtx", metavar="1.7", help="refuse to build with another version of TensorRT-RTX than this one")
    add(
        "--min-block-size",
        type=int,
        default=defaults.min_block_size,
        metavar="N",
        help="minimum number of operators in a TensorRT subgraph",
    )
    add(
        "--golden",
        action="store_true",
        help="record goldens (inputs, reference outputs) beside the artifact, for verify",
    )
    add(
        "--check",
        choices=("auto", "full", "off"),
        default="auto",
        help="compare what engines will compute with the module before they are built, without a GPU (default: auto)",
    )
    add(
        "--verify",
        choices=("auto", "always"),
        help="verify the written artifact: auto if there is a GPU, always fails without one",
    )
    add("--trust-checkpoint", action="store_true", help="let the checkpoint run code while it is read")
    add("--executor", metavar="WHERE", help="where several are built, see below (default: process)")
    add("--workers", type=int, metavar="N", help="builds at a time with --executor process (default: as cores allow)")
    add("--json", action="store_true", help="print JSON: what was made, and what failed")
    add("--quiet", action="store_true", help="do not show what is being done")
    add_ranges(parser)
    parser.set_defaults(run=_export)


_SEVERAL = """\
several checkpoints, directories, patterns such as 'runs/**/*.ckpt':
  Those that differ in nothing but weights are captured once. What is there already is left as it is. One that fails
  does not stop the others; the exit code is that of the first failure. --executor says where engines are built:
"""
_SEVERAL += "\n".join(f"  {name:18}{meaning}" for name, meaning in EXECUTORS.items())


def _export(arguments: argparse.Namespace) -> int:
    if arguments.executor:
        check_executor(arguments.executor)
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigurationError(f"--workers must be 1 or more, got {arguments.workers}")
    inputs, ranges, extra = input_tree(arguments.input), range_options(arguments), json_object(arguments.extra)
    module = imported(arguments.module, "--module")
    if not isinstance(module, type):
        raise ConfigurationError(f"--module {arguments.module} is not a class but {type(module).__name__}")
    datamodule = imported(arguments.datamodule, "--datamodule") if arguments.datamodule else None
    if python_inspect.isfunction(datamodule):
        datamodule = datamodule()
    # here and not above: these bring torch, which takes seconds
    from lightning_trt_windows.builds.options import BuildOptions
    from lightning_trt_windows.builds.places import checkpoints_in
    from lightning_trt_windows.export.checkpoint_source import CheckpointSource
    from lightning_trt_windows.export.pipeline import export_from
    from lightning_trt_windows.progress.display import Progress

    settings = ExportSettings(
        formats=tuple(part.strip() for part in arguments.formats.split(",")),
        backend=arguments.backend,
        precision=arguments.precision,
        io_precision=arguments.io_precision,
        recurrent=arguments.recurrent,
        compute_capabilities=tuple(arguments.compute_capability),
        tensorrt_rtx=arguments.tensorrt_rtx,
        min_block_size=arguments.min_block_size,
        golden=arguments.golden,
        check=False if arguments.check == "off" else arguments.check,
        verify="auto" if arguments.verify == "auto" else arguments.verify is not None,
    )
    options = BuildOptions(
        settings=settings,
        inputs=inputs,
        ranges=ranges,
        method=arguments.method,
        extra=extra,
        executor=arguments.executor or "process",
        workers=arguments.workers,
    )
    source = CheckpointSource(module, datamodule, trusted=arguments.trust_checkpoint)
    places = checkpoints_in(arguments.checkpoint)
    progress = Progress(display(quiet=arguments.quiet, several=len(places) > 1))
    if len(arguments.checkpoint) == len(places) == 1 and not (arguments.executor or arguments.json):
        with progress.shown():
            artifact = export_from(source, str(places[0]), options, output=arguments.output)
        print(f"wrote {artifact}\n\n{inspect(artifact.path)}")
        return 0
    return export_several(arguments, source, options, progress)
