"""Call a loaded artifact, and compare its outputs with goldens (reference outputs) or with the module itself."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from lightning_trt_windows._compat.precision import exact_float32
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.errors import LightningTrtError
from lightning_trt_windows.modules.numbers import TOLERANCES, Compared, compare, tolerance_of
from lightning_trt_windows.modules.state import eval_mode
from lightning_trt_windows.runtime.loaded import LoadedModule
from lightning_trt_windows.settings import PRECISION_DTYPES
from lightning_trt_windows.verification.golden_file import Fill, Goldens, call_sizes, filled, golden_shapes
from lightning_trt_windows.verification.io_types import as_artifact_has, as_module_has
from lightning_trt_windows.verification.result import Call

__all__ = ["against_goldens", "against_reference", "given_inputs"]

_SEED = 0
Given = Mapping[str, Sequence[torch.Tensor]]
"""Name of a call to its tensors, in the manifest's order."""


def against_goldens(loaded: LoadedModule, goldens: Goldens, tolerance: float | None) -> Iterator[Call]:
    """Compare at each recorded call."""
    for golden in goldens.sets:
        sizes = call_sizes(loaded.manifest.inputs, [tuple(t.shape) for t in golden.inputs])
        found, error = _outputs(loaded, golden.inputs)
        compared = []
        for name, wanted in golden.outputs.items() if not error else ():
            allowed = _allowed(loaded.manifest, wanted, golden.rounding.get(name), tolerance)
            compared.append(compare(name, found.get(name), wanted, allowed))
        yield Call(golden.name, sizes, tuple(compared), error)


def against_reference(
    loaded: LoadedModule, reference: Callable[..., Any], given: Given, tolerance: float | None
) -> Iterator[Call]:
    """Compare with what ``reference`` returns. A module runs where it is, in eval mode, and is left as it was."""
    names = [record.name for record in loaded.manifest.outputs]
    held = (
        next(iter([*reference.parameters(), *reference.buffers()]), None) if isinstance(reference, nn.Module) else None
    )
    device = loaded.device if held is None else held.device
    for name, tensors in given.items():
        sizes = call_sizes(loaded.manifest.inputs, [tuple(t.shape) for t in tensors])
        found, error = _outputs(loaded, as_artifact_has(loaded, tensors))
        compared: list[Compared] = []
        if not error:
            args, kwargs = loaded.arguments(
                [tensor.to(device, copy=True) for tensor in as_module_has(loaded, reference, tensors)]
            )
            with _eager(reference):
                wanted = list(_leaves(reference(*args, **kwargs)))
            if len(wanted) != len(names):
                error = f"the reference returns {len(wanted)} values, the artifact {len(names)}"
            else:
                for key, value in zip(names, wanted):
                    if isinstance(value, (torch.Tensor, bool, int, float)):
                        want = as_artifact_has(loaded, torch.as_tensor(value))
                        allowed = _allowed(loaded.manifest, want, None, tolerance)
                        compared.append(compare(key, found.get(key), want, allowed))
        yield Call(name, sizes, tuple(compared), error)


def given_inputs(
    loaded: LoadedModule, inputs: Sequence[Any] | Mapping[str, Any] | None, goldens: Goldens | None
) -> Given:
    """The calls at which a reference is compared: the user's, those of the goldens, or synthetic ones.

    Returns:
        The calls, and where they are from.

    Raises:
        ConfigurationError: ``inputs`` do not fit the artifact.
    """
    if inputs is not None:
        args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
        return {"given": loaded.flat_inputs(args, kwargs)}
    if goldens is not None:
        return {golden.name: golden.inputs for golden in goldens.sets}
    records = loaded.manifest.inputs
    return {name: filled(records, shapes, Fill(), _SEED) for name, shapes in golden_shapes(records).items()}


def _outputs(loaded: LoadedModule, tensors: Sequence[torch.Tensor]) -> tuple[dict[str, Any], str]:
    """What the artifact gives, by name; or why it gives nothing."""
    try:
        results = loaded.call_flat([tensor.to(loaded.device, copy=True) for tensor in tensors])
        found = {
            record.name: result.cpu() if isinstance(result, torch.Tensor) else result
            for record, result in zip(loaded.manifest.outputs, results, strict=True)
        }
    # whatever TensorRT, CUDA or an operator raises is a verdict here
    except (LightningTrtError, RuntimeError, ValueError, TypeError, IndexError) as error:
        return {}, f"{type(error).__name__}: {error}"
    return found, ""


def _allowed(manifest: Manifest, wanted: torch.Tensor, rounding: float | None, tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    kind = str(wanted.dtype).removeprefix("torch.")
    asked = PRECISION_DTYPES.get(str(manifest.backend.options.get("precision")))
    kinds = [kind if kind in TOLERANCES else "float32", asked or "float32"]
    # the coarser of what comes out and of what it was computed in
    return max(tolerance_of(each, rounding) for each in kinds)


@contextlib.contextmanager
def _eager(reference: Callable[..., Any]) -> Iterator[None]:
    """Eval mode, no gradients, full float32; all as before afterwards."""
    mode = eval_mode(reference) if isinstance(reference, nn.Module) else contextlib.nullcontext()
    with mode, exact_float32(), torch.no_grad():
        yield


def _leaves(value: Any) -> Iterator[Any]:
    """Values in a result, in the order in which the export took it apart; also of classes unknown to PyTorch."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if (item := getattr(value, field.name)) is not None:
                yield from _leaves(item)
    elif type(value) in pytree.SUPPORTED_NODES:
        yield from pytree.tree_leaves(value)
    else:
        yield value
