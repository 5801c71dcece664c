"""Workarounds for PyTorch itself."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lightning_trt_windows._compat.versions import Workaround
from lightning_trt_windows.progress.upstream_output import stderr_kept

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

__all__ = [
    "BATCH_NORM_ASKS_WHETHER_IT_IS_EMPTY",
    "BOUNDS_MUST_BE_WHOLE",
    "BUFFER_HOOK_STAYS",
    "CAUSAL_MASKS_ARE_LOOKED_FOR",
    "CONVOLUTION_NARROWS_RANGES",
    "MULTIPLES_ARE_READ_AS_SYMBOLS",
    "NARROW_LOSES_ITS_START",
    "PARTIAL_GRAPH_IS_PRINTED",
    "STREAMS_ARE_MADE_IN_PYTHON",
    "batch_norm_without_questions",
    "bounds_made_whole",
    "causal_masks_not_looked_for",
    "cpu_convolution_heuristics_off",
    "current_stream_handle",
    "narrow_starts_read",
    "no_buffer_hook_stays",
    "no_process_groups",
    "only_symbols_have_ranges",
    "partial_graph_not_printed",
    "paths_of_exports",
    "shape_environment",
]

CONVOLUTION_NARROWS_RANGES = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="A convolution of fake CPU tensors asks mkldnn and NNPACK whether they like the batch size, and the answer "
    "becomes a guard: a batch of 1..16 turns into 2..15, or 16 and more.",
    link="https://github.com/pytorch/pytorch/issues/118289",
    test="test_torch.py::test_convolutions_still_guard_on_the_batch",
    delete="torch._C._select_conv_backend no longer looks at the batch size.",
)

CAUSAL_MASKS_ARE_LOOKED_FOR = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="nn.Transformer, its encoder and its decoder look into a mask to see whether it is causal, which no trace "
    "can follow: no decoder with a mask can be captured.",
    link="https://github.com/pytorch/pytorch/pull/91171",
    test="test_torch.py::test_transformers_still_look_for_causal_masks",
    delete="torch.export captures nn.TransformerDecoder with a mask.",
)

MULTIPLES_ARE_READ_AS_SYMBOLS = Workaround(
    upstream="torch",
    since="2.14",
    until=None,
    reason="torch.export.load enters the range of 8*s among those of symbols, and the next pass over the program fails "
    "with 'expected sympy.Symbol': no program with a dimension of multiples could travel.",
    link="https://github.com/pytorch/pytorch/blob/v2.14.0/torch/_export/serde/serialize.py",
    test="test_torch.py::test_multiples_are_still_read_as_symbols",
    delete="A program with a dimension 8*d that was saved and loaded can be decomposed.",
)

BATCH_NORM_ASKS_WHETHER_IT_IS_EMPTY = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="Batch norm asks whether its input is empty, which nobody knows of a number of rows that data decides: no "
    "trace goes on from there, as in graph networks that sum the atoms of each molecule.",
    link="https://github.com/pytorch/pytorch/blob/v2.14.0/aten/src/ATen/native/Normalization.cpp",
    test="test_torch.py::test_batch_norm_still_asks_whether_it_is_empty",
    delete="torch.export captures nn.BatchNorm1d on x.new_zeros(int(index.max()) + 1, 3).",
)

PARTIAL_GRAPH_IS_PRINTED = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="torch.export prints the graph it has so far to stderr when it fails: thousands of lines.",
    link="https://github.com/pytorch/pytorch/pull/149831",
    test="test_torch.py::test_torch_export_still_prints_its_graph",
    delete="It goes through logging, or has to be asked for.",
)

NARROW_LOSES_ITS_START = Workaround(
    upstream="torch",
    since="2.14",
    until=None,
    reason="narrow reads a start that is a tensor inside of its own C++, where torch.export loses it: every such call "
    "fails with PendingUnbackedSymbolNotFound.",
    link="https://github.com/pytorch/pytorch/blob/v2.14.0/aten/src/ATen/native/TensorShape.cpp",
    test="test_torch.py::test_narrow_still_loses_a_start_that_is_a_tensor",
    delete="torch.export captures x.narrow(0, torch.tensor(2), 2).",
)

BUFFER_HOOK_STAYS = Workaround(
    upstream="torch",
    since="2.11",
    until="2.14",
    reason="torch.export leaves a global hook behind when it fails (seen on 2.12, not on 2.14; 2.13 was not tried): "
    "from then on the module cannot be given a buffer, and its training ends with 'expected FakeTensor'.",
    link="https://github.com/pytorch/pytorch/blob/v2.12.0/torch/_functorch/_aot_autograd/utils.py",
    test="test_torch.py::test_a_failed_export_leaves_a_hook_below_the_bound",
    delete="2.13 is no longer supported.",
)

BOUNDS_MUST_BE_WHOLE = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="Where a dimension is less free than it was declared and its bound is a fraction (size < 7/2), or another "
    "dimension, torch.export fails with AssertionError: Expected op to be '==' in place of its suggestions.",
    link="https://github.com/pytorch/pytorch/issues/121286",
    test="test_torch.py::test_bounds_that_are_fractions_still_end_in_an_assertion",
    delete="torch.export suggests a range for a module that takes sizes below 7/2.",
)

STREAMS_ARE_MADE_IN_PYTHON = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="torch.cuda.current_stream makes an object of three classes to say a number, in each call of an engine.",
    link="https://github.com/pytorch/pytorch/blob/v2.14.0/torch/cuda/__init__.py",
    test="test_torch.py::test_the_current_stream_is_still_an_object_made_in_python",
    delete="torch.cuda has a public way to the current stream's handle, or makes its streams in C++.",
)


def current_stream_handle(device: torch.device) -> Callable[[], int]:
    """Gives the ``cudaStream_t`` of the current stream on ``device``, which has an index; 0 is the default one."""
    import torch

    return functools.partial(torch._C._cuda_getCurrentRawStream, device.index)


@contextlib.contextmanager
def no_buffer_hook_stays() -> Iterator[None]:
    """Take away the hooks on the registration of buffers that the block has left behind."""
    import torch

    hooks: Any = torch.nn.modules.module._global_buffer_registration_hooks
    before = dict(hooks)
    try:
        yield
    finally:
        for key in [key for key in hooks if key not in before]:
            del hooks[key]


@contextlib.contextmanager
def narrow_starts_read() -> Iterator[None]:
    """Let ``narrow`` in the block begin at a tensor's value, which is read before the call. It stays a view."""
    import torch
    from torch.overrides import TorchFunctionMode

    def narrow(input: Any, dim: int, start: Any, length: int) -> Any:
        size = input.shape[dim]
        number = torch.where(start < 0, start + size, start).item()
        torch._check(number >= 0)
        torch._check(number + length <= size)
        return input.narrow(dim, number, length)

    class Reading(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            if func in (torch.narrow, torch.Tensor.narrow):
                start = args[2] if len(args) > 2 else given.get("start")
                if isinstance(start, torch.Tensor):
                    return narrow(*args, **given)
            return func(*args, **given)

    with Reading():
        yield


@contextlib.contextmanager
def no_process_groups() -> Iterator[None]:
    """Let the block find itself in a process of its own: what would wait for other processes fails in their stead."""
    import torch.distributed

    if not torch.distributed.is_available():
        yield
        return
    distributed_c10d: Any = torch.distributed.distributed_c10d

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("it would wait for other processes")

    group, rendezvous = distributed_c10d.GroupMember.WORLD, distributed_c10d.rendezvous
    distributed_c10d.GroupMember.WORLD = None
    distributed_c10d.rendezvous = refuse
    try:
        yield
    finally:
        distributed_c10d.GroupMember.WORLD = group
        distributed_c10d.rendezvous = rendezvous


def shape_environment(program: ExportedProgram) -> Any:
    """The ``ShapeEnv`` in which the sizes of ``program`` are symbols; ``None`` where all are static."""
    from torch._export.utils import _get_shape_env_from_gm

    return _get_shape_env_from_gm(program.graph_module)


def only_symbols_have_ranges(program: ExportedProgram) -> None:
    """Take the ranges of expressions out of what ``torch.export.load`` has noted; those of their symbols remain."""
    import sympy

    environment = shape_environment(program)
    ranges = {} if environment is None else environment.var_to_range
    for expression in [key for key in ranges if not isinstance(key, sympy.Symbol)]:
        del ranges[expression]


@contextlib.contextmanager
def cpu_convolution_heuristics_off() -> Iterator[None]:
    """Keep the CPU's choice of a convolution kernel out of the shape guards.

    Both must be off, and only around our own work: the flags are global and the user's training wants them on.
    """
    import torch

    with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield


@contextlib.contextmanager
def causal_masks_not_looked_for() -> Iterator[None]:
    """Keep ``nn.Transformer`` and its encoder and decoder from looking into a mask to see whether it is causal.

    What they find is a hint beside the mask, which is applied either way.
    """
    from torch.nn.modules import transformer

    real = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = real


@contextlib.contextmanager
def batch_norm_without_questions() -> Iterator[None]:
    """Let batch norm with running statistics be arithmetic where data decides how many rows there are."""
    import torch
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    functional: Any = torch.nn.functional
    real = functional.batch_norm

    def batch_norm(
        input: Any,
        running_mean: Any,
        running_var: Any,
        weight: Any = None,
        bias: Any = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Any:
        sizes = [size for size in input.shape if isinstance(size, torch.SymInt)]
        by_data = any(free_unbacked_symbols(size) for size in sizes)
        if training or running_mean is None or running_var is None or not by_data:
            return real(input, running_mean, running_var, weight, bias, training, momentum, eps)
        scale = torch.rsqrt(running_var + eps) if weight is None else weight * torch.rsqrt(running_var + eps)
        shift = -running_mean * scale if bias is None else bias - running_mean * scale
        shape = [1, -1, *[1] * (input.dim() - 2)]
        return (input * scale.reshape(shape) + shift.reshape(shape)).to(input.dtype)

    functional.batch_norm = batch_norm
    try:
        yield
    finally:
        functional.batch_norm = real


@contextlib.contextmanager
def partial_graph_not_printed() -> Iterator[None]:
    """Keep ``torch.export`` from printing the graph it has so far when it fails (``partial_fx_graph``)."""
    with stderr_kept():
        yield


@contextlib.contextmanager
def bounds_made_whole() -> Iterator[None]:
    """Let ``torch.export`` say which sizes a module takes where the bound of a dimension is not a whole number."""
    from torch.fx.experimental.symbolic_shapes import DimConstraints

    real = DimConstraints.prettify_results

    def prettified(self: Any, *args: Any, **kwargs: Any) -> str:
        for name in ("_static_results", "_dynamic_results"):
            setattr(self, name, {whole for text in getattr(self, name) if (whole := _with_whole_bound(text))})
        return real(self, *args, **kwargs)

    DimConstraints.prettify_results = prettified  # type: ignore[method-assign]
    try:
        yield
    finally:
        DimConstraints.prettify_results = real  # type: ignore[method-assign]


def _with_whole_bound(relation: str) -> str:
    """``x <= 3`` for ``x < 7/2``; empty for what bounds no size by a number."""
    left, operator, right = re.split(r"( == | <= | >= | < | > )", relation)
    if operator == " == ":
        return relation
    number = r"-?\d+(?:/\d+)?"
    if re.fullmatch(number, left):
        left, operator, right = right, operator.translate(str.maketrans("<>", "><")), left
    if not re.fullmatch(number, right):
        return ""
    bound, is_upper, is_strict = Fraction(right), "<" in operator, "=" not in operator
    if is_upper:
        whole = math.ceil(bound) - 1 if is_strict else math.floor(bound)
    else:
        whole = math.floor(bound) + 1 if is_strict else math.ceil(bound)
    return f"{left} {'<=' if is_upper else '>='} {whole}" if whole >= 0 else ""


@contextlib.contextmanager
def paths_of_exports() -> Iterator[None]:
    """Let code in the block that asks ``torch.compiler.is_exporting()`` or ``is_compiling()`` go the way of a trace."""
    import torch

    flags = [name for name in ("_is_compiling_flag", "_is_exporting_flag") if hasattr(torch.compiler, name)]
    before = {name: getattr(torch.compiler, name) for name in flags}
    try:
        for name in flags:
            setattr(torch.compiler, name, True)
        yield
    finally:
        for name, value in before.items():
            setattr(torch.compiler, name, value)
