"""TensorRT: engines for Windows that a Linux machine with a GPU builds, tied to that GPU's generation unless asked.

The compile path is the one of ``tensorrt_rtx``. What only this backend runs is in this file and in
``windows_builder``, and is thin on purpose: upstream's own ``_populate_trt_builder_config`` turns the options into
TensorRT's (Windows as the platform, the hardware level, version compatible without a lean runtime); here is what goes
in, who may run it, and the timing cache around it. **No engine of this backend has ever been built or run by this
project's tests**; ``docs/tensorrt.md`` says what they check instead.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from lightning_trt_windows._compat.torch_tensorrt import Upstream, installed_distribution, upstream
from lightning_trt_windows.artifact.manifest import TWIN
from lightning_trt_windows.backends import CompiledProgram
from lightning_trt_windows.backends.binding_names import ProgramNames
from lightning_trt_windows.backends.compiler import LINUX, WINDOWS, compile_program
from lightning_trt_windows.backends.engine import Engine
from lightning_trt_windows.backends.options import (
    NEVER,
    changed_options,
    check_formats,
    check_options,
    precision_options,
    recurrent_choice,
)
from lightning_trt_windows.backends.samples import Samples
from lightning_trt_windows.backends.timing_cache import default_path, timing_cache
from lightning_trt_windows.backends.windows_builder import BuildGpu, build_gpu, check_machine, check_resource
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.settings import ExportSettings

__all__ = ["REFUSED", "TensorRT"]

_REFIT = "the weights of an artifact are those of its checkpoint, and nothing that loads it puts in others"

REFUSED = {
    **NEVER,
    "device": "set by this package: the first GPU that is visible builds; choose it with CUDA_VISIBLE_DEVICES",
    "immutable_weights": _REFIT,
    "refit_identical_engine_weights": _REFIT,
    "strip_engine_weights": "the engine would have no weights, and nothing that loads the artifact puts them back",
    "use_explicit_typing": "networks are always strongly typed here",
    "enabled_precisions": "networks are always strongly typed here: use the argument precision",
}

OLDEST_FOR_ALL = (8, 0)
"""Compute capability from which on ``hardware_compatible`` engines run, and can be built."""


class TensorRT:
    """The backend for the distribution torch-tensorrt."""

    name = "tensorrt"
    runs_here = False

    def check(self, settings: ExportSettings) -> None:
        """See ``Backend``."""
        check_machine()
        installed_distribution(self.name)
        gpu = build_gpu()
        blocks = upstream()
        check_resource()
        check_options(
            settings.compile_options,
            blocks.CompilationSettings,
            backend=self.name,
            refused=REFUSED,
            version=blocks.version,
        )
        _check_values(settings, gpu)
        if settings.tensorrt_rtx is not None:
            raise ConfigurationError(
                f"tensorrt_rtx={settings.tensorrt_rtx!r} is the version of TensorRT-RTX that builds, and the backend "
                f"is {self.name}: leave it out"
            )
        check_formats(settings, self.name)

    def compile(
        self,
        program: ExportedProgram,
        settings: ExportSettings,
        *,
        twin: bool = False,
        samples: Samples | None = None,
        names: ProgramNames | None = None,
        scratch: Path | None = None,
        same: str | None = None,
    ) -> CompiledProgram:
        """See ``Backend``. Engines stay in memory: writing them as they are built has not been tried with TensorRT."""
        self.check(settings)
        blocks, gpu = upstream(), build_gpu()
        chosen = _upstream_settings(blocks, settings, twin=twin)
        everywhere = bool(chosen.hardware_compatible)
        build = compile_program(
            blocks,
            program,
            chosen,
            precision=settings.precision,
            configure=functools.partial(timing_cache, path=_timing_cache_path(blocks, settings, gpu)),
            device_record=functools.partial(_device_record, gpu, everywhere),
            platform=LINUX if twin else WINDOWS,
            samples=samples,
            names=names,
            recurrent=recurrent_choice(settings),
            same=same,
        )
        return CompiledProgram(
            backend=self.name,
            program=build.program,
            engines=build.engines,
            fallback_ops=build.fallback_ops,
            operators=build.operators,
            compute_capabilities=("8.0", "newer") if everywhere else (gpu.capability_text,),
            target="ampere_and_newer" if everywhere else "same_capability",
            options={
                **precision_options(settings),
                **({TWIN: True} if twin else {}),
                **changed_options(chosen, blocks.CompilationSettings),
            },
            versions={"torch-tensorrt": blocks.version, "tensorrt": blocks.trt.__version__},
            notes=build.notes,
            check=build.check,
            replay=build.replay,
            lines=build.lines,
        )


def _timing_cache_path(blocks: Upstream, settings: ExportSettings, gpu: BuildGpu) -> str:
    default = default_path(blocks.trt.__version__, gpu.capability_text)
    return str(settings.compile_options.get("timing_cache_path", default))


def _upstream_settings(blocks: Upstream, settings: ExportSettings, *, twin: bool) -> Any:
    options: dict[str, Any] = {
        "device": blocks.Device(gpu_id=0),
        "min_block_size": settings.min_block_size,
        # upstream's interpreter sets the platform of the engine by it, and a lean runtime is excluded in any case
        "enable_cross_compile_for_windows": not twin,
        **settings.compile_options,
        # upstream writes its settings into the artifact, where the user's home has no business
        "timing_cache_path": "",
    }
    options["torch_executed_ops"] = set(options.get("torch_executed_ops", ()))
    return blocks.CompilationSettings(**options)


def _check_values(settings: ExportSettings, gpu: BuildGpu) -> None:
    """What upstream or TensorRT would say after minutes, or with an assertion.

    Raises:
        ConfigurationError: A value that the GPU or TensorRT does not take.
    """
    options, problems = settings.compile_options, []
    if settings.compute_capabilities and settings.compute_capabilities != (gpu.capability_text,):
        problems.append(
            f"compute_capabilities={list(settings.compute_capabilities)}: TensorRT builds for the GPU that builds, and "
            f"{gpu.name} has {gpu.capability_text}. Build on a GPU of the generation that you ship to, or for Ampere "
            "and newer with compile_options={'hardware_compatible': True}, or use backend='tensorrt_rtx'"
        )
    if options.get("hardware_compatible") and gpu.capability < OLDEST_FOR_ALL:
        problems.append(
            f"hardware_compatible: TensorRT builds such engines on Ampere and newer only, and {gpu.name} has "
            f"{gpu.capability_text}"
        )
    if settings.precision == "bf16" and gpu.capability < OLDEST_FOR_ALL:
        problems.append(f"precision='bf16': {gpu.name} has {gpu.capability_text}, bfloat16 begins with 8.0")
    level = options.get("optimization_level")
    if level is not None and (isinstance(level, bool) or level not in range(6)):
        problems.append(f"optimization_level: TensorRT has 0 to 5, got {level!r}")
    tiling = options.get("tiling_optimization_level", "none")
    if tiling not in ("none", "fast", "moderate", "full"):
        problems.append(f"tiling_optimization_level: none, fast, moderate or full, got {tiling!r}")
    if problems:
        raise ConfigurationError("settings for backend tensorrt:\n" + "\n".join(f"  {p}" for p in problems))


def _device_record(gpu: BuildGpu, everywhere: bool, engine: Engine) -> tuple[str, bool]:
    """Upstream's device field, ``id%major%minor%type%name``, and its hardware-compatible flag.

    Its loader takes a GPU whose capability is the recorded one, or, with the flag, any from 8.0 on.
    """
    major, minor = gpu.capability
    return f"0%{major}%{minor}%0%{gpu.name.replace('%', ' ')}", everywhere
