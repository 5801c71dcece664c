"""Options of the command line that say how ranges are derived: ``lightning_trt_windows.RangeOptions``."""

from __future__ import annotations

import argparse
from typing import Any

from lightning_trt_windows.artifact.shapes import DimRange
from lightning_trt_windows.cli.inputs import parse_axis
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["EPILOG", "add_ranges", "range_options"]

EPILOG = """\
dimensions, in --static, --dynamic, --cap and --same:
  x.2                              the third axis of the input x
  batch, dim1                      a symbol, as the manifest and inspect show it"""


def add_ranges(parser: argparse.ArgumentParser) -> None:
    """Add the options to ``parser``."""
    defaults = RangeOptions()
    group = parser.add_argument_group("ranges that are derived from batches")
    add = group.add_argument
    add("--margin", type=float, default=defaults.margin, metavar="0.25", help="widen ranges by this fraction")
    add("--round-to", type=int, default=defaults.round_to, metavar="N", help="round ranges to a multiple of N")
    add("--cap", action="append", default=[], metavar="DIM=N", help="largest size of a dimension")
    add("--static", action="append", default=[], metavar="DIM", help="fix a dimension at its typical size")
    add("--dynamic", action="append", default=[], metavar="DIM=1..8..32", help="range of a dimension")
    add("--same", action="append", default=[], metavar="DIM,DIM", help="dimensions of equal size, as x.2,x.3")
    add("--keep", action="append", default=[], metavar="NAME", help="keep labels that only a loss needs")
    add("--max-batches", type=int, default=defaults.max_batches, metavar="N", help="batches to look at (%(default)s)")


def range_options(arguments: argparse.Namespace) -> RangeOptions:
    """What the options say.

    Returns:
        The options as an object.

    Raises:
        ConfigurationError: A value that makes no sense.
    """
    return RangeOptions(
        margin=arguments.margin,
        round_to=arguments.round_to,
        caps={name: _size(value, name) for name, value in _assignments("--cap", arguments.cap, "8")},
        static=tuple(arguments.static),
        dynamic={name: _range(value, name) for name, value in _assignments("--dynamic", arguments.dynamic, "1..8..32")},
        same=tuple(tuple(axis.strip() for axis in axes.split(",")) for axes in arguments.same),
        keep=tuple(arguments.keep),
        max_batches=arguments.max_batches,
    )


def _assignments(option: str, texts: list[str], example: str) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ConfigurationError(
                f"{option}: expected a dimension and its size, as {option} x.2={example}; got {text!r}"
            )
        if name in found:
            raise ConfigurationError(f"{option} {text}: {name} is given twice")
        found[name] = value
    return list(found.items())


def _size(text: str, name: str) -> int:
    if not text.isdecimal():
        raise ConfigurationError(f"--cap {name}={text}: a size is a whole number")
    return int(text)


def _range(text: str, name: str) -> Any:
    try:
        size = parse_axis(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"--dynamic {name}={text}: {error}") from error
    if isinstance(size, DimRange):
        return size
    raise ConfigurationError(f"--dynamic {name}={text}: one size is --static, a range is MIN..OPT..MAX")
