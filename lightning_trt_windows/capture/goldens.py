"""Record goldens (reference outputs): run the captured program on the CPU, before anything is lowered or compiled.

None of the user's code runs, no random state is touched, and no tensor of the program is written to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils._pytree import tree_map

from lightning_trt_windows._compat.precision import exact_float32
from lightning_trt_windows.artifact.files import output_errors
from lightning_trt_windows.artifact.manifest import FileRecord, InputRecord, OutputRecord
from lightning_trt_windows.modules.numbers import relative_norm
from lightning_trt_windows.modules.state import random_state_kept
from lightning_trt_windows.settings import ExportSettings
from lightning_trt_windows.verification.golden_file import (
    Fill,
    Golden,
    Goldens,
    filled,
    golden_shapes,
    ways_to_fill,
    write_goldens,
)

__all__ = ["Recorded", "record_goldens"]

_SEED = 0
_LARGEST = 1 << 28
"""Bytes of all inputs and outputs together; what goes beyond is left out."""
_LONGEST = 60.0
"""Seconds that one call may take on the CPU, as far as the calls before let expect."""
_RANDOM = 1e-3
"""Relative norm between two runs on the same inputs from which on the program draws random numbers."""
_MATRIX_OPERATORS = frozenset(
    {"linear", "mm", "bmm", "mv", "dot", "matmul", "einsum", "tensordot", "bilinear", "_trilinear"}
    | {"addmm", "addmv", "baddbmm", "addbmm", "scaled_dot_product_attention"}
    | {"convolution", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))}
    | {"lstm", "gru", "rnn_tanh", "rnn_relu"}
)
"""What GPUs compute with coarser arguments, by the operator's name without overload."""


@dataclass(frozen=True)
class Recorded:
    """What came of recording."""

    inputs: tuple[InputRecord, ...]
    goldens: Goldens | None = None
    notes: tuple[str, ...] = ()
    """Sentences: which sizes are missing, and why."""

    def write(self, path: Path) -> FileRecord | None:
        """Write the goldens to ``path``, or remove older ones from there, which are of another artifact.

        Returns:
            The record for the manifest; ``None`` where no goldens were to be recorded.

        Raises:
            OutputError: The file cannot be written or removed.
        """
        if self.goldens is not None:
            return write_goldens(path, self.inputs, self.goldens)
        with output_errors(path, 0):
            path.unlink(missing_ok=True)
        return None


def record_goldens(
    program: ExportedProgram,
    inputs: tuple[InputRecord, ...],
    outputs: Sequence[OutputRecord],
    values: tuple[tuple[float, float] | None, ...],
    settings: ExportSettings,
) -> Recorded:
    """Run ``program`` at the usual, the smallest and the largest sizes and between them, and keep what goes in and out.

    Args:
        program: On the CPU; it is not changed.
        inputs: Its inputs, with their ranges.
        outputs: Its outputs, in order.
        values: Lowest and highest value of each input, as far as they are known.
        settings: Nothing is recorded where they do not ask for goldens or for verification.

    Returns:
        The inputs and outputs, or notes on why there are none.
    """
    if not (settings.golden or settings.verify):
        return Recorded(inputs)
    bits = _mantissa_bits(program, settings.precision)
    recorder = _Recorder(program, inputs, outputs, values, bits)
    with random_state_kept(), torch.no_grad(), exact_float32():
        return recorder.record()


def _mantissa_bits(program: ExportedProgram, precision: str | None) -> int:
    """Bits of what matrix products read: TF32 and float16 have the same, bfloat16 has fewer."""
    dtypes = {tensor.dtype for tensor in program.state_dict.values()}
    return 7 if precision == "bf16" or (torch.bfloat16 in dtypes and precision is None) else 10


class _Recorder:
    def __init__(
        self,
        program: ExportedProgram,
        inputs: tuple[InputRecord, ...],
        outputs: Sequence[OutputRecord],
        values: tuple[tuple[float, float] | None, ...],
        bits: int,
    ) -> None:
        self._program = program
        self._inputs = inputs
        self._outputs = outputs
        self._values = values
        self._bits = bits
        self._seconds_per_element = 0.0
        self._bytes = 0
        self._notes: list[str] = []

    def record(self) -> Recorded:
        sets: list[Golden] = []
        shapes = golden_shapes(self._inputs)
        # the cheapest first: how long it takes says what the others will
        for name in sorted(shapes, key=lambda name: _elements(shapes[name])):
            golden = self._golden(name, shapes[name])
            if isinstance(golden, str):
                self._notes.append(f"no goldens at the sizes {name}: {golden}")
            elif not sets and (drift := self._drift(golden)) > _RANDOM:
                why = f"the module draws random numbers, its outputs differ by {drift:.1e} from run to run"
                return Recorded(self._inputs, None, (f"no goldens: {why}",))
            else:
                sets.append(golden)
                self._notes += _degenerate(golden)
        if not sets:
            return Recorded(self._inputs, None, tuple(self._notes))
        order = list(shapes)
        sets.sort(key=lambda golden: order.index(golden.name))
        by = f"eager PyTorch {torch.__version__} on the CPU, in the types of the module"
        return Recorded(self._inputs, Goldens(tuple(sets), by, "synthetic", _SEED), tuple(self._notes))

    def _golden(self, name: str, shapes: Sequence[Sequence[int]]) -> Golden | str:
        """One set, or why there is none."""
        expected = self._seconds_per_element * _elements(shapes)
        if expected > _LONGEST:
            return f"they would take about {expected:.0f} s on the CPU"
        if self._bytes + _size(self._inputs, shapes) > _LARGEST:
            return f"goldens have at most {_LARGEST >> 20} MiB"
        found = self._first_that_runs(shapes)
        if isinstance(found, str):
            return found
        inputs, outputs, fill = found
        # the second run: in the first one PyTorch makes much that it keeps
        started = time.perf_counter()
        noisy = self._run(inputs, noise=True)
        self._seconds_per_element = 2 * (time.perf_counter() - started) / max(_elements(shapes), 1)
        size = sum(t.numel() * t.element_size() for t in (*inputs, *outputs.values()))
        if self._bytes + size > _LARGEST:
            return f"goldens have at most {_LARGEST >> 20} MiB"
        self._bytes += size
        if lowest := [self._inputs[n].name for n in sorted(fill.lowest)]:
            self._notes.append(
                f"goldens at the sizes {name} have the lowest whole number everywhere in {', '.join(lowest)}: with "
                "others among those seen, the module does not run or gives what is not finite"
            )
        rounding = {key: relative_norm(noisy[key], outputs[key]) for key in outputs if key in noisy}
        return Golden(name, tuple(inputs), outputs, {k: v for k, v in rounding.items() if math.isfinite(v)})

    def _first_that_runs(
        self, shapes: Sequence[Sequence[int]]
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor], Fill] | str:
        """Inputs whose outputs are all finite if there are such, else any that run, else the reason."""
        ran: tuple[list[torch.Tensor], dict[str, torch.Tensor], Fill] | None = None
        reason = ""
        for fill in ways_to_fill(self._inputs, self._values):
            inputs = filled(self._inputs, shapes, fill, _SEED)
            try:
                outputs = self._run(inputs)
            # indices beyond what they index, an operator that CPUs do not have in this type
            except Exception as error:
                reason = reason or f"the program does not run on the CPU with synthetic inputs: {_first_line(error)}"
                continue
            if all(t.isfinite().all() for t in outputs.values()):
                return inputs, outputs, fill
            ran = ran or (inputs, outputs, fill)
        return ran or reason

    def _drift(self, golden: Golden) -> float:
        torch.manual_seed(_SEED + 1)
        again = self._run(list(golden.inputs))
        return max((relative_norm(again[key], golden.outputs[key]) for key in golden.outputs), default=0.0)

    def _run(self, inputs: Sequence[torch.Tensor], *, noise: bool = False) -> dict[str, torch.Tensor]:
        """The outputs by name. ``noise`` shakes what matrix products read, by half of its last bit on the GPU."""
        program, given = self._program, iter(inputs)
        arguments: list[Any] = []
        for spec in program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                constant = isinstance(spec.arg, ConstantArgument)
                # a copy, because a program may write to what it is given
                arguments.append(spec.arg.value if constant else next(given).clone())
            elif spec.kind is InputKind.PARAMETER:
                arguments.append(program.state_dict[spec.target])
            else:
                held = program.state_dict.get(spec.target)
                held = program.constants[spec.target] if held is None else held
                arguments.append(held.clone() if isinstance(held, torch.Tensor) else held)
        interpreter = _Eager(program.graph_module, self._bits if noise else None)
        results = interpreter.run(*arguments, enable_io_processing=False)
        first = len(program.graph_signature.output_specs) - len(program.graph_signature.user_outputs)
        found: dict[str, torch.Tensor] = {}
        for record, result in zip(self._outputs, results[first:], strict=True):
            if isinstance(result, torch.Tensor):
                found[record.name] = result
            elif isinstance(result, (bool, int, float)):
                found[record.name] = torch.tensor(result, dtype=torch.float64 if isinstance(result, float) else None)
        return found


def _degenerate(golden: Golden) -> Iterator[str]:
    """Sentences about outputs with which no engine can be found wrong."""
    for name, value in golden.outputs.items():
        odd = int((~value.isfinite()).sum())
        if odd == value.numel() > 0:
            yield (
                f"goldens at the sizes {golden.name} check nothing of {name}: it is NaN or infinite in the module as "
                "well"
            )
        elif odd:
            yield (
                f"goldens at the sizes {golden.name} leave out {odd} of {value.numel()} values of {name}, which are "
                "NaN or infinite in the module as well"
            )


class _Eager(torch.fx.Interpreter):
    """Runs the graph as it is, or with shaken arguments of matrix products."""

    def __init__(self, module: torch.fx.GraphModule, bits: int | None) -> None:
        super().__init__(module)
        self._bits = bits
        self._generator = torch.Generator().manual_seed(_SEED)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if self._bits is not None and _name(target) in _MATRIX_OPERATORS:
            args, kwargs = tree_map(self._shaken, args), tree_map(self._shaken, kwargs)
        return super().call_function(target, args, kwargs)

    def _shaken(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        assert self._bits is not None
        # rounding to n bits is off by up to 2^-(n+1) of the value, either way; a tensor that has no more bits than that
        # needs twice as much to move at all
        width = 2.0**-self._bits * (1 if value.dtype in (torch.float32, torch.float64) else 2)
        noise = torch.rand(value.shape, generator=self._generator).sub_(0.5).mul_(width).add_(1)
        return (value * noise).to(value.dtype)


def _name(target: Any) -> str:
    schema = getattr(target, "_schema", None)
    return str(schema.name).rpartition("::")[2] if schema is not None else ""


def _elements(shapes: Sequence[Sequence[int]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _size(records: Sequence[InputRecord], shapes: Sequence[Sequence[int]]) -> int:
    widths = [torch.empty(0, dtype=getattr(torch, record.dtype)).element_size() for record in records]
    return sum(width * math.prod(shape) for width, shape in zip(widths, shapes))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
