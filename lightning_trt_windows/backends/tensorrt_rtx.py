"""TensorRT-RTX: engines that are built without a GPU and run on Linux and Windows, on Ampere and newer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from lightning_trt_windows._compat.torch_tensorrt import Upstream, installed_distribution, upstream
from lightning_trt_windows._compat.versions import minor
from lightning_trt_windows.artifact.engine_header import read_header
from lightning_trt_windows.backends import CompiledProgram
from lightning_trt_windows.backends.binding_names import ProgramNames
from lightning_trt_windows.backends.compiler import compile_program
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
from lightning_trt_windows.errors import CompileError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.settings import ExportSettings

__all__ = ["BUILDS_WITH", "REFUSED", "TensorRTRTX"]

BUILDS_WITH: Mapping[tuple[int, int], tuple[str, ...]] = {
    (2, 12): ("1.4.0.76",),
    (2, 13): ("1.4.0.76", "1.5.0.114", "1.6.1.120", "1.7.1.116"),
    (2, 14): ("1.4.0.76", "1.5.0.114", "1.6.1.120", "1.7.1.116"),
}
"""Versions of TensorRT-RTX that each torch-tensorrt-rtx was seen to build engines with; docs/versions.md has the table.
2.12 sets types of tensors, which TensorRT-RTX from 1.5 on does not let it."""

_NO_EFFECT = "TensorRT-RTX ignores it (engines are byte-identical with and without)"
_NO_GPU = "TensorRT-RTX returns no engine for it when it builds without a GPU"

REFUSED = {
    **NEVER,
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
    "device": "set by this package: engines are built without a GPU, for those in compute_capabilities",
    "use_explicit_typing": "TensorRT-RTX networks are always strongly typed",
    "enabled_precisions": "TensorRT-RTX networks are always strongly typed: use the argument precision",
}


class TensorRTRTX:
    """The backend for the distribution torch-tensorrt-rtx."""

    name = "tensorrt_rtx"
    runs_here = True

    def check(self, settings: ExportSettings) -> None:
        """See ``Backend``."""
        installed_distribution(self.name)
        blocks = upstream()
        check_options(
            settings.compile_options,
            blocks.CompilationSettings,
            backend=self.name,
            refused=REFUSED,
            version=blocks.version,
        )
        _check_version(blocks, settings.tensorrt_rtx)
        _capabilities(blocks, settings.compute_capabilities)
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
        """See ``Backend``. The engines run on Linux too: there is no twin.

        Returns:
            The program with its engines.

        Raises:
            ConfigurationError: ``twin`` was asked for.
        """
        if twin:
            raise ConfigurationError("engines of tensorrt_rtx run on Linux as they are: verify the artifact itself")
        self.check(settings)
        blocks = upstream()
        upstream_settings = _upstream_settings(blocks, settings)
        capabilities = _capabilities(blocks, settings.compute_capabilities)

        @contextlib.contextmanager
        def configure(config: Any) -> Iterator[None]:
            if capabilities:
                config.num_compute_capabilities = len(capabilities)
                for index, capability in enumerate(capabilities):
                    config.set_compute_capability(capability, index)
            yield

        build = compile_program(
            blocks,
            program,
            upstream_settings,
            precision=settings.precision,
            configure=configure,
            device_record=_device_record,
            samples=samples,
            names=names,
            recurrent=recurrent_choice(settings),
            same=same,
            scratch=scratch,
        )
        return CompiledProgram(
            backend=self.name,
            program=build.program,
            engines=build.engines,
            fallback_ops=build.fallback_ops,
            operators=build.operators,
            compute_capabilities=_runs_on(build.engines.values()),
            options={
                **precision_options(settings),
                **changed_options(upstream_settings, blocks.CompilationSettings),
            },
            versions={
                "torch-tensorrt-rtx": blocks.version,
                "tensorrt-rtx": blocks.trt.__version__,
            },
            notes=build.notes,
            check=build.check,
            replay=build.replay,
            lines=build.lines,
        )


def _check_version(blocks: Upstream, wanted: str | None) -> None:
    """Refuse to build with another TensorRT-RTX than was asked for, or with one that does not build.

    Raises:
        EnvironmentMismatchError: Another is installed, or torch-tensorrt-rtx does not build with it.
    """
    if wanted is None:
        return
    installed, builder = blocks.trt.__version__, f"torch-tensorrt-rtx {blocks.version}"
    tried = BUILDS_WITH.get(minor(blocks.version), ())
    known = [version for version in tried if f"{version}.".startswith(f"{wanted}.")]
    seen = f"{builder} was seen to build with {', '.join(tried)}"
    if tried and ".".join(wanted.split(".")[:2]) in _minors() - _minors(tried):
        raise EnvironmentMismatchError(f"tensorrt_rtx={wanted!r}: {seen}, and not with {wanted}. Take a newer one")
    if f"{installed}.".startswith(f"{wanted}."):
        return
    raise EnvironmentMismatchError(
        f"tensorrt_rtx={wanted!r}: engines would be built with TensorRT-RTX {installed}, which is installed. Install "
        f"the other one: pip install tensorrt-rtx=={known[-1] if known else f'{wanted}.*'} (where it is not the one "
        f"that torch-tensorrt-rtx names, pip says that it is incompatible, and installs it). {seen}"
    )


def _minors(versions: Iterable[str] | None = None) -> set[str]:
    """``1.7`` and so on, of ``versions`` or of all that were tried with any torch-tensorrt-rtx."""
    listed = [v for tried in BUILDS_WITH.values() for v in tried] if versions is None else versions
    return {".".join(version.split(".")[:2]) for version in listed}


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
        ConfigurationError: The installed TensorRT-RTX does not know a compute capability.
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
