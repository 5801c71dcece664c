"""Compile a module and evaluate the TensorRT networks of its engines on the CPU, where engines cannot run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from lightning_trt_windows.backends import CompiledProgram, compiler, get_backend
from lightning_trt_windows.backends import engine as engine_module
from lightning_trt_windows.backends.profile_check import outside_of_profile
from lightning_trt_windows.network import read_network
from lightning_trt_windows.settings import ExportSettings
from support.simulation import partitions_kept, run_with

__all__ = [
    "Evaluated",
    "check_values",
    "compile_evaluated",
    "compile_module",
    "differences",
    "networks_kept",
    "networks_to_call",
]


@dataclass
class Evaluated:
    """A compiled program, the graphs that its engines were built from, and their networks."""

    compiled: CompiledProgram
    partitions: dict[str, torch.fx.GraphModule]
    networks: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    """What the networks leave undefined, of the last call: an index out of range, a size that does not fit."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the artifact returns, each engine's network evaluated."""
        self.warnings.clear()
        return run_with(self.compiled.program, self.networks_to_call(), args, kwargs)

    def networks_to_call(self) -> dict[str, Any]:
        """By the name of the engine, a function of the engine's inputs."""
        return {name: functools.partial(self._evaluate, network) for name, network in self.networks.items()}

    def layers(self) -> set[str]:
        """Kinds of the layers in all networks."""
        return {kind for network in self.networks.values() for kind in network.kinds}

    def _evaluate(self, network: _Network, *tensors: Tensor) -> list[Tensor]:
        values, warnings = network(tensors)
        self.warnings += warnings
        return values


class _Network:
    """One network with its bindings in the engine's order."""

    def __init__(self, interpreter: Any) -> None:
        context = interpreter.ctx
        self.keep = interpreter
        self.network = read_network(interpreter_trt(interpreter), context.net, weights=context.weight_refit_map)
        self.names = list(interpreter._input_names), list(interpreter._output_names)
        self.kinds = {step.kind for step in self.network.steps}

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[str]]:
        if outside := outside_of_profile(self.keep, [tensor.shape for tensor in tensors]):
            raise ValueError(f"the engine is given a tensor {outside[1]}")
        evaluation = self.network.evaluate(dict(zip(self.names[0], tensors)), self.names[1])
        return [evaluation.values[name] for name in self.names[1]], list(evaluation.warnings)


def interpreter_trt(interpreter: Any) -> Any:
    """TensorRT's bindings, which the interpreter was made with."""
    from lightning_trt_windows._compat.torch_tensorrt import upstream

    return upstream().trt


@contextlib.contextmanager
def networks_kept(*, build: bool = True) -> Iterator[dict[str, Any]]:
    """The interpreters that hold the networks of engines, by the name of the engine.

    Args:
        build: Build the engines. Without, a small engine stands in for each: its bytes are what is written.
    """
    kept: dict[str, Any] = {}
    real_class, real_build = engine_module._interpreter_class, compiler.build_engine
    last: list[Any] = []

    def recording_class(blocks: Any) -> Any:
        class Recorded(real_class(blocks)):  # type: ignore[misc]  # the base is made at run time
            def _construct_trt_network_def(self) -> Any:
                last[:] = [self]
                result = super()._construct_trt_network_def()
                if not build:
                    self.builder = _Built(small_engine(blocks))
                return result

        return Recorded

    def recording_build(blocks: Any, name: str, *rest: Any, **options: Any) -> Any:
        result = real_build(blocks, name, *rest, **options)
        kept[name] = last[0]
        return result

    with (
        mock.patch.object(engine_module, "_interpreter_class", recording_class),
        mock.patch.object(compiler, "build_engine", recording_build),
    ):
        yield kept


@dataclass
class _Built:
    plan: bytes

    def build_serialized_network(self, network: Any, config: Any) -> bytes:
        return self.plan

    def create_builder_config(self) -> Any:
        return mock.MagicMock()


_small: list[bytes] = []


def small_engine(blocks: Any) -> bytes:
    """The bytes of a real engine that returns what it takes."""
    if not _small:
        trt = blocks.trt
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        network = builder.create_network(0)
        tensor = network.add_input("x", trt.float32, (1,))
        network.mark_output(network.add_identity(tensor).get_output(0))
        _small.append(bytes(builder.build_serialized_network(network, builder.create_builder_config())))
    return _small[0]


def networks_to_call(interpreters: Mapping[str, Any]) -> dict[str, Any]:
    """By the name of the engine, a function that evaluates its network; of interpreters that ``networks_kept`` gave."""
    networks = {name: _Network(interpreter) for name, interpreter in interpreters.items()}
    return {name: lambda *tensors, own=network: own(tensors)[0] for name, network in networks.items()}


def compile_evaluated(program: ExportedProgram, *, build: bool = False, **settings: Any) -> Evaluated:
    """Compile ``program``, and read the networks of its engines."""
    with partitions_kept() as partitions, networks_kept(build=build) as interpreters:
        chosen = ExportSettings(**settings)
        compiled = get_backend(chosen.backend).compile(program, chosen)
    networks = {engine.name: _Network(interpreters[engine.name]) for engine in compiled.engines.values()}
    return Evaluated(compiled, partitions, networks)


def compile_module(
    function: nn.Module | Callable[..., Any], *args: Any, dims: Any = None, build: bool = False, **settings: Any
) -> Evaluated:
    """Capture a module, or a function of tensors, and compile it; ``dims`` as in ``torch.export.export``."""
    if not isinstance(function, nn.Module):
        function, dims = Function(function), None if dims is None else (dims,)
    program = torch.export.export(function.eval(), args, dynamic_shapes=dims, strict=False)
    return compile_evaluated(program, build=build, **settings)


class Function(nn.Module):
    """A module that computes ``function`` of its arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


def differences(
    evaluated: Evaluated, function: Callable[..., Any], *args: Tensor, tolerance: float = 3e-4
) -> list[str]:
    """In words, what the artifact's results differ in from those of ``function``; none where all are right.

    Shapes, types, NaN and infinities must be alike, integers equal, and what a network leaves undefined counts as well.
    """
    with torch.no_grad():
        wanted = tree_leaves(function(*(arg.clone() for arg in args)))
    try:
        results = tree_leaves(evaluated(*(arg.clone() for arg in args)))
    # an artifact that cannot run
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    found = [text for got, want in zip(results, wanted) if (text := _difference(got, want, tolerance))]
    if len(results) != len(wanted):
        found.append(f"{len(results)} results, wanted {len(wanted)}")
    return found + [f"undefined: {text}" for text in evaluated.warnings if any(word in text for word in _UNDEFINED)]


_UNDEFINED = "negative index", "outside of", "overflows", "it was given", "tensor without axes"
"""In warnings about what TensorRT leaves open."""


def check_values(
    function: nn.Module | Callable[..., Any], *args: Tensor, dims: Any = None, fallback: tuple[str, ...] = ()
) -> None:
    """Compile, and compare at the smallest and largest sizes and at one between; only ``fallback`` stays in PyTorch.

    Args:
        function: What is compiled.
        *args: Its tensors.
        dims: For each of them a dictionary from axis to ``Dim``, or ``None``.
        fallback: Operators that may be in PyTorch.
    """
    evaluated = compile_module(function, *args, dims=dims)
    assert set(evaluated.compiled.fallback_ops) <= set(fallback)
    varying = {dim.__name__: dim for mark in dims or () for dim in (mark or {}).values()}
    for choice in ("min", "between", "max") if varying else ("",):
        sizes = {
            name: {"min": dim.min, "between": (dim.min + dim.max) // 2, "max": dim.max}[choice]
            for name, dim in varying.items()
        }
        given = [_resized(arg, mark or {}, sizes) for arg, mark in zip(args, dims or [None] * len(args))]
        assert differences(evaluated, function, *given) == [], f"at {[tuple(t.shape) for t in given]}"


def _resized(tensor: Tensor, mark: dict[int, Any], sizes: dict[str, int]) -> Tensor:
    for axis, dim in mark.items():
        tensor = tensor.index_select(axis, torch.arange(sizes[dim.__name__]) % tensor.shape[axis])
    return tensor


def _difference(got: Any, want: Any, tolerance: float) -> str:
    if not isinstance(want, Tensor):
        return "" if got == want else f"{got!r}, wanted {want!r}"
    try:
        exact = not want.is_floating_point() and not want.is_complex()
        near = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": tolerance, "atol": tolerance * 1e-2}
        torch.testing.assert_close(got, want, equal_nan=True, **near)
    except AssertionError as error:
        return " ".join(str(error).split())
    return ""
