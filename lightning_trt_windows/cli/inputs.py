"""Inputs as they are written on the command line: ``x=float32[1..8..32,3,224,224]``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["EPILOG", "INPUT_HELP", "input_tree", "json_object", "parse_axis", "parse_input"]

INPUT_HELP = "NAME=DTYPE[SIZES], such as x=float32[1..8..32,3,224,224]"
_AXIS = re.compile(r"(?:(?P<name>[A-Za-z_]\w*):)?(?P<min>\d+)\.\.(?P<opt>\d+)\.\.(?P<max>\d+)(?:%(?P<multiple>\d+))?")
EPILOG = """\
inputs:
  x=float32[3,224,224]             sizes that never change
  x=float32[1..8..32,3,224,224]    batches of 1 to 32, tuned for 8
  x=float32[batch:1..8..32,10]     a named dimension; dimensions of one name are always equal
  x=float32[1,3,64..224..512%32]   64 to 512 in steps of 32
  batch.image=uint8[1..8..32,3]    an entry of a dict argument
What is not given is taken from the datamodule or, without --datamodule, from the shapes that the checkpoint carries of
its training, then from the module's example_input_array.
Quote the argument: brackets and dots mean something to most shells."""


def parse_input(text: str) -> tuple[str, InputSpec]:
    """Name and spec of ``x=float32[1..8..32,3,224,224]``.

    Returns:
        The name, and the spec.

    Raises:
        ConfigurationError: The text is something else.
    """
    found = re.fullmatch(r"\s*([A-Za-z_][\w.]*)\s*=\s*(\w+)\s*\[(.*)\]\s*", text)
    if not found:
        raise ConfigurationError(f"--input: expected {INPUT_HELP}; got {text!r}")
    name, dtype, sizes = found.groups()
    try:
        shape = tuple(parse_axis(size.strip()) for size in sizes.split(",")) if sizes.strip() else ()
        return name, InputSpec(shape, dtype)
    except ConfigurationError as error:
        raise ConfigurationError(f"--input {text}: {error}") from error


def parse_axis(text: str) -> DimRange | int:
    """A size of ``3`` or ``1..8..32``, named or in steps as ``batch:1..8..32`` and ``64..224..512%32``.

    Returns:
        A size, or a range.

    Raises:
        ConfigurationError: The text is something else.
    """
    if re.fullmatch(r"\d{1,18}", text):
        return int(text)
    found = _AXIS.fullmatch(text)
    if not found or max(map(len, found.group("min", "opt", "max"))) > 18:
        raise ConfigurationError(f"a size is a number or MIN..OPT..MAX, got {text!r}")
    low, opt, high = (int(bound) for bound in found.group("min", "opt", "max"))
    return DimRange(low, opt, high, found["name"], int(found["multiple"] or 1))


def input_tree(texts: Iterable[str]) -> dict[str, Any] | None:
    """Inputs by argument; dots make dicts. ``None`` where none are given.

    Returns:
        ``InputSpec`` by argument, or ``None``.

    Raises:
        ConfigurationError: An input is not of that form, or is given twice.
    """
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


def json_object(file: str | None) -> dict[str, Any]:
    """The JSON object in ``file``, for ``--extra``; an empty one without.

    Returns:
        The object.

    Raises:
        ConfigurationError: The file cannot be read, or holds something else.
    """
    if file is None:
        return {}
    try:
        value = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"--extra {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigurationError(f"--extra {file} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"--extra: expected a JSON object, {file} holds {type(value).__name__}")
    return value
