"""The ``lightning-trt-windows`` command: the only place that prints and chooses exit codes.

Codes: 0 done, 1 a fault in this package or in the user's code, 2 wrong usage, 141 where nobody reads the output to its
end, and those of ``lightning_trt_windows.errors``. Each command has a module here.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import stat
import sys
import traceback
from collections.abc import Sequence

from lightning_trt_windows.cli import bench, collect, doctor, export, index, inspect, onnx, sign, verify
from lightning_trt_windows.cli.console import survive_code_pages
from lightning_trt_windows.cli.parser import Parser
from lightning_trt_windows.errors import LightningTrtError

__all__ = ["CUT_OFF", "main", "make_parser"]

CUT_OFF = 141
"""Exit code where nobody reads the output to its end, as shells have it for other programs."""

_BROKEN_PIPE = {errno.EPIPE, errno.EINVAL} if sys.platform == "win32" else {errno.EPIPE}
"""What a write to a pipe fails with once nobody reads from it."""
_COMMANDS = (export, inspect, verify, bench, collect, onnx, sign, index, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        The exit code. An exception that is not ours passes through, with its traceback.
    """
    survive_code_pages()  # a file name may have letters that a console's lacks
    parser = make_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return 2
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except LightningTrtError as error:
        if arguments.traceback:
            traceback.print_exception(error)
        else:
            print(_message(error), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in _BROKEN_PIPE or not _nobody_reads():
            raise
        return CUT_OFF
    return code


def make_parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    parser = Parser(
        prog="lightning-trt-windows", description="TensorRT engines for Windows from PyTorch Lightning checkpoints."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    common = Parser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="on failure show where in the code, and all causes")
    for command in _COMMANDS:
        command.add(commands, common)
    for used in set(commands.choices.values()):
        used.set_defaults(parser=used)  # for what is wrong with its options
    return parser


def _nobody_reads() -> bool:
    """Whether what reads our output has ended, as ``head`` does; then nothing complains about it at exit either."""
    try:
        number = sys.stdout.fileno()
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(number, 0)  # errors are told of in any case
            ended = bool(poll.poll(0))
        else:  # Windows has no such signs, and only what was written to a pipe can have failed in this way
            ended = stat.S_ISFIFO(os.fstat(number).st_mode)
    except (OSError, ValueError):
        return False
    if ended:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return ended


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that reads files."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("lightning-trt-windows"))
        parser.exit()


def _message(error: BaseException) -> str:
    """The error, and the first line of what caused it where it does not say so itself."""
    text = f"error: {error}"
    cause = error.__cause__
    first = next(iter(str(cause).strip().splitlines()), "")
    # what the operating system said stands in our message already
    if cause is not None and not isinstance(cause, OSError) and (not first or first not in text):
        text += f"\n  caused by {type(cause).__name__}: {first}\n  --traceback shows where"
    return text
