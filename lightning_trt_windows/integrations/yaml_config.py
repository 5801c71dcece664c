"""A WindowsExport that a YAML file describes: the callback's arguments, by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from lightning_trt_windows.errors import ConfigurationError, did_you_mean
from lightning_trt_windows.training.callback import WindowsExport

__all__ = ["export_described_in", "read_settings"]


def export_described_in(path: str | None, asked_by: str) -> WindowsExport:
    """The callback with the settings in ``path``, or with the defaults.

    A Trainer that has a WindowsExport of its own keeps that one.

    Args:
        path: A YAML file, or ``None``.
        asked_by: What named the file; leads the messages.

    Returns:
        The callback.

    Raises:
        ConfigurationError: The file cannot be read, is not valid YAML, or holds what the callback does not take.
    """
    if path is None:
        export = WindowsExport()
    else:
        where = f"{asked_by}={path}"
        settings = read_settings(Path(path).expanduser(), where)
        try:
            export = WindowsExport(**settings)
        except (ConfigurationError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{where}: {error}") from error
    export.default_of = asked_by
    return export


def read_settings(path: Path, where: str) -> dict[str, Any]:
    """Arguments of ``WindowsExport`` out of a YAML file; an empty file has none.

    Returns:
        The arguments, by name.

    Raises:
        ConfigurationError: The file cannot be read, is not valid YAML, or holds what the callback does not take.
    """
    # what Lightning itself reads its hyperparameters with
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{where} cannot be read: {error}. It must be 1, or a YAML file with arguments of WindowsExport, such as "
            "'when: checkpoint'"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{where} is not YAML: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigurationError(
            f"{where} must hold arguments of WindowsExport by name, such as 'when: checkpoint', found {settings!r}"
        )
    known = list(inspect.signature(WindowsExport).parameters)
    if unknown := [str(name) for name in settings if name not in known]:
        hint = did_you_mean(unknown[0], known, f"it has {', '.join(known)}")
        raise ConfigurationError(f"{where}: WindowsExport has no argument {unknown[0]!r}{hint}")
    return settings
