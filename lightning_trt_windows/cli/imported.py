"""Classes and functions of the user's, named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning_trt_windows.errors import ConfigurationError, did_you_mean

__all__ = ["imported"]


def imported(path: str, option: str) -> Any:
    """Import ``pkg.mod:Name`` or ``path/to/file.py:Name``.

    Returns:
        The object called ``Name``.

    Raises:
        ConfigurationError: ``path`` has neither form, the module cannot be imported, or it has no such name.
    """
    place, colon, name = path.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise ConfigurationError(f"{option}: expected pkg.mod:Class or path/to/file.py:Class, got {path!r}")
    module = _from_file(Path(place), option) if place.endswith(".py") else _from_name(place, option)
    if not hasattr(module, name):
        raise ConfigurationError(f"{option}: {place} has no {name!r}{did_you_mean(name, vars(module))}")
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
