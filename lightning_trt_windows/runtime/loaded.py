"""The callable that ``load`` gives: the program with engines in the place of engine nodes."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch.fx import GraphModule

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.manifest import InputRecord, Manifest
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.runtime.engine_runner import EngineRunner
from lightning_trt_windows.runtime.input_check import InputCheck
from lightning_trt_windows.runtime.program_reader import Program
from lightning_trt_windows.runtime.recurrent_weights import flattened
from lightning_trt_windows.runtime.runtime_cache import RuntimeCache
from lightning_trt_windows.runtime.structure import Structure, arguments_of

__all__ = ["LoadedModule", "assemble"]


class LoadedModule:
    """An artifact on a GPU; called like the ``forward`` it was exported from. Any thread may call it.

    It runs in eval mode and without gradients, as everything in it did at the export. ``load`` makes it.

    Args:
        artifact: What was loaded.
        device: Where it runs.
        program: The graph, with engines and weights as its children.
        structure: How arguments and results are nested.
        tensors: Whether each value of a call is a tensor; the others were fixed at the export.
        runtime_cache: Keeps the kernels that TensorRT-RTX compiles, if the user wants them kept.
    """

    def __init__(
        self,
        artifact: Artifact,
        device: torch.device,
        program: GraphModule,
        structure: Structure,
        tensors: Sequence[bool],
        runtime_cache: RuntimeCache | None = None,
    ) -> None:
        self.artifact = artifact
        self.device = device
        self._program = program
        # past the hooks of nn.Module, which cost time and which nobody can set
        self._run = program.forward if _only_engines(program) else torch.no_grad()(program.forward)
        self._structure = structure
        self._tensors = tuple(tensors)
        self._exported = tuple(value for argument in structure.arguments for value in argument.values)
        self._constants = not all(tensors)
        self._check = InputCheck(artifact.manifest.inputs, device)
        self._cache = runtime_cache

    @property
    def manifest(self) -> Manifest:
        """What the export wrote down: inputs with their ranges, outputs, versions."""
        return self.artifact.manifest

    @property
    def argument_names(self) -> tuple[str, ...]:
        """Names of ``forward``'s arguments."""
        return tuple(argument.name for argument in self._structure.arguments)

    def example_arguments(self, size: Literal["min", "opt", "max"] = "opt") -> dict[str, Any]:
        """Make arguments of ``forward`` that the artifact takes, nested as they were, to measure time with.

        Args:
            size: Smallest sizes, those that the engines are tuned for, or the largest.

        Returns:
            Each argument by its name. Values mean nothing: floating-point numbers are between 0 and 1, others are 1.

        Raises:
            ConfigurationError: ``size`` is none of the three.
        """
        if size not in ("min", "opt", "max"):
            raise ConfigurationError(f"size must be 'min', 'opt' or 'max', got {size!r}")
        tensors = iter(_example(record, getattr(record, size), self.device) for record in self.manifest.inputs)
        flags = iter(self._tensors)
        return {
            argument.name: argument.spec.unflatten(
                [next(tensors) if next(flags) else value for value in argument.values]
            )
            for argument in self._structure.arguments
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on the current CUDA stream, without waiting for it.

        Raises:
            ConfigurationError: The artifact was not built for these arguments, shapes, dtypes or devices.
        """
        leaves = self._structure.flatten(args, kwargs)
        if self._constants:
            self._structure.check_constants(leaves, self._tensors)
            self._check([leaf for leaf, tensor in zip(leaves, self._tensors) if tensor])
        else:
            self._check(leaves)
        return self._structure.unflatten(self._run(*leaves))

    def call_flat(self, tensors: Sequence[torch.Tensor]) -> Sequence[Any]:
        """Run on a flat list of tensors.

        Args:
            tensors: The inputs that the manifest lists, in its order.

        Returns:
            The outputs that the manifest lists, in its order.

        Raises:
            ConfigurationError: As a call does.
        """
        self._check(tensors)
        given = iter(tensors)
        leaves = [next(given) if is_tensor else value for is_tensor, value in zip(self._tensors, self._exported)]
        outputs: Sequence[Any] = self._run(*leaves)
        return outputs

    def flat_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """Take the tensors out of the arguments of a call.

        Args:
            args: Arguments of ``forward`` by position.
            kwargs: Arguments of ``forward`` by name.

        Returns:
            The tensors, as ``call_flat`` takes them.

        Raises:
            ConfigurationError: The call does not fit ``forward`` as it was exported.
        """
        leaves = self._structure.flatten(args, kwargs)
        return [leaf for leaf, is_tensor in zip(leaves, self._tensors) if is_tensor]

    def arguments(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Make the arguments of a call of tensors: the inverse of ``flat_inputs``.

        Args:
            tensors: The inputs that the manifest lists, in its order.

        Returns:
            Arguments of ``forward`` by position, and by name.
        """
        given = iter(tensors)
        leaves = [next(given) if is_tensor else value for is_tensor, value in zip(self._tensors, self._exported)]
        return self._structure.call(leaves)

    def save_runtime_cache(self) -> Path | None:
        """Write the runtime cache now, rather than when the module is deleted.

        Returns:
            The file, or ``None`` where the artifact was loaded without a cache.

        Raises:
            OutputError: The file cannot be written.
        """
        if self._cache is None:
            return None
        self._cache.save()
        return self._cache.path

    def __repr__(self) -> str:
        return f"<LoadedModule {self.artifact.path.name} on {self.device}, forward({', '.join(self.argument_names)})>"


def _example(record: InputRecord, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, record.dtype)
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.ones(shape, dtype=dtype, device=device)
    return torch.rand(shape, dtype=dtype if dtype.is_complex else torch.float32, device=device).to(dtype)


def _only_engines(program: GraphModule) -> bool:
    """Whether PyTorch computes nothing in it, so that no gradients could be recorded."""
    functions = {node.target for node in program.graph.nodes if node.op == "call_function"}
    return functions <= {operator.getitem}


def assemble(
    artifact: Artifact,
    program: Program,
    runners: Sequence[EngineRunner],
    device: torch.device,
    runtime_cache: RuntimeCache | None = None,
) -> LoadedModule:
    """Make the callable: engines and weights become children of the program's graph.

    Returns:
        The module.

    Raises:
        ArtifactError: The program and the manifest do not belong together.
    """
    # engines are attributes and no modules, whose call would look for hooks
    children: dict[str, Any] = {f"engine_{number}": runner for number, runner in enumerate(runners)}
    weights = {f"weight_{number}": weight for number, weight in enumerate(program.weights)}
    children.update(weights | flattened(program.graph.graph, weights))
    leaves = program.graph.leaves
    arguments, positional = arguments_of(
        program.in_spec,
        [(leaf.is_tensor, leaf.value) for leaf in leaves],
        [record.name for record in artifact.manifest.inputs],
        [leaf.name for leaf in leaves],
    )
    return LoadedModule(
        artifact,
        device,
        GraphModule(children, program.graph.graph),
        Structure(arguments, positional, program.out_spec),
        [leaf.is_tensor for leaf in leaves],
        runtime_cache,
    )
