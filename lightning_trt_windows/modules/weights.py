"""Load a checkpoint's weights into a module that somebody else is using, whatever its own loader does.

PyTorch's loader exchanges tensors by reference when it is told to. Modules may bring loaders and hooks of their own,
which write to tensors: while they run, copies stand in for the tensors of the module, and what was reached on another
way is put back.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

__all__ = ["edits_checkpoints", "is_stock", "load", "tensors_kept"]

_LOADERS = ("load_state_dict", "_load_from_state_dict", "set_extra_state")
_STOCK = ("torch.nn.modules.", "torch.nn.utils.", "torch.distributed.algorithms._checkpoint.", "torchmetrics.")
"""Whose loaders and hooks write to no tensor of the module: they rename, convert or exchange."""
_EDITORS = ("on_save_checkpoint", "on_load_checkpoint")
_LIGHTNING = ("lightning.", "pytorch_lightning.")
_DEPTH = 4
"""How far below a module tensors are looked for, in containers and plain objects."""
_MANY = 10_000
"""Containers with more entries hold data ..."""
_ROOM = 100_000
"""... and so do those inside of others that have more in all."""
_LEAVES = (str, bytes, int, float, type(None))
_OF_OTHERS = frozenset(
    ("torch", "lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics", "numpy", *sys.stdlib_module_names)
) - {"abc", "builtins", "typing"}
"""Packages whose objects (trainers, optimizers, loaders, locks) are not looked into."""


def is_stock(module: nn.Module) -> bool:
    """Whether loading weights into ``module`` runs code of PyTorch's only."""
    return all(map(_is_stock, module.modules()))


def _is_stock(part: nn.Module) -> bool:
    hooks = [*part._load_state_dict_pre_hooks.values(), *part._load_state_dict_post_hooks.values()]
    loaders = [getattr(type(part), name) for name in _LOADERS]
    return vars(part).keys().isdisjoint(_LOADERS) and all(map(_is_of_stock, (*hooks, *loaders)))


def _is_of_stock(function: Any) -> bool:
    function = getattr(function, "hook", function)  # PyTorch wraps hooks
    home = getattr(function, "__module__", None) or type(function).__module__
    return str(home).startswith(_STOCK)


def edits_checkpoints(module: nn.Module) -> bool:
    """Whether checkpoints of ``module`` may hold something else than it does: it has Lightning's hooks for that."""
    hooks = [getattr(type(module), name, None) for name in _EDITORS]
    return any(hook is not None and not str(hook.__module__).startswith(_LIGHTNING) for hook in hooks)


def load(module: nn.Module, state: Mapping[str, Any], *, strict: bool, in_training: bool = False) -> None:
    """Load ``state`` into ``module``: by reference, or as the module's own loader does it.

    Args:
        module: The module.
        state: A checkpoint's ``state_dict``, on the module's device.
        strict: Refuse missing and unexpected keys.
        in_training: It is the module of the training that wrote the checkpoint: what it has frozen, the checkpoint may
            lack.
    """
    state = _with_masks(module, state)
    if strict and in_training and edits_checkpoints(module):
        state = _with_frozen(module, state)
    exchanging = torch.__future__.get_swap_module_params_on_conversion()
    # parameters would stay the same objects and get other contents, those of the training among them
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        try:
            module.load_state_dict(state, strict=strict, assign=True)
        except TypeError as error:
            # most signatures of overrides are older than this argument
            if "assign" not in str(error) or is_stock(module):
                raise
            module.load_state_dict(state, strict=strict)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(exchanging)


def _with_masks(module: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """``state`` with the names that a module has while it is pruned, if it was saved as if pruning were over.

    Lightning's ``ModelPruning`` multiplies weights by masks in what it saves, and the module goes on with both.
    """
    made = dict(state)
    for path, part in module.named_modules():
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                key = f"{path}.{hook._tensor_name}".removeprefix(".")
                if key in made and f"{key}_orig" not in made:
                    made[f"{key}_orig"] = pruned = made.pop(key)
                    made[f"{key}_mask"] = torch.ones_like(pruned)
    return made


def _with_frozen(module: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """``state`` with the module's own frozen parameters where it has none, as hooks leave them out to save space.

    Buffers are not taken: training changes them, also where parameters are frozen (statistics of a batch norm).
    """
    own = module.named_parameters(remove_duplicate=False)
    return {**state, **{key: value for key, value in own if key not in state and not value.requires_grad}}


@contextlib.contextmanager
def tensors_kept(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Let the block load weights into ``module``, and give each tensor back as it was: the object and every bit of it.

    Kept are parameters, buffers, and tensors in attributes, containers and plain objects below them. A module whose
    loaders are all PyTorch's is left alone: they write to nothing.

    Yields:
        What to call once the weights are loaded: from then on the module's own tensors have their own values.
    """
    if is_stock(module):
        yield lambda: None
        return
    kept = _Kept(module)
    try:
        kept.stand_in()
        yield kept.settle
    finally:
        kept.put_back()


class _Kept:
    """The tensors of a module and the containers that they are in, as they were."""

    def __init__(self, module: nn.Module) -> None:
        self._held: dict[int, _Held] = {}
        self._boxes: list[tuple[Any, Any]] = []
        pending: deque[tuple[Any, int]] = deque([(module, 0)])
        pending.extend((tensor, 0) for tensor in (*module.parameters(), *module.buffers()))
        seen: set[int] = set()
        room = _ROOM
        while pending:
            value, depth = pending.popleft()
            if id(value) in seen or depth > _DEPTH:
                continue
            seen.add(id(value))
            if isinstance(value, Tensor):
                if not nn.parameter.is_lazy(value):
                    self._held[id(value)] = _Held(value)
                continue
            box, inside = _contents(value)
            if depth > 1:
                room -= len(inside)
                if room < 0:
                    continue
            if box is not None:
                self._boxes.append((box, box.copy()))
            # modules that others keep out of sight, in lists, are modules too
            pending.extend(
                (child, 0 if isinstance(child, nn.Module) else depth + 1)
                for child in inside
                if not isinstance(child, _LEAVES)
            )
        shared = Counter(held.memory for held in self._held.values())
        memo: dict[int, Any] = {}
        for held in self._held.values():
            held.make_copy(memo if shared[held.memory] > 1 else None)

    def stand_in(self) -> None:
        """Put copies in place of the tensors."""
        for box, before in self._boxes:
            for key, value in _items(before):
                if isinstance(value, Tensor) and id(value) in self._held:
                    held = self._held[id(value)]
                    box[key] = value if held.copy is None else held.copy

    def settle(self) -> None:
        """Undo what was written to the tensors themselves; where nothing was loaded, put them back in place."""
        copied = {id(held.copy): held for held in self._held.values() if held.copy is not None}
        unused = set()
        for key, held in copied.items():
            if held.has_changed(held.tensor):  # somebody has a reference that we have not found
                if not held.has_changed(held.copy):
                    held.copy.data = held.tensor.detach().clone()
                held.put_back()
            elif not held.has_changed(held.copy):
                unused.add(key)
            held.is_settled = True
        for box, _ in self._boxes:
            for name, value in _items(box):
                if id(value) in unused:
                    box[name] = copied[id(value)].tensor

    def put_back(self) -> None:
        """Everything is where it was and as it was."""
        for held in self._held.values():
            if not held.is_settled:
                held.put_back()
        for box, before in self._boxes:
            now, then = _items(box), _items(before)
            if len(now) != len(then) or any(a is not c or b is not d for (a, b), (c, d) in zip(now, then)):
                box.clear()
                (box.extend if isinstance(box, list) else box.update)(before)


class _Held:
    """One tensor: where its values are, what they were, and what stands in for it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.is_settled = False
        self._needs_gradient = tensor.requires_grad
        self._place = tensor.detach()
        # those of classes of their own (DTensor) have values elsewhere, which only a copy by their class protects
        has_values = type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta
        self._values = self._place.to("cpu", copy=True) if has_values else None
        self.copy: Any = None
        """What stands in for it; nothing does for parameters of classes of their own."""
        self.memory = tensor.untyped_storage()._cdata if has_values and tensor.layout is torch.strided else id(tensor)
        """Which memory its values are in: that of several tensors where they are views of one."""

    def make_copy(self, memo: dict[int, Any] | None) -> None:
        """Make what stands in for the tensor.

        Args:
            memo: That of ``copy.deepcopy``: views of one memory become views of one copy of it. ``None`` for a tensor
                that shares nothing, of which no more than itself is copied.
        """
        if isinstance(self.tensor, nn.Parameter) and type(self.tensor) is not nn.Parameter:
            return
        made = self._place.clone() if memo is None else deepcopy(self._place, memo)
        if isinstance(self.tensor, nn.Parameter):
            made = nn.Parameter(made, requires_grad=self._needs_gradient)
        elif self._needs_gradient:
            made.requires_grad_()
        vars(made).update(vars(self.tensor))
        self.copy = made

    def has_changed(self, tensor: Any) -> bool:
        """Whether ``tensor``, which was equal to this one, no longer is."""
        if self._values is None:
            return tensor is not self.tensor
        if (tensor.shape, tensor.dtype, tensor.device) != (self._place.shape, self._place.dtype, self._place.device):
            return True
        return not _same_bits(tensor.detach().cpu(), self._values)

    def put_back(self) -> None:
        """Give the tensor its place in memory and its values, without a sign for autograd that it was written to."""
        tensor, place = self.tensor, self._place
        if self._values is None:
            return
        if _layout(tensor) != _layout(place):
            tensor.data = place
        if self.has_changed(tensor):
            tensor.data.copy_(self._values)
        if tensor.is_leaf and tensor.requires_grad != self._needs_gradient:
            tensor.requires_grad_(self._needs_gradient)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout is not torch.strided:
        return (tensor.shape, tensor.dtype, tensor.device)
    return (tensor.shape, tensor.dtype, tensor.device, tensor.stride(), tensor.data_ptr())


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape and dtype in host memory are equal; not a number is itself."""
    if one.layout is not torch.strided or one.is_quantized:
        return False
    flat = [t.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(*flat)


def _contents(value: Any) -> tuple[Any, list[Any]]:
    """The dict or list in which ``value`` keeps what it holds, if that can be written to, and what it holds."""
    if isinstance(value, nn.Module):
        return vars(value), list(vars(value).values())
    if isinstance(value, (tuple, set, frozenset, deque)):
        return None, list(value) if len(value) <= _MANY else []
    box = value if type(value) in (dict, list, OrderedDict, defaultdict) else _plain_attributes(value)
    if box is None or len(box) > _MANY:
        return None, []
    return box, [child for _, child in _items(box)]


def _plain_attributes(value: Any) -> Any:
    """The attributes of an object of a user's class."""
    if isinstance(value, (type, types.ModuleType, types.FunctionType)):
        return None
    if any(cls.__module__.partition(".")[0] in _OF_OTHERS for cls in type(value).__mro__):
        return None
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return attributes if type(attributes) is dict else None


def _items(box: Any) -> list[tuple[Any, Any]]:
    return list(enumerate(box)) if isinstance(box, list) else list(box.items())
