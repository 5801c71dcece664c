"""``compile_options`` against the installed Torch-TensorRT, which itself swallows unknown names in silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lightning_trt_windows._compat.bindings import installed_version
from lightning_trt_windows.errors import ConfigurationError, EnvironmentMismatchError, did_you_mean
from lightning_trt_windows.settings import ExportSettings, Recurrent

__all__ = ["NEVER", "changed_options", "check_formats", "check_options", "precision_options", "recurrent_choice"]

_OURS = "set by this package"
_CROSS = "cross compilation for Windows cannot use it"
_LOADER = "it is the loader's choice and not part of an engine"

NEVER: Mapping[str, str] = {
    "engine_capability": "only standard engines are built",
    "dla_sram_size": "there is no DLA on a Windows PC",
    "dla_local_dram_size": "there is no DLA on a Windows PC",
    "dla_global_dram_size": "there is no DLA on a Windows PC",
    "min_block_size": f"{_OURS}: use the argument min_block_size",
    "enable_cross_compile_for_windows": f"{_OURS}: every artifact is for Windows",
    **dict.fromkeys(
        (
            "enable_autocast",
            "autocast_low_precision_type",
            "autocast_excluded_nodes",
            "autocast_excluded_ops",
            "autocast_max_output_threshold",
            "autocast_max_depth_of_reduction",
            "autocast_calibration_dataloader",
        ),
        "upstream's autocast fails on symbolic sizes and changes the dtype of outputs: use the argument precision",
    ),
    "lazy_engine_init": _CROSS,
    "cache_built_engines": _CROSS,
    "reuse_cached_engines": _CROSS,
    "use_python_runtime": _CROSS,
    "dryrun": "it would leave no engine to write",
    "pass_through_build_failures": "failures are always raised",
    "use_fast_partitioner": "the compile path has one partitioner",
    "enable_resource_partitioning": "the compile path does not split engines by memory",
    "cpu_memory_budget": "the compile path does not split engines by memory",
    "offload_module_to_cpu": "the module is on the CPU already",
    "use_distributed_mode_trace": "the module is exported on one device",
    "dynamically_allocate_resources": _LOADER,
    "runtime_cache_path": _LOADER,
    "dynamic_shapes_kernel_specialization_strategy": _LOADER,
    "decompose_attention": "attention is kept whole, TensorRT has a kernel of its own for it",
    "attn_bias_is_causal": "it concerns an operator that programs captured on a CPU do not have",
    "assume_dynamic_shape_support": f"{_OURS}: a node whose converter fails falls back to PyTorch",
}
"""Options that no backend takes, with the reason: the compile path is the same."""


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
            hint = did_you_mean(key, usable, f"known are {', '.join(usable)}")
            problems.append(f"{key}: not an option of Torch-TensorRT {version}{hint}")
    if problems:
        raise ConfigurationError(f"compile_options for backend {backend}:\n" + "\n".join(f"  {p}" for p in problems))


def check_formats(settings: ExportSettings, backend: str) -> None:
    """Refuse a format that cannot be written, before anything is compiled.

    Raises:
        ConfigurationError: ``onnx`` with engines that ONNX Runtime does not take.
        EnvironmentMismatchError: ``onnx``, and a package that writes it is not installed.
    """
    if "onnx" not in settings.formats:
        return
    if backend != "tensorrt_rtx":
        raise ConfigurationError(
            f"formats: ONNX Runtime takes compiled engines of TensorRT-RTX, and the backend is {backend}. Leave out "
            "'onnx', or use backend='tensorrt_rtx'"
        )
    if missing := [name for name in ("onnx", "onnxscript") if not installed_version(name)]:
        raise EnvironmentMismatchError(
            f"formats: writing 'onnx' needs {' and '.join(missing)}: pip install \"lightning-trt-windows[onnx]\""
        )


def recurrent_choice(settings: ExportSettings) -> Recurrent:
    """Where recurrent nets run: where all has to be in an engine, or a model for ONNX Runtime is written, they are."""
    needs_engine = "onnx" in settings.formats or settings.compile_options.get("require_full_compilation")
    return "engine" if settings.recurrent == "auto" and needs_engine else settings.recurrent


def precision_options(settings: ExportSettings) -> dict[str, str]:
    """What was asked for of precision, as the manifest's ``backend.options`` say it; nothing of what is the default."""
    inside: dict[str, str] = {} if settings.precision is None else {"precision": settings.precision}
    return inside if settings.io_precision == "module" else {**inside, "io_precision": settings.io_precision}


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


_NOT_RECORDED = ("device", "timing_cache_path", "engine_capability", "enable_cross_compile_for_windows")
"""What stands elsewhere in the manifest, or names this machine."""


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (set, frozenset, list, tuple)):
        return sorted(str(item) for item in value)
    return str(value)
