"""``torch.export``, tried in more ways than one, and what it says where none of them does."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import nn
from torch._export.utils import _get_shape_env_from_gm
from torch.distributions import Distribution
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils._sympy.value_ranges import ValueRanges

from lightning_trt_windows._compat.modelopt import quantizers_traced
from lightning_trt_windows._compat.precision import exact_float32
from lightning_trt_windows._compat.recurrent import recurrent_nets_kept_whole
from lightning_trt_windows._compat.torch import (
    batch_norm_without_questions,
    bounds_made_whole,
    causal_masks_not_looked_for,
    narrow_starts_read,
    no_buffer_hook_stays,
    partial_graph_not_printed,
)
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.capture.calling import Calling, Method, caches_off
from lightning_trt_windows.capture.conditions import Condition, failing, input_sizes, remove_checks, without_checks
from lightning_trt_windows.capture.constraint_fixes import Suggestion, only_truisms, suggestions
from lightning_trt_windows.capture.dimensions import Dimensions
from lightning_trt_windows.capture.failures import (
    explain_unknown_classes,
    first_lines,
    line_in_model,
    one_way,
    quantised_for_cpus,
)
from lightning_trt_windows.capture.numpy_values import numpy_values_unread
from lightning_trt_windows.capture.smallest import shape_that_changes
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.modules.containers import leaves, map_leaves
from lightning_trt_windows.modules.registration import classes_in, register_containers
from lightning_trt_windows.modules.state import state_kept
from lightning_trt_windows.progress.upstream_output import quiet

__all__ = ["GUARDS_DEFERRED", "DimensionError", "Traced", "trace"]

GUARDS_DEFERRED: dict[str, Any] = {"prefer_deferred_runtime_asserts_over_guards": True}
"""Let ``torch.export`` state as assertions what it cannot prove; for what is true of all sizes anyway."""
_DEPENDS_ON_DATA = ("GuardOnDataDependentSymNode", "UserError")
_BY_VALUE = _DEPENDS_ON_DATA[0]
_STEPS_OF_ONE = "Cannot create Dim with inconsistent"
"""``torch.export`` wants steps of which there is only one in the range, and fails to say so."""
_CLOSE = 1e-3
"""Relative norm of the difference to eager beyond which a trace is not what the module computes."""


class DimensionError(CaptureError):
    """A dynamic dimension is not as free as it was declared; ``suggestions`` say what would work."""

    def __init__(self, message: str, suggestions: tuple[Suggestion, ...]) -> None:
        super().__init__(message)
        self.suggestions = suggestions


@dataclass(frozen=True)
class Traced:
    """What came of it."""

    program: ExportedProgram
    notes: tuple[str, ...] = ()


# torch.export reads settings that it may not be able to read, and programs are compared with their modules
@exact_float32()
def trace(target: nn.Module, calling: Calling, inputs: Mapping[str, Any], device: torch.device) -> Traced:
    """Trace ``target`` with every dimension as free as ``inputs`` say.

    What the usual trace fixes, another one may leave free: at other sizes, or following Python's own code rather than
    running it, which understands ``len`` and assertions. Such a trace counts where it computes what the module does.

    Returns:
        The program, and what was found out about its dimensions.

    Raises:
        DimensionError: Some dimension is less free than declared, however it is traced.
        CaptureError: ``target`` cannot be traced; the message names the line.
    """
    attempt = _Attempt(target, calling, inputs, device)
    traced = _traced(attempt, calling)
    attempt.refuse_what_differs(traced.program)
    return traced


def _traced(attempt: _Attempt, calling: Calling) -> Traced:
    try:
        return attempt.made({}, strict=False)
    except DimensionError as error:
        first: CaptureError = error
        fixed = any(s.static is not None or s.offset or s.multiple_of > 1 for s in error.suggestions)
        if (traced := attempt.beginning_later(error, {})) is not None:
            return traced
        if not fixed:
            raise
        ways = [_Way(sizes) for sizes in attempt.other_sizes(s.symbol for s in error.suggestions)]
        ways += [_Way(strict=True)]
        ways += [_Way(sizes, deferred=True) for sizes in attempt.sizes_between(error.suggestions)]
    except CaptureError as error:
        first = error
        if _STEPS_OF_ONE in str(error):
            ways = [_Way(sizes) for sizes in attempt.other_sizes(attempt.ranges)]
        elif type(error.__cause__).__name__ in _DEPENDS_ON_DATA:
            ways = [_Way(strict=True)]
        else:
            raise
    for way in ways:
        if way.strict and not calling.is_plain:
            continue
        try:
            traced = attempt.made(way.sizes, strict=way.strict, deferred=way.deferred)
        except DimensionError as error:
            first = first if isinstance(first, DimensionError) or way.strict else error
            if not way.strict and (traced := attempt.beginning_later(error, way.sizes)) is not None:
                return traced
            continue
        except CaptureError:
            continue
        if attempt.agrees(traced.program):
            return traced
    raise first


@dataclass(frozen=True)
class _Way:
    """One more way to trace."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    """Size to trace at, by symbol, where it is not the usual one."""
    strict: bool = False
    """Follow Python's own code."""
    deferred: bool = False
    """Leave what is decided by sizes to the comparison with the module."""


class _Attempt:
    def __init__(self, target: nn.Module, calling: Calling, inputs: Mapping[str, Any], device: torch.device) -> None:
        self._target = target
        self._calling = calling
        self._inputs = inputs
        self._device = device
        self._dims = Dimensions(device)

    @property
    def ranges(self) -> Mapping[str, DimRange]:
        """Range of each symbol."""
        return self._dims.ranges

    def made(
        self, sizes: Mapping[str, int], *, strict: bool, lows: Mapping[str, int] | None = None, deferred: bool = False
    ) -> Traced:
        """A program traced at ``sizes``, with the classes of its outputs made known to ``torch.export``."""
        dims = Dimensions(self._device, sizes, lows)
        try:
            return self._made(dims, sizes, strict, lows or {}, deferred)
        except DimensionError as error:
            ends = {(s.symbol, end) for s in error.suggestions for end in (s.max, s.static)}
            if not any((symbol, dims.ranges[symbol].max) in ends for symbol in dims.with_room):
                raise
            # what takes two and no third, or does something else with two than with one, which a trace can miss
            without = Dimensions(self._device, sizes, lows, room=False)
            traced = self._made(without, sizes, strict, lows or {}, deferred)
            if not self.agrees(traced.program):
                raise
            return traced

    def _made(
        self, dims: Dimensions, sizes: Mapping[str, int], strict: bool, lows: Mapping[str, int], deferred: bool
    ) -> Traced:
        trees = {name: map_leaves(tree, dims.example, name) for name, tree in self._inputs.items()}
        self._calling.notes.clear()
        if not sizes and not lows:
            self._dims = dims
        args, kwargs = self._calling.program_arguments(trees)
        with contextlib.nullcontext() if strict else self._calling.adapted(self._target):
            program = self._with_known_outputs(args, kwargs, dims, strict, deferred)
        spec = program.call_spec.out_spec
        if strict and spec is not None and any(cls.__module__ == "torch.return_types" for cls in classes_in(spec)):
            raise CaptureError("its outputs have a class that cannot be saved")
        _take_room(program, self._symbols(), {symbol: dims.ranges[symbol].max for symbol in dims.with_room})
        self._refuse_other_ways(program)
        if deferred:
            # what they say was compared, and at a size that PyTorch sets aside they fail
            remove_checks(program.graph_module)
        self._refuse_other_shapes(program, lows)
        return Traced(program, tuple(dict.fromkeys(self._calling.notes)))

    def other_sizes(self, symbols: Iterable[str]) -> list[dict[str, int]]:
        """Sizes at which a trace may go another way: the largest ones, then some in the middle."""
        names, found = list(symbols), []
        for pick in (_largest, _middle):
            sizes = {
                name: pick(self.ranges[name])
                for name in names
                if name in self.ranges and pick(self.ranges[name]) not in (self._dims.traced_at(name), 0, 1)
            }
            if sizes and sizes not in found:
                found.append(sizes)
        return found

    def sizes_between(self, suggestions: Iterable[Suggestion]) -> list[dict[str, int]]:
        """Sizes that are not among the multiples that a trace works for, if the module itself takes them.

        Where it pads what is not a multiple of its window, and nothing else, a trace that pads is right for all sizes.
        """
        sizes: dict[str, int] = {}
        for suggestion in suggestions:
            dim = self.ranges.get(suggestion.symbol)
            if dim is None or suggestion.multiple_of == 1:
                continue
            choices = range(dim.max, max(dim.min, 2) - 1, -dim.multiple_of)
            between = [n for n in choices if (n - suggestion.offset) % suggestion.multiple_of]
            if between:
                sizes[suggestion.symbol] = between[0]
        return [sizes] if sizes and self._takes(sizes) else []

    def beginning_later(self, error: DimensionError, sizes: Mapping[str, int]) -> Traced | None:
        """A program that was traced without the smallest sizes and takes them all the same; ``None`` if there is none.

        PyTorch takes a size of 1 for something else than a size, wherever it comes up: 32 pixels are refused where a
        feature map has one. What it would make of them is compared with what the module makes.
        """
        lows: dict[str, int] = {}
        for suggestion in error.suggestions:
            dim = self.ranges.get(suggestion.symbol)
            plain = suggestion == Suggestion(suggestion.symbol, min=suggestion.min)
            if dim is None or dim.multiple_of > 1 or suggestion.min is None or not plain or suggestion.min >= dim.max:
                return None
            lows[suggestion.symbol] = suggestion.min
        at = {
            symbol: max(low, self._dims.traced_at(symbol) or low, sizes.get(symbol, low))
            for symbol, low in lows.items()
        }
        try:
            traced = self.made({**sizes, **at}, strict=False, lows=lows)
        except CaptureError:
            return None
        _let_begin(traced.program, {symbol: self.ranges[symbol].min for symbol in lows}, self._symbols())
        between: list[dict[str, int]] = [{symbol: self.ranges[symbol].min} for symbol in lows]
        if any(shape_that_changes(traced.program, self._symbols(), sizes) for sizes in between):
            return None
        return traced if self.agrees(traced.program, between) else None

    def _symbols(self) -> list[tuple[str | None, ...]]:
        """Symbols of each tensor input, in the program's order."""
        found = leaves({name: self._inputs[name] for name in self._calling.templates})
        return [Dimensions.symbols(name, leaf) for name, leaf in found if isinstance(leaf, InputSpec)]

    def agrees(self, program: ExportedProgram, others: Iterable[Mapping[str, int]] = ()) -> bool:
        """Whether the program computes what the module does, at the ends of all ranges and at the usual sizes.

        Args:
            program: As traced.
            others: Sizes by symbol to look at besides, with the largest ones of all other symbols.
        """
        ends = [{symbol: getattr(dim, end) for symbol, dim in self.ranges.items()} for end in ("opt", "min", "max")]
        # at sizes that a trace sets aside, a batch of 1 above all, an engine computes what this does
        module = without_checks(program)
        return all(self._agrees_at(module, sizes) for sizes in (*ends, *({**ends[-1], **other} for other in others)))

    def _agrees_at(self, program: nn.Module, sizes: Mapping[str, int]) -> bool:
        args, kwargs = self._arguments_at(sizes)
        try:
            with self._calling.adapted(self._target):
                wanted = _run(self._target, args, kwargs)
        except Exception:
            return True  # a size that the module itself does not take
        try:
            found = _run(program, args, kwargs)
        # sizes that it cannot compute with
        except Exception:
            return False
        pairs = zip(tree_leaves(wanted), tree_leaves(found))
        return all(_close(a, b) for a, b in pairs if isinstance(a, torch.Tensor))

    def refuse_what_differs(self, program: ExportedProgram) -> None:
        """Call the module again and again with the same inputs, and with PyTorch's random numbers begun anew.

        Operators that give something else each time are in the program, and do so there.

        Raises:
            CaptureError: It gives something else each time: numbers that Python or NumPy drew, or a count of its calls,
                are constants in a program. Or ``forward`` is not given what the module is called with, by a forward
                pre-hook or a ``__call__`` of its own: ranges are those of ``forward``, and a program would do it twice.
        """
        smallest = {symbol: dim.min for symbol, dim in self.ranges.items()}
        args, kwargs = self._arguments_at(smallest)
        found: list[list[Any]] = []
        arrives: list[bool] = []
        try:
            with (
                self._calling.adapted(self._target),
                state_kept(self._target),
                torch.compiler.set_stance("force_eager"),
            ):
                forward = vars(self._target)["forward"]
                # the first call may make what later ones find, so that two of them prove nothing
                while len(found) < 3 and (len(found) < 2 or not _all_close(*found[-2:])):
                    _seed_all(len(found))
                    # forward may write to its inputs
                    given = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, (args, kwargs))
                    vars(self._target)["forward"] = _noting(forward, given, arrives)
                    found.append(tree_leaves(self._target(*given[0], **given[1])))
        except Exception:
            return  # a size that the module itself does not take
        if not all(arrives):
            raise CaptureError(
                f"{_owner(self._target)} is given something else than {type(self._target).__name__} is called with, by "
                "a forward pre-hook or by a __call__ of its own. What forward is given has the shapes and types that "
                "were seen, and a program would change it once more. Do it in forward, or remove the hook first"
            )
        if not _all_close(*found[-2:]) and _repeats(program, *self._arguments_at(smallest)):
            raise CaptureError(
                f"{_owner(self._target)} gives something else each time that it is called with the same inputs, also "
                "where PyTorch's random numbers begin anew: it draws from Python's or NumPy's generators, or counts "
                "its calls. A program would hold the numbers of one call. Draw with PyTorch (torch.rand), or leave it "
                "out in eval mode (if self.training)"
            )

    def _refuse_other_ways(self, program: ExportedProgram) -> None:
        """Compare the program with the module at sizes at which something fails that the trace took for granted.

        Raises:
            DimensionError: The program differs from the module: ``forward`` takes another branch there. Or the module
                takes multiples only, as attention over windows does.
        """
        module: nn.Module | None = None
        for condition in failing(program, self._symbols(), self.ranges):
            self._refuse_sizes_that_fail(condition)
            module = module or without_checks(program)
            for sizes in condition.sizes:
                if not self._agrees_at(module, sizes):
                    at = ", ".join(f"{symbol}={size}" for symbol, size in sizes.items())
                    fixed = {symbol: self._dims.traced_at(symbol) for symbol in condition.symbols}
                    raise DimensionError(
                        f"{_owner(self._target)} takes another branch where {condition.text} does not hold, as at {at}"
                        "; a trace holds one branch",
                        tuple(Suggestion(symbol, static=size) for symbol, size in fixed.items()),
                    )

    def _refuse_sizes_that_fail(self, condition: Condition) -> None:
        finer = {s: step for s, step in condition.steps.items() if step > self.ranges[s].multiple_of}
        if not finer or any(self._takes(sizes) for sizes in condition.sizes):
            return
        at = ", ".join(f"{symbol}={size}" for symbol, size in condition.sizes[0].items())
        only = ", ".join(f"{symbol} in multiples of {step}" for symbol, step in finer.items())
        raise DimensionError(
            f"{_owner(self._target)} fails where {condition.text} does not hold, as at {at}: it takes {only}",
            tuple(Suggestion(symbol, multiple_of=step) for symbol, step in finer.items()),
        )

    def _takes(self, sizes: Mapping[str, int]) -> bool:
        """Whether the module itself runs at ``sizes``."""
        args, kwargs = self._arguments_at(sizes)
        try:
            with self._calling.adapted(self._target):
                _run(self._target, args, kwargs)
        except Exception:
            return False
        return True

    def _arguments_at(self, sizes: Mapping[str, int]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def tensor(name: str, leaf: Any) -> Any:
            return self._dims.tensor(name, leaf, sizes) if isinstance(leaf, InputSpec) else leaf

        return self._calling.program_arguments({n: map_leaves(tree, tensor, n) for n, tree in self._inputs.items()})

    def _refuse_other_shapes(self, program: ExportedProgram, lows: Mapping[str, int]) -> None:
        """Compare the shapes in the program with those that it has at a size of 1, which PyTorch takes for 2 and more.

        Raises:
            DimensionError: They differ: an engine that is built from the program could not run there.
        """
        ones = {
            symbol: 1
            for symbol, dim in self._dims.ranges.items()
            if dim.min == 1 and not dim.is_static and symbol not in lows
        }
        if not ones or not shape_that_changes(program, self._symbols(), ones):
            return
        for symbol in ones:
            if changes := shape_that_changes(program, self._symbols(), {symbol: 1}):
                node, shapes = changes
                raise DimensionError(
                    f"{operator_name(node)}{model_line(node)} in {_owner(self._target)} gives {shapes} at "
                    f"{symbol}=1, and a trace holds one of them",
                    (Suggestion(symbol, min=2),),
                )

    def _with_known_outputs(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], dims: Dimensions, strict: bool, deferred: bool
    ) -> ExportedProgram:
        try:
            return _export(self._target, args, kwargs, dims, strict, deferred)
        except DimensionError:
            raise
        except CaptureError as error:
            result = _or_nothing(lambda: _run(self._target, args, kwargs))
            if not register_containers(result):
                explain_unknown_classes(result, error)
                raise
            return _export(self._target, args, kwargs, dims, strict, deferred)


def _let_begin(program: ExportedProgram, lows: Mapping[str, int], inputs: Sequence[tuple[str | None, ...]]) -> None:
    """Let ranges of ``program`` begin at ``lows``, by symbol, wherever PyTorch has them noted."""
    environment = _get_shape_env_from_gm(program.graph_module)
    for size, symbol in input_sizes(program, inputs):
        if symbol in lows:
            key = size.node.expr
            bounds = ValueRanges(sympy.Integer(lows[symbol]), program.range_constraints[key].upper)
            program.range_constraints[key] = bounds
            if environment is not None:
                environment.var_to_range[key] = bounds


def _take_room(program: ExportedProgram, inputs: Sequence[tuple[str | None, ...]], highs: Mapping[str, int]) -> None:
    """Let the ranges that ``program`` promises end at ``highs``, by symbol; what was traced keeps its room."""
    for size, symbol in input_sizes(program, inputs) if highs else ():
        if symbol not in highs:
            continue
        expression = size.node.expr
        for key in (expression, *expression.free_symbols):
            if key in program.range_constraints:
                high = highs[symbol] if key == expression else highs[symbol] * key // expression
                bounds = ValueRanges(program.range_constraints[key].lower, sympy.Integer(high))
                program.range_constraints[key] = bounds


def _largest(dim: DimRange) -> int:
    return dim.max


def _middle(dim: DimRange) -> int:
    return (dim.min + dim.max) // 2 // dim.multiple_of * dim.multiple_of


def _run(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    with state_kept(module), torch.compiler.set_stance("force_eager"):
        return module(*args, **kwargs)


def _or_nothing(make: Callable[[], Any]) -> Any:
    """``None`` where it fails, which the trace tells better."""
    try:
        return make()
    except Exception:
        return None


def _noting(forward: Callable[..., Any], given: Any, arrives: list[bool]) -> Callable[..., Any]:
    """``forward``, which notes whether the tensors that it is called with are those of ``given``."""
    known = {id(leaf) for leaf in tree_leaves(given)}

    def noting(*args: Any, **kwargs: Any) -> Any:
        arrives.append(all(id(x) in known for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)))
        return forward(*args, **kwargs)

    return noting


def _repeats(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``program`` gives the same each time, as far as that can be seen: memory that nobody filled may be."""
    if any("empty" in str(node.target) for node in program.graph.nodes if node.op == "call_function"):
        return False
    module = without_checks(program)
    try:
        return _all_close(*(tree_leaves(_run(module, args, kwargs)) for _ in range(2)))
    except Exception:  # at sizes that it does not take, a number that counts calls among them
        return True


def _seed_all(seed: int) -> None:
    """PyTorch's numbers from the same beginning, and those of Python and NumPy from another one."""
    torch.manual_seed(0)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)


def _all_close(ones: list[Any], others: list[Any]) -> bool:
    """Whether two results are the same, as far as they are tensors and numbers."""
    if len(ones) != len(others):
        return False
    pairs = [(a, b) for a, b in zip(ones, others) if isinstance(a, (torch.Tensor, bool, int, float))]
    return all(_close(a, b) if isinstance(a, torch.Tensor) else a == b or a != a for a, b in pairs)


def _close(one: torch.Tensor, other: Any) -> bool:
    if not isinstance(other, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    wanted, found = one.double().nan_to_num(), other.double().nan_to_num()
    return bool((found - wanted).norm() <= _CLOSE * wanted.norm() + 1e-9)


def _owner(target: nn.Module) -> str:
    """``Net.forward``, for messages."""
    owner = type(target.module if isinstance(target, Method) else target).__name__
    return f"{owner}.{getattr(target, 'method', 'forward')}"


@contextlib.contextmanager
def _distributions_not_validated() -> Iterator[None]:
    """Arguments of ``torch.distributions`` are checked by value, which no trace can follow; samples are, too."""
    before = Distribution._validate_args, Distribution.__init__, Distribution._validate_sample

    def init(self: Distribution, *args: Any, **kwargs: Any) -> None:
        before[1](self, *args[:2], **{**kwargs, "validate_args": False})

    def accept(self: Distribution, value: torch.Tensor) -> None:
        """Whatever it is."""

    Distribution.set_default_validate_args(False)
    # some ask for it by an argument, and some look at samples without being asked
    Distribution.__init__, Distribution._validate_sample = init, accept  # type: ignore[method-assign]
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before[0])
        Distribution.__init__, Distribution._validate_sample = before[1:]  # type: ignore[method-assign]


def _export(
    target: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: Dimensions, strict: bool, deferred: bool
) -> ExportedProgram:
    options: dict[str, Any] = {"dynamic_shapes": dims.shapes, "strict": strict}
    options |= GUARDS_DEFERRED if deferred else {}
    try:
        with (
            quiet(),
            partial_graph_not_printed(),
            bounds_made_whole(),
            # what follows Python's code would follow it into this, too
            contextlib.nullcontext() if strict else narrow_starts_read(),
            causal_masks_not_looked_for(),
            batch_norm_without_questions(),
            quantizers_traced(),
            recurrent_nets_kept_whole(),
            no_buffer_hook_stays(),
            caches_off(target),
            numpy_values_unread(),
            _distributions_not_validated(),
        ):
            try:
                return torch.export.export(target, args, kwargs, **options)
            except Exception as error:
                if not only_truisms(str(error)):
                    raise
                return torch.export.export(target, args, kwargs, **options | GUARDS_DEFERRED)
    # tracing runs the user's forward, which can raise anything
    except Exception as error:
        message = f"torch.export could not trace {_owner(target)}{line_in_model(error)}: {first_lines(error)}"
        if type(error).__name__ == _BY_VALUE:
            message += f"\n{one_way(target.module if isinstance(target, Method) else target)}"
        if quantised := quantised_for_cpus(target):
            message += f"\n{quantised}"
        if found := suggestions(str(error)):
            raise DimensionError(message, tuple(map(dims.translated, found))) from error
        raise CaptureError(message) from error
