"""TensorRT-RTX: engines that are built without a GPU and run on Linux and Windows, on Ampere and newer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.export import ExportedProgram

from lightning_trt_windows._compat.torch_tensorrt import Upstream, installed_distribution, upstream
from lightning_trt_windows.backends import CompiledProgram
from lightning_trt_windows.backends.driver import compile_program
from lightning_trt_windows.backends.engine import Engine
from lightning_trt_windows.backends.options import changed_options, check_options
from lightning_trt_windows.engine_header import read_header
from lightning_trt_windows.errors import CompileError, ConfigurationError
from lightning_trt_windows.settings import ExportSettings

__all__ = ["TensorRTRTX"]

_NO_EFFECT = "TensorRT-RTX ignores it (engines are byte-identical with and without)"
_NO_GPU = "TensorRT-RTX returns no engine for it when it builds without a GPU"
_OURS = "set by this package"
_CROSS = "cross compilation for Windows cannot use it"

REFUSED = {
    "hardware_compatible": f"{_NO_EFFECT}; its engines run on Ampere and newer anyway",
    "optimization_level": _NO_EFFECT,
    "num_avg_timing_iters": _NO_EFFECT,
    "max_aux_streams": _NO_EFFECT,
    "tiling_optimization_level": _NO_EFFECT,
    "l2_limit_for_tiling": _NO_EFFECT,
    "disable_tf32": _NO_EFFECT,
    "sparse_weights": _NO_EFFECT,
    "timing_cache_path": "TensorRT-RTX does no timing at build time",
    "version_compatible": "TensorRT-RTX returns no engine for it",
    "refit_identical_engine_weights": _NO_GPU,
    "strip_engine_weights": _NO_GPU,
    "immutable_weights": _NO_GPU,
    "engine_capability": "TensorRT-RTX builds standard engines only",
    "dla_sram_size": "there is no DLA on a Windows PC",
    "dla_local_dram_size": "there is no DLA on a Windows PC",
    "dla_global_dram_size": "there is no DLA on a Windows PC",
    "device": f"{_OURS}: engines are built without a GPU, for those in compute_capabilities",
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
    "dynamically_allocate_resources": "the loader decides it, it is not part of an engine",
    "runtime_cache_path": "the loader decides it, it is not part of an engine",
    "dynamic_shapes_kernel_specialization_strategy": "the loader decides it, it is not part of an engine",
    "use_explicit_typing": "TensorRT-RTX networks are always strongly typed",
    "enabled_precisions": "TensorRT-RTX networks are always strongly typed: use the argument precision",
    "decompose_attention": "attention is kept whole, TensorRT has a kernel of its own for it",
    "attn_bias_is_causal": "it is about an operator that programs captured on a CPU do not have",
    "assume_dynamic_shape_support": f"{_OURS}: a converter that fails leaves its node to PyTorch",
}


class TensorRTRTX:
    """The backend for the distribution torch-tensorrt-rtx."""

    name = "tensorrt_rtx"

    def check(self, settings: ExportSettings) -> None:
        """See :class:`~lightning_trt_windows.backends.Backend`."""
        installed_distribution(self.name)
        blocks = upstream()
        check_options(
            settings.compile_options,
            blocks.CompilationSettings,
            backend=self.name,
            refused=REFUSED,
            version=blocks.version,
        )
        _capabilities(blocks, settings.compute_capabilities)

    def compile(self, program: ExportedProgram, settings: ExportSettings) -> CompiledProgram:
        """See :class:`~lightning_trt_windows.backends.Backend`."""
        self.check(settings)
        blocks = upstream()
        upstream_settings = _upstream_settings(blocks, settings)
        capabilities = _capabilities(blocks, settings.compute_capabilities)

        def configure(config: Any) -> None:
            if capabilities:
                config.num_compute_capabilities = len(capabilities)
                for index, capability in enumerate(capabilities):
                    config.set_compute_capability(capability, index)

        build = compile_program(
            blocks,
            program,
            upstream_settings,
            precision=settings.precision,
            configure=configure,
            device_record=_device_record,
        )
        return CompiledProgram(
            backend=self.name,
            program=build.program,
            engines=build.engines,
            fallback_ops=build.fallback_ops,
            operators=build.operators,
            compute_capabilities=_runs_on(build.engines.values()),
            options={
                **({} if settings.precision is None else {"precision": settings.precision}),
                **changed_options(upstream_settings, blocks.CompilationSettings),
            },
            versions={
                "torch-tensorrt-rtx": blocks.version,
                "tensorrt-rtx": blocks.trt.__version__,
            },
            notes=build.notes,
        )


def _upstream_settings(blocks: Upstream, settings: ExportSettings) -> Any:
    options: dict[str, Any] = {
        "device": blocks.Device(gpu_id=0),
        "min_block_size": settings.min_block_size,
        "enable_cross_compile_for_windows": False,
        "timing_cache_path": "",
        **settings.compile_options,
    }
    options["torch_executed_ops"] = set(options.get("torch_executed_ops", ()))
    return blocks.CompilationSettings(**options)


def _capabilities(blocks: Upstream, wanted: tuple[str, ...]) -> list[Any]:
    """TensorRT-RTX's names for compute capabilities.

    Raises:
        ConfigurationError: One that the installed TensorRT-RTX does not know.
    """
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in blocks.trt.ComputeCapability.__members__.items()
        if name.startswith("SM") and name[2:].isdigit()
    }
    unknown = [capability for capability in wanted if capability not in known]
    if unknown:
        raise ConfigurationError(
            f"TensorRT-RTX {blocks.trt.__version__} builds no engines for compute capability {', '.join(unknown)}; "
            f"it knows {', '.join(known)}"
        )
    return [known[capability] for capability in wanted]


def _device_record(engine: Engine) -> tuple[str, bool]:
    """Upstream's device field and hardware-compatible flag.

    Its loader takes a GPU whose capability equals the recorded one, or, with the flag, any from 8.0 on. So record the
    oldest generation in the engine: 7.5 where it was asked for, else 8.0.
    """
    oldest = "7" if "7.5" in _runs_on([engine]) else "8"
    return f"0%{oldest}%{5 if oldest == '7' else 0}%0%NVIDIA", True


def _runs_on(engines: Iterable[Engine]) -> tuple[str, ...]:
    common: tuple[str, ...] | None = None
    for engine in engines:
        header = read_header(engine.plan)
        if header is None:
            raise CompileError(f"TensorRT-RTX built {engine.name}, but its header is not one of an engine")
        names = header.compute_capabilities
        common = names if common is None else tuple(name for name in common if name in names)
    return common or ()
