"""Borrow a module without leaving a trace: its modes, random state and weights come back as they were.

A checkpoint's weights are swapped in by reference, and the module's own tensors are put back. No weight is copied,
unless the module has a loader of its own.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from lightning_trt_windows.errors import CheckpointError, ConfigurationError, did_you_mean
from lightning_trt_windows.modules.borrowed import reachable_kept, refill
from lightning_trt_windows.modules.weights import edits_checkpoints, load, tensors_kept

__all__ = [
    "WRAPPED",
    "as_it_was",
    "attributes_kept",
    "eval_mode",
    "exported_part",
    "has_forward",
    "original",
    "outside_of_steps",
    "random_state_kept",
    "state_kept",
    "weights_swapped",
]


WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names under which ``torch.compile``, FSDP and activation checkpointing keep what they wrap."""


def original(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` or FSDP wrapped, which has the user's signature; any other is its own."""
    while (inner := next((module._modules[name] for name in WRAPPED if module._modules.get(name)), None)) is not None:
        module = inner
    return module


def has_forward(module: nn.Module) -> bool:
    """Whether ``module`` computes anything when it is called: somebody has written a ``forward``."""
    forward = vars(module).get("forward", getattr(type(module), "forward", None))
    from_a_base = str(getattr(forward, "__module__", "")).partition(".")[0] in _BASES
    return not (from_a_base and getattr(forward, "__qualname__", "") in _NO_FORWARD)


_BASES = ("torch", "lightning", "pytorch_lightning", "lightning_fabric")
_NO_FORWARD = ("_forward_unimplemented", "Module.forward", "LightningModule.forward")
"""What the base classes have in its place, by name: there are two LightningModules."""


def exported_part(module: nn.Module, method: str) -> tuple[nn.Module, str]:
    """Whose method ``method`` is, and its name there: the module's own, or ``net.encoder``, a submodule's ``forward``.

    Returns:
        The module that has the method, and the name that it has there.

    Raises:
        ConfigurationError: There is no such method or submodule.
    """
    owner = module
    *path, last = method.split(".")
    for name in path:
        inner = getattr(owner, name, None)
        if not isinstance(inner, nn.Module):
            raise ConfigurationError(_no_such_part(owner, name, method))
        owner = inner
    found = getattr(owner, last, None)
    if isinstance(found, nn.Module):
        return found, "forward"
    if not callable(found):
        raise ConfigurationError(_no_such_part(owner, last, method))
    return owner, last


def _no_such_part(owner: nn.Module, name: str, method: str) -> str:
    parts = [*(child for child, _ in owner.named_children()), *(m for m in vars(type(owner)) if not m.startswith("_"))]
    hint = did_you_mean(name, parts, f"there are {', '.join(parts[:8])}")
    inside = "" if name == method else f" (method={method!r})"
    return f"{type(owner).__name__} has no method {name!r} to export, nor a submodule{inside}{hint}"


@contextlib.contextmanager
def as_it_was(module: nn.Module) -> Iterator[None]:
    """Run the block in eval mode and without gradients; restore modes, random state and what it reaches.

    ``self.log`` does nothing in the block: what it would log is of the training's batches.
    """
    with random_state_kept(), torch.no_grad(), eval_mode(module), reachable_kept(module), _not_logging(module):
        yield


@contextlib.contextmanager
def _not_logging(module: nn.Module) -> Iterator[None]:
    silenced = [
        (submodule, name, vars(submodule).get(name))
        for submodule in module.modules()
        for name in ("log", "log_dict")
        if hasattr(type(submodule), "log_dict") and hasattr(type(submodule), "training_step")
    ]
    try:
        for submodule, name, _ in silenced:
            vars(submodule)[name] = _nothing
        yield
    finally:
        for submodule, name, own in silenced:
            vars(submodule).pop(name, None)
            if own is not None:
                vars(submodule)[name] = own


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stands for ``LightningModule.log``."""


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Run the block in eval mode, and restore the mode of each submodule.

    The mode is set on each submodule directly: ``train()`` and ``eval()`` may be overridden with side effects (adapters
    merge their weights there), and must not be called behind the user's back.
    """
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    try:
        for submodule, _ in modes:
            submodule.training = False
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Give back the random state of torch (every device), NumPy and Python after the block."""
    python_state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    # an untouched CUDA context stays untouched
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]  # torch's
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy:
                numpy.random.set_state(numpy_state)


@contextlib.contextmanager
def weights_swapped(
    module: nn.Module, state: Mapping[str, Any], *, where: str, strict: bool = True, in_training: bool = False
) -> Iterator[None]:
    """Put ``state`` into ``module`` for the block, then the module's own tensors back.

    Tensors are exchanged by reference (``load_state_dict(assign=True)``), so the module's own are not written to:
    optimizers, hooks and gradients keep pointing at them. Hooks of ``load_state_dict`` run as they do in Lightning.
    Where a loader or a hook is not PyTorch's own, copies stand in for the module's tensors while it runs.

    Args:
        module: The module.
        state: A checkpoint's ``state_dict``.
        where: The checkpoint's name, for messages.
        strict: Refuse missing and unexpected keys.
        in_training: ``module`` is the one whose training wrote the checkpoint: frozen parameters are the same in both,
            and are the module's where hooks of its own have left them out of the checkpoint.

    Raises:
        CheckpointError: The weights do not fit the module.
    """
    device = next((t.device for t in module.parameters()), torch.device("cpu"))
    moved = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
    with attributes_kept(module), tensors_kept(module) as settle:
        try:
            load(module, moved, strict=strict, in_training=in_training)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            name = type(module).__name__
            hint = "Was the module built with other hyperparameters than those of the checkpoint?"
            if edits_checkpoints(module):
                hint += (
                    f" Or does {name} leave something out in on_save_checkpoint, for on_load_checkpoint to put back? "
                    "Neither is called here, as they may change a training; frozen parameters alone are taken from its "
                    "module. Export this checkpoint by itself, which calls them, with: "
                    f"lightning-trt-windows export {where} --module package.module:Class"
                )
            raise CheckpointError(f"the weights in {where} do not fit {name}: {error}\n{hint}") from error
        settle()
        yield


@contextlib.contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Let the block run ``module``: what it writes to buffers and attributes is forgotten."""
    with attributes_kept(module), reachable_kept(module):
        for submodule in module.modules():
            for name, buffer in submodule._buffers.items():
                submodule._buffers[name] = None if buffer is None else buffer.clone()
        yield


@contextlib.contextmanager
def attributes_kept(module: nn.Module) -> Iterator[None]:
    """Give each submodule back the attributes, parameters and buffers that it has, and lists and dicts their contents.

    Contents are those of the containers that are attributes themselves, not of what is inside of them; tensors that the
    block writes to stay written.
    """
    owned = [
        (submodule, dict(submodule.__dict__), dict(submodule._parameters), dict(submodule._buffers))
        for submodule in module.modules()
    ]
    contents = [
        (value, value.copy())
        for _, attributes, _, _ in owned
        for value in attributes.values()
        if type(value) in (list, dict, set)
    ]
    try:
        yield
    finally:
        for submodule, attributes, parameters, buffers in owned:
            # the very same dictionaries, which others may hold, with their contents as before
            submodule.__dict__.clear()
            submodule.__dict__.update(attributes)
            submodule._parameters.clear()
            submodule._parameters.update(parameters)
            submodule._buffers.clear()
            submodule._buffers.update(buffers)
        for container, before in contents:
            refill(container, before)


@contextlib.contextmanager
def outside_of_steps(device: str | torch.device | None = None) -> Iterator[None]:
    """Undo what surrounds a step of training or validation, where checkpoints may be saved too, and whole scripts.

    Args:
        device: Where tensors are made that name no device, if a default was chosen (``torch.set_default_device``);
            ``None`` leaves it.
    """
    off = (torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
    with torch.inference_mode(False), contextlib.ExitStack() as stack:
        for context in off:
            stack.enter_context(context)
        if device is not None and torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device(device))
        yield
