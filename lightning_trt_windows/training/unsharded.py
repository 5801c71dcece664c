"""A whole instance of a module that a strategy spreads over processes: what is captured in its place.

Capturing needs no weights, those come from the checkpoint. So the first process copies the module without its
parameters before the strategy takes it apart; what training changes about it besides (attributes, buffers) is brought
over whenever it is looked at. Nothing here asks another process for anything.
"""

from __future__ import annotations

import copy
import enum
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trt_windows._compat.torch import no_process_groups
from lightning_trt_windows.checkpoints.zero import is_narrow
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.modules.state import WRAPPED, random_state_kept

__all__ = ["SHARDING", "Unsharded", "is_narrowed", "is_sharding"]

_DEEPSPEED = "DeepSpeedStrategy"
SHARDING = ("FSDPStrategy", "ModelParallelStrategy", _DEEPSPEED)
"""Strategies that spread parameters, or the optimizer's, and under which a whole instance is captured."""
_NARROW = (torch.float16, torch.bfloat16)
_SPREAD_MODULES = ("FullyShardedDataParallel", "FSDPModule")
_SMALL = 1 << 20
"""Bytes up to which memory is taken at once."""
_DEPTH = 6
"""How far into containers and plain objects attributes are brought over."""
_HEAP_TYPE = 1 << 9
"""Flag of classes that are written in Python."""
_OF_MODULES = frozenset(vars(nn.Module())) - {"training"}
_OF_LIGHTNING = frozenset(("_trainer", "_fabric", "_fabric_optimizers", "_device_mesh", "_device", "_dtype"))
_OF_SHARDING = ("_fsdp", "_is_fsdp", "__composable", "ds_", "_ds_")
"""What names of attributes begin with that strategies set on modules ..."""
_OF_DEEPSPEED = frozenset(("_external_params", "_original_parameters", "applied_pre_backward_ref_cnt"))
"""... and those without such a beginning."""


def is_sharding(strategy: Any) -> bool:
    """Whether ``strategy`` leaves no process with the whole module, or may do so."""
    return not {cls.__name__ for cls in type(strategy).__mro__}.isdisjoint(SHARDING)


def is_narrowed(trainer: Any) -> bool:
    """Whether DeepSpeed makes 16 bits of the module and its batches, while checkpoints have its float32 weights."""
    if _DEEPSPEED not in {cls.__name__ for cls in type(trainer.strategy).__mro__}:
        return False
    asked = is_narrow(getattr(trainer.strategy, "config", None))
    return asked or str(trainer.precision_plugin.precision).startswith(("16", "bf16"))


class Unsharded:
    """A copy of a module without its parameters, taken before the strategy takes the module apart.

    Args:
        trainer: The Trainer, which has not configured the module yet.
        module: The module in training.
    """

    def __init__(self, trainer: Any, module: nn.Module) -> None:
        self._trainer = trainer
        self._live: Any = module
        self._error: Exception | None = None
        self._copy = self._copied()
        self._made: nn.Module | None = None

    def before_sharding(self) -> None:
        """The module is complete: copy it again if ``configure_model`` has not taken it apart itself."""
        if not _is_spread(self._live):
            self._copy = self._copied() or self._copy

    def module(self) -> nn.Module:
        """Give the whole instance, with the attributes and buffers that the module has now.

        Returns:
            The same object each time. Its parameters are zeros that take no memory, for a checkpoint's to stand in.

        Raises:
            CaptureError: The module cannot be copied, nor built from its hyperparameters.
        """
        if self._made is None:
            self._made = self._make()
        self._bring_over(self._made)
        _without_meta(self._made)
        return self._made

    def _copied(self) -> Any:
        """A copy of the module; ``None`` where it cannot be copied."""
        try:
            made = copy.deepcopy(self._live, self._shared())
            for part in made.modules():
                _forget_deepspeed(part)
            return made
        # open files, locks, generators: whatever the user keeps there
        except Exception as error:
            self._error = error
            return None

    def _shared(self) -> dict[int, Any]:
        """What a copy has in place of parameters: shapes; and what it shares with the module."""
        memo: dict[int, Any] = {
            id(p): _like(p, torch.empty(_shape(p), dtype=p.dtype, device="meta"))
            for p in self._live.parameters()
            if not _is_dtensor(p)
        }
        for part in self._live.modules():
            for hooks in _hooks(part):
                memo.update((id(hook), _nothing) for hook in hooks.values() if _is_of_deepspeed(hook))
        for shared in (self._trainer, getattr(self._live, "_device_mesh", None)):
            if shared is not None:
                memo[id(shared)] = shared
        return memo

    def _make(self) -> Any:
        made: Any = self._copy
        if made is None or not _has_names_of(made, self._live):
            made = self._configured()  # its layers are made in configure_model
        narrowed = is_narrowed(self._trainer)
        made = made if narrowed else self._trainer.precision_plugin.convert_module(made)
        memo: dict[int, nn.Parameter] = {}
        for part in made.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None and id(parameter) not in memo:
                    like = torch.empty_like(parameter, dtype=_exact(parameter, narrowed), device="meta")
                    memo[id(parameter)] = _like(parameter, _zeros(like))
                if parameter is not None:
                    part._parameters[name] = memo[id(parameter)]
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = buffer.to(_exact(buffer, narrowed))
        if getattr(made, "_compiler_ctx", None) is not None:  # its forward is bound to the module in training
            vars(made).pop("forward", None)
        vars(made).update(_device=torch.device("cpu"), _device_mesh=None)
        made.trainer = self._trainer
        return made

    def _configured(self) -> Any:
        """A copy, or one built from the hyperparameters, after ``configure_model`` without other processes."""
        try:
            with no_process_groups(), random_state_kept(), torch.device("meta"):
                made: Any = self._copy
                made = type(self._live)(**dict(self._live.hparams)) if made is None else copy.deepcopy(made)
                made._device_mesh = None
                made.configure_model()
            return made
        # the user's constructor and configure_model
        except Exception as error:
            raise CaptureError(
                f"{type(self._live).__name__} is spread over processes, and no whole instance of it can be made to "
                f"capture: {_reason(self._error or error)}. Export the checkpoint afterwards, with: "
                "lightning-trt-windows export CHECKPOINT --module package.module:Class"
            ) from error

    def _bring_over(self, made: nn.Module) -> None:
        """Give ``made`` the buffers and the attributes of the module as they are now."""
        copies = dict(made.named_modules(remove_duplicate=False))
        for path, part in _parts(self._live):
            own = copies.get(path)
            # their state is large, of the loss, and moves to where it is computed
            if own is None or any(cls.__name__ == "Metric" for cls in type(own).__mro__):
                continue
            for name, buffer in part._buffers.items():
                known = own._buffers.get(name)
                if buffer is not None and known is not None and not (_is_dtensor(buffer) or buffer.is_meta):
                    own._buffers[name] = _now(buffer, known)
            for key, value in _attributes(part, own):
                try:
                    own.__dict__[key] = _plain(value, _DEPTH)
                except _NotPlainError:
                    continue  # as it was when it was copied


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each part with the path that it has where nothing is wrapped; of wrapper and wrapped the wrapped."""
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        found[".".join(name for name in path.split(".") if name not in WRAPPED)] = part
    yield from found.items()


def _attributes(part: nn.Module, own: nn.Module) -> Iterator[tuple[str, Any]]:
    held = {*own._parameters, *own._buffers, *own._modules}
    for key, value in list(vars(part).items()):
        if not isinstance(key, str) or key in _OF_MODULES or key in _OF_LIGHTNING or key in held:
            continue
        if key in vars(own) or not (key in _OF_DEEPSPEED or key.startswith(_OF_SHARDING)):
            yield key, value


class _NotPlainError(Exception):
    """A value may refer to the module in training, or to anything else."""


_SCALARS = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.Size)


def _plain(value: Any, depth: int) -> Any:
    """``value`` with its tensors on the CPU, where it is made of nothing but numbers, texts and tensors.

    Raises:
        _NotPlainError: It is made of something else.
    """
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, Tensor):
        if isinstance(value, nn.Parameter) or _is_dtensor(value) or value.is_meta:
            raise _NotPlainError
        return value.detach().cpu()
    if depth == 0:
        raise _NotPlainError
    kind = type(value)
    if kind in (list, set, frozenset) or (kind is tuple):
        return kind(_plain(item, depth - 1) for item in value)
    if isinstance(value, dict):
        made = value if kind is dict else copy.copy(value)
        items = {key: _plain(item, depth - 1) for key, item in value.items()}
        if kind is dict:
            return items
        made.update(items)
        return made
    if isinstance(value, (nn.Module, type)) or callable(value) or not hasattr(value, "__dict__") or _has_slots(kind):
        raise _NotPlainError
    attributes = {key: _plain(item, depth - 1) for key, item in vars(value).items()}
    made = object.__new__(kind)
    vars(made).update(attributes)
    return made


def _has_slots(kind: type) -> bool:
    # what is not in __dict__ would be lost: classes in C, and those with slots
    bases = [cls for cls in kind.__mro__ if cls is not object]
    return any("__slots__" in vars(cls) or not cls.__flags__ & _HEAP_TYPE for cls in bases)


def _has_names_of(made: nn.Module, live: nn.Module) -> bool:
    """Whether both have the same parameters. Shapes are not compared: a process may have a part of each."""
    names = {
        ".".join(part for part in name.split(".") if part not in WRAPPED)
        for name, _ in live.named_parameters(remove_duplicate=False)
    }
    known = {name for name, _ in made.named_parameters(remove_duplicate=False)}
    if any(name.rpartition(".")[2].startswith("_flat_param") for name in names):
        return bool(known)  # FSDP with use_orig_params=False has names of its own
    return names == known


def _is_spread(module: nn.Module) -> bool:
    names = (cls.__name__ for part in module.modules() for cls in type(part).__mro__)
    return any(name in _SPREAD_MODULES for name in names) or any(
        _is_dtensor(parameter) or _is_of_zero(parameter) for parameter in module.parameters()
    )


def _hooks(part: nn.Module) -> Iterator[dict[int, Any]]:
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        yield getattr(part, name, {})


def _nothing(*_: Any) -> None:
    """Stands for a hook that is not copied."""


def _is_of_deepspeed(hook: Any) -> bool:
    function = getattr(hook, "func", hook)
    return str(getattr(function, "__module__", "")).partition(".")[0] == "deepspeed"


def _forget_deepspeed(part: nn.Module) -> None:
    """Take from a copy what a training before this one has left: hooks of its engine would count what the copy does."""
    for hooks in _hooks(part):
        for key in [key for key, hook in hooks.items() if hook is _nothing]:
            del hooks[key]
    if type(part._parameters).__module__.partition(".")[0] == "deepspeed":
        part._parameters = dict(part._parameters)
        for name in [name for name in vars(part) if name in _OF_DEEPSPEED or name.startswith("ds_")]:
            del part.__dict__[name]


def _is_of_zero(parameter: Any) -> bool:
    """Whether DeepSpeed has taken ``parameter`` apart: ZeRO 3."""
    return hasattr(parameter, "ds_shape")


def _shape(parameter: Any) -> torch.Size:
    shape: torch.Size = parameter.ds_shape if _is_of_zero(parameter) else parameter.shape
    return shape


def _exact(tensor: Tensor, narrowed: bool) -> torch.dtype:
    """The type of ``tensor`` where nobody has made 16 bits of it."""
    return torch.float32 if narrowed and tensor.dtype in _NARROW else tensor.dtype


def _now(buffer: Tensor, known: Tensor) -> Tensor:
    """The values of ``buffer`` on the CPU; those of ``known`` where training only has them in fewer bits."""
    values = buffer.detach().to("cpu", copy=True)
    if values.dtype not in _NARROW or known.dtype is not torch.float32 or known.is_meta:
        return values
    same = known.shape == values.shape and torch.equal(known.to(values.dtype), values)
    return known if same else values.float()


def _is_dtensor(tensor: Any) -> bool:
    return hasattr(tensor, "placements") and hasattr(tensor, "device_mesh")


def _like(parameter: nn.Parameter, tensor: Tensor) -> nn.Parameter:
    made = nn.Parameter(tensor, parameter.requires_grad)
    if not _is_of_zero(parameter):
        vars(made).update(vars(parameter))  # flags that people set
    return made


def _zeros(parameter: Tensor) -> Tensor:
    """Zeros that take memory where they are written to only."""
    count = math.prod(parameter.shape) * parameter.element_size()
    if count <= _SMALL:
        return torch.zeros(parameter.shape, dtype=parameter.dtype, device="cpu")
    memory = torch.frombuffer(mmap.mmap(-1, count), dtype=torch.uint8)
    return memory.view(parameter.dtype).reshape(parameter.shape)


def _without_meta(module: nn.Module) -> None:
    """Refuse a module with values that were never computed; those that checkpoints have are zeros until then.

    Raises:
        CaptureError: There is one.
    """
    for path, part in module.named_modules():
        tensors: Iterable[tuple[str, Any]] = [*part._buffers.items(), *_tensors(vars(part))]
        for name, tensor in tensors:
            if not (isinstance(tensor, Tensor) and tensor.is_meta):
                continue
            if name in part._buffers and name not in part._non_persistent_buffers_set:
                part._buffers[name] = _zeros(tensor)
                continue
            where = f"{path}.{name}".removeprefix(".")
            raise CaptureError(
                f"{type(module).__name__} is spread over processes, and {where} of the whole instance that is captured "
                "in its place has no values: it is made on the meta device, and no checkpoint has it. Export the "
                "checkpoint afterwards, with: lightning-trt-windows export CHECKPOINT --module package.module:Class"
            )


def _tensors(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in attributes.items() if isinstance(value, Tensor))


def _reason(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"
