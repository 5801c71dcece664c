"""``compile_options`` against the installed Torch-TensorRT, which itself swallows unknown names in silence."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from lightning_trt_windows.errors import ConfigurationError

__all__ = ["changed_options", "check_options"]


def check_options(
    options: Mapping[str, Any], settings_class: Any, *, backend: str, refused: Mapping[str, str], version: str
) -> None:
    """Refuse options that the installed upstream does not know, or that would have no effect.

    Args:
        options: What the user wrote.
        settings_class: Upstream's ``CompilationSettings`` dataclass.
        backend: Name for the messages.
        refused: Option to the reason why it cannot be used with this backend.
        version: Version of upstream, for the messages.

    Raises:
        ConfigurationError: Every offending key with its reason or its near matches.
    """
    known = {field.name for field in dataclasses.fields(settings_class)}
    usable = sorted(known - set(refused))
    problems = []
    for key in options:
        if key in refused:
            problems.append(f"{key}: {refused[key]}")
        elif key not in known:
            near = difflib.get_close_matches(key, usable, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(usable)}"
            problems.append(f"{key}: not an option of Torch-TensorRT {version}; {hint}")
    if problems:
        raise ConfigurationError(f"compile_options for backend {backend}:\n" + "\n".join(f"  {p}" for p in problems))


def changed_options(settings: Any, settings_class: Any) -> dict[str, Any]:
    """The options of ``settings`` that differ from upstream's defaults, as JSON values; no paths."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(settings_class):
        value = getattr(settings, field.name)
        if field.name in _NOT_RECORDED:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != default:
            changed[field.name] = _plain(value)
    return changed


_NOT_RECORDED = ("device", "timing_cache_path", "engine_capability")
"""What stands elsewhere in the manifest, or names this machine."""


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (set, frozenset, list, tuple)):
        return sorted(str(item) for item in value)
    return str(value)
