"""What a module computes at this moment: run on small inputs, with a note of each operator and all it is given.

The notes name parameters and buffers, and have the values of everything else: numbers, flags and the constants that
``forward`` reads, wherever they are kept (attributes, classes, closures, globals, the Trainer). Two runs of equal notes
are runs of the same program. What ``forward`` does not read, however large or strange, is not in them.

One size is enough: ``torch.export`` refuses programs that take another way at other sizes within the ranges. It is not
1, which ``torch.export`` takes for a size like the others and some modules do not. What a module compares sizes with
may rule out a size later on that it has taken at capture: see ``mentioned``.
"""

from __future__ import annotations

import hashlib
import random
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten

from lightning_trt_windows._compat.deepspeed import linear_of_torch
from lightning_trt_windows._compat.torch import paths_of_exports
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec, InputTree
from lightning_trt_windows.builds.mentioned import mentioned
from lightning_trt_windows.discovery.discover import call_arguments
from lightning_trt_windows.modules.containers import map_leaves
from lightning_trt_windows.modules.dtypes import tensor_bytes
from lightning_trt_windows.modules.registration import register_containers
from lightning_trt_windows.modules.state import as_it_was, attributes_kept, exported_part, original

__all__ = ["Execution", "execute", "guarded", "seeded", "weights_of"]

_SEED = 0


@dataclass(frozen=True)
class Execution:
    """What a module computed on small inputs."""

    key: str
    """SHA-256 of the notes: equal where the same program ran on the same constants."""
    is_whole: bool
    """Whether the notes say all. They do not where numbers come out of tensors (``item``, ``nonzero``): those change
    with the weights, and only the kinds of what follows are noted."""
    inputs: tuple[Tensor, ...]
    """The tensors that it was given, as they were before it ran."""
    outputs: tuple[Any, ...]
    """Leaves of what it gave."""
    structure: TreeSpec
    """How those leaves belong together."""
    device: torch.device
    """The device of the module."""


def execute(module: nn.Module, inputs: Mapping[str, InputTree], *, method: str = "forward") -> Execution | None:
    """Run ``method`` of ``module`` at the smallest sizes, in eval mode.

    Args:
        module: Any module; comes back exactly as it was. What it holds now is what it runs with.
        inputs: As for ``capture``.
        method: The method to run, or a submodule.

    Returns:
        What it computed; ``None`` where it fails on the small inputs and on those of the usual sizes.
    """
    module = original(module)
    owner, name = exported_part(module, method)
    owner = original(owner)
    register_containers(dict(inputs))
    target = owner if name == "forward" else getattr(owner, name)
    signature = owner.forward if name == "forward" else target
    device = next((t.device for t in [*module.parameters(), *module.buffers()]), torch.device("cpu"))
    weights = _weight_tokens(module)
    values = mentioned(owner, name)
    for usual in (False, True):
        run = _run(module, target, signature, inputs, device, weights, values, usual=usual)
        if run is not None:
            return run
    return None


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of ``module`` as it holds them, by all of their names."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return dict(named)


@contextmanager
def guarded(module: nn.Module) -> Iterator[None]:
    """Run ``module``, or a program in its stead, as a capture would, and leave nothing behind."""
    benchmark = torch.backends.cudnn.benchmark
    with (
        as_it_was(module),
        attributes_kept(module),
        torch.compiler.set_stance("force_eager"),
        paths_of_exports(),
        linear_of_torch(),
    ):
        # trying all algorithms for each small shape takes seconds, and may choose others each time
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark


def seeded() -> None:
    """Begin the random numbers anew, so that two runs draw the same. Only inside of ``guarded``."""
    # torch.manual_seed notes a stack trace for each kind of device that is not there, which takes longer than the rest
    torch.default_generator.manual_seed(_SEED)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        torch.cuda.manual_seed_all(_SEED)
    random.seed(_SEED)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(_SEED)


# --- inputs


def _size(size: DimRange | int, *, usual: bool) -> int:
    if isinstance(size, int):
        return size
    smallest = max(size.min, 2 if size.multiple_of == 1 else size.multiple_of)
    return size.opt if usual else min(smallest, size.max)


def _sample(spec: InputSpec, device: torch.device, *, usual: bool) -> Tensor:
    shape = tuple(_size(size, usual=usual) for size in spec.shape)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    low, high = spec.values if spec.values is not None else (0, 1)
    # where it is needed: on a processor whose cores are all building, threads of PyTorch wait for each other (13 ms for
    # two small images beside the builds of a training on a GPU)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.rand(shape, dtype=dtype, device=device) * (high - low) + low
    if dtype is torch.bool:
        return torch.ones(shape, dtype=dtype, device=device)
    return torch.randint(int(low), int(high) + 1, shape, dtype=dtype, device=device)


# --- runs


def _run(
    module: nn.Module,
    target: Any,
    signature: Any,
    inputs: Mapping[str, InputTree],
    device: torch.device,
    weights: Mapping[int, tuple[Tensor, str, bool]],
    values: list[str],
    *,
    usual: bool,
) -> Execution | None:
    given: list[Tensor] = []

    def sample(_: str, leaf: Any) -> Any:
        if isinstance(leaf, InputSpec):
            given.append(_sample(leaf, device, usual=usual))
            return given[-1]
        return leaf

    with guarded(module):
        seeded()
        trees = {name: map_leaves(tree, sample, name) for name, tree in inputs.items()}
        args, kwargs = call_arguments(signature, trees)
        kept = tuple(tensor.clone() for tensor in given)
        notes = _Notes(given, weights)
        seeded()
        try:
            with notes.written_back(), notes:
                result = target(*args, **kwargs)
        # the user's forward can raise anything, as indices beyond what they index; then nothing can be said
        except Exception:
            return None
        register_containers(result)
        outputs, structure = tree_flatten(result)
        notes.add_outputs(outputs, structure)
        # what it returned may be what it keeps, and changes in the next step
        copies = tuple(leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in outputs)
    key = hashlib.sha256("\n".join([*values, *notes.lines]).encode()).hexdigest()
    return Execution(key, notes.is_whole, kept, copies, structure, device)


def _weight_tokens(module: nn.Module) -> dict[int, tuple[Tensor, str, bool]]:
    """By identity: each parameter and buffer, its name and kind, and whether its values count as constants."""
    found: dict[int, tuple[Tensor, str, bool]] = {}
    for path, part in module.named_modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                found.setdefault(id(parameter), (parameter, _kind(f"parameter {path}.{name}", parameter), False))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                constant = name in part._non_persistent_buffers_set
                found.setdefault(id(buffer), (buffer, _kind(f"buffer {path}.{name}", buffer), constant))
    return found


def _kind(name: str, tensor: Tensor) -> str:
    return f"{name} {tensor.dtype} {tuple(tensor.shape)}"


class _Operator(NamedTuple):
    name: str
    written: tuple[int, ...]
    """Positions of the arguments that it writes to."""
    written_names: tuple[str, ...]
    gives_numbers: bool
    """Whether values of tensors become numbers or sizes."""


_PLAIN = (
    *(int, float, complex, str, bytes, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
_OPERATORS: dict[Any, _Operator] = {}


def _operator(func: Any) -> _Operator:
    known = _OPERATORS.get(func)
    if known is None:
        written = [
            (index, argument.name)
            for index, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        tags = func.tags
        numbers = torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags
        indices, names = tuple(index for index, _ in written), tuple(name for _, name in written)
        known = _OPERATORS[func] = _Operator(str(func), indices, names, numbers)
    return known


class _Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Writes down each operator that runs, with its arguments.

    Args:
        inputs: What the run is given.
        weights: As from ``_weight_tokens``.
    """

    def __init__(self, inputs: list[Tensor], weights: Mapping[int, tuple[Tensor, str, bool]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.lines: list[str] = []
        self.is_whole = True
        self._weights = weights
        self._tokens: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._foreign: set[int] = set()
        """Addresses of what the module holds: what is written there is taken back."""
        self._before: list[tuple[Tensor, Tensor]] = []
        self._results = 0
        for index, tensor in enumerate(inputs):
            self._name(tensor, _kind(f"input {index}", tensor))

    @contextmanager
    def written_back(self) -> Iterator[None]:
        """Undo after the block what operators wrote into tensors of the module."""
        with ExitStack() as stack:
            stack.callback(self._write_back)
            yield

    def _write_back(self) -> None:
        for tensor, before in reversed(self._before):
            tensor.copy_(before)
        self._before.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = _operator(func)
        self.lines.append(f"{operator.name} {self._text(args)} {self._text(kwargs) if kwargs else ''}")
        if operator.written or operator.written_names:
            written = [args[i] for i in operator.written if i < len(args)]
            self._keep(written + [kwargs[name] for name in operator.written_names if name in kwargs])
        result = func(*args, **kwargs)
        self._name_results(result)
        if operator.gives_numbers:
            self.is_whole = False
        return result

    def add_outputs(self, outputs: list[Any], structure: TreeSpec) -> None:
        """Note which of all that was computed is returned."""
        self.lines.append(f"return {self._text(outputs)} {structure}")

    def _keep(self, written: list[Any]) -> None:
        for value in written:
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(tensor, Tensor) and _address(tensor) in self._foreign:
                    self._before.append((tensor, tensor.clone()))

    def _name(self, tensor: Tensor, token: str) -> None:
        # by identity, and only as long as it lives: another tensor may get the number later
        self._tokens[id(tensor)] = weakref.ref(tensor), token

    def _name_results(self, result: Any) -> None:
        if isinstance(result, Tensor):
            self._results += 1
            known = self._tokens.get(id(result))
            if (known is None or known[0]() is not result) and id(result) not in self._weights:
                self._name(result, f"result {self._results}")
        elif isinstance(result, (list, tuple)):
            for item in result:
                self._name_results(item)

    def _text(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self._token(value)
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._text, value))}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{key}={self._text(item)}' for key, item in value.items())}}}"
        if not isinstance(value, _PLAIN):
            self.is_whole = False  # an object that an operator keeps its own things in
        elif self.is_whole or not isinstance(value, (int, float, complex)):
            return repr(value)
        return type(value).__name__

    def _token(self, tensor: Tensor) -> str:
        known = self._tokens.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        weight = self._weights.get(id(tensor))
        is_weight = weight is not None and weight[0] is tensor
        token = weight[1] if weight is not None and is_weight else _kind("constant", tensor)
        if not is_weight or (weight is not None and weight[2]):
            token = f"{token} {_hash(tensor)}"
        self._foreign.add(_address(tensor))
        self._name(tensor, token)
        return token


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # it has no storage: sparse tensors, subclasses
        return 0


def _hash(tensor: Tensor) -> str:
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()
