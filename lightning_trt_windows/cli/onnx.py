"""The command ``onnx``: an artifact as a model for ONNX Runtime and Windows ML."""

from __future__ import annotations

import argparse
from typing import Any

from lightning_trt_windows.cli.console import print_json

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "onnx",
        parents=[common],
        help="write an artifact as a model for ONNX Runtime and Windows ML",
        description="Write NAME.windows.onnx and the engines that it names. ONNX Runtime runs it with the TensorRT-RTX "
        "execution provider, and what the artifact leaves to PyTorch with its own CPU provider. Needs no GPU, and "
        "PyTorch only where something is left to it.",
    )
    add = parser.add_argument
    add("artifact", metavar="FILE", help="an artifact, NAME.windows.ep")
    add("--out", metavar="DIR", help="where the files go (default: beside the artifact)")
    add("--embed", action="store_true", help="put the engine into the model, which must stay below 2 GB")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_onnx)


def _onnx(arguments: argparse.Namespace) -> int:
    from lightning_trt_windows.onnx.model import write_onnx

    model = write_onnx(arguments.artifact, arguments.out, embed=arguments.embed)
    if arguments.json:
        print_json({"file": model.path.name, "engines": [path.name for path in model.engines]})
    else:
        print(f"wrote {model}")
    return 0
