"""A checkpoint that DeepSpeed wrote, a directory with parts, as one file of the form that Lightning writes elsewhere.

The first process writes the module and what Lightning adds; each process its part of the optimizer's weights. Whole
float32 weights stand in the module's file for ZeRO 1 and 2, and are taken from there. Under ZeRO 3, and where training
computes in 16 bits, only the optimizer has them, in parts, which DeepSpeed's own program puts together.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_trt_windows.errors import CheckpointError, EnvironmentMismatchError
from lightning_trt_windows.progress.upstream_output import quiet, stderr_kept

__all__ = ["LAST", "is_narrow", "parts_of", "write_one_file"]

LAST = "latest"
"""File that is written when all parts are there. It has the name of their folder."""
_MODULE = "_model_states.pt"
_OPTIMIZER = "_optim_states.pt"
_SPREAD = "zero_pp_rank_"
"""What the module's files begin with under ZeRO 3, where each process has a part of each parameter."""
_OF_DEEPSPEED = frozenset(
    (
        *("module", "buffer_names", "param_shapes", "shared_params", "frozen_param_shapes", "frozen_param_fragments"),
        *("optimizer", "lr_scheduler", "data_sampler", "random_ltd", "skipped_steps", "global_steps", "global_samples"),
        *("csr_tensor_module_names", "sparse_tensor_module_names", "dp_world_size", "mp_world_size", "ds_config"),
        *("checkpoint_parallel_dimensions", "ds_version", "num_experts", "universal_checkpoint_info"),
    )
)
"""Keys of the module's file that are DeepSpeed's own; all others are Lightning's and the user's."""
_NARROW = (torch.float16, torch.bfloat16)
_PREFIX = "_forward_module."
"""What names begin with in checkpoints of Lightning before 2.1."""
_LONGEST = 256


def parts_of(path: Path) -> Path | None:
    """The folder of the parts, where ``path`` is a directory that DeepSpeed has written to the end."""
    try:
        with (path / LAST).open(encoding="utf-8") as stream:
            name = stream.read(_LONGEST).strip()
        folder = path / name
        is_inside = bool(name) and Path(name).name == name
        return folder if is_inside and next(folder.glob(f"*{_MODULE}"), None) else None
    # no such file, or one of something else
    except (OSError, ValueError):
        return None


def write_one_file(path: Path, whole: Path) -> None:
    """Make one file of a directory that DeepSpeed wrote: float32 weights, and everything that Lightning added.

    Memory: for ZeRO 3 and for training in 16 bits once the weights, otherwise hardly any. The files are pickles and can
    run code.

    Args:
        path: The directory.
        whole: The file that is written.

    Raises:
        CheckpointError: A part is missing or damaged, or parameters are spread in a way that is not read here.
        EnvironmentMismatchError: DeepSpeed is needed, and cannot be imported.
    """
    folder = parts_of(path)
    if folder is None:
        raise CheckpointError(
            f"{path} is no checkpoint of DeepSpeed: expected a file {LAST!r} that names a folder in it"
        )
    first = _first(folder)
    content = _loaded(first)
    module = content.get("module")
    if not isinstance(module, Mapping) or "pytorch-lightning_version" not in content:
        raise CheckpointError(f"{first} is not of a Lightning training: expected its version, and a module's weights")
    checkpoint = {key: value for key, value in content.items() if key not in _OF_DEEPSPEED}
    is_spread = first.name.startswith(_SPREAD)
    checkpoint["state_dict"] = dict(_weights(path, folder, content, is_spread=is_spread))
    torch.save(checkpoint, whole)


def _first(folder: Path) -> Path:
    """The file of the first process, with the module.

    Raises:
        CheckpointError: There is none, or one of a kind of parallelism that is not read here.
    """
    others = sorted(file.name for file in folder.glob(f"*{_MODULE}") if "mp_rank_00_" not in file.name)
    if others:
        raise CheckpointError(
            f"{folder} has {others[0]}: of a training with tensor parallelism or with experts, whose parts are not put "
            "together here. Make one file with DeepSpeed's own programs (ds_to_universal.py), and give its weights to "
            "the module and the module to export_module()"
        )
    for name in (f"mp_rank_00{_MODULE}", f"{_SPREAD}0_mp_rank_00{_MODULE}"):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has no file of the first process (mp_rank_00{_MODULE}): was it copied in part?")


def _weights(path: Path, folder: Path, content: Mapping[str, Any], *, is_spread: bool) -> Iterator[tuple[str, Any]]:
    """Names and values of a ``state_dict``. What was computed in 16 bits is float32, as the module is without it."""
    module: Mapping[str, Any] = content["module"]
    buffers = frozenset(content.get("buffer_names") or ())
    narrowed = is_narrow(content.get("ds_config"))
    # without ZeRO nothing but the module itself is asked for
    in_parts = is_spread or (narrowed and content.get("param_shapes") is not None)
    of_optimizer = _of_optimizer(path, folder) if in_parts else {}
    whole: dict[Any, torch.Tensor] = {}  # tied weights stay one
    for name, value in module.items():
        if name in of_optimizer and name not in buffers:
            part = of_optimizer[name]
            if id(part) not in whole:
                whole[id(part)] = part.contiguous()
            value = whole[id(part)]
        elif is_spread and name not in buffers and isinstance(value, torch.Tensor):
            continue  # it is empty, and stands for a frozen parameter that was to be left out
        if isinstance(value, torch.Tensor):
            place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
            if place not in whole or not value.numel():
                whole[place] = _alone(value.float() if narrowed and value.dtype in _NARROW else value)
            value = whole[place]
        yield name.removeprefix(_PREFIX), value


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor``; where its memory is that of others too, with the piece of it as memory of its own. Nothing is copied.

    DeepSpeed has all parameters in one piece, and a file would have each tensor as a view of that.
    """
    memory, size = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
    if memory.nbytes() == size or not tensor.is_contiguous():
        return tensor
    begin = tensor.storage_offset() * tensor.element_size()
    return tensor.new_empty(0).set_(memory[begin : begin + size], 0, tensor.shape, tensor.stride())


def is_narrow(config: Any) -> bool:
    """Whether DeepSpeed makes 16 bits of the module that it is given with this configuration."""
    found = [config.get(key) for key in ("fp16", "bf16", "bfloat16")] if isinstance(config, Mapping) else []
    return any(isinstance(part, Mapping) and part.get("enabled") for part in found)


def _of_optimizer(path: Path, folder: Path) -> Mapping[str, Any]:
    """The weights that the optimizer has in float32, of all parts; those of ZeRO 3 are put together when asked for.

    Raises:
        CheckpointError: A part is missing or damaged.
        EnvironmentMismatchError: DeepSpeed cannot be imported.
    """
    if next(folder.glob(f"*{_OPTIMIZER}"), None) is None:
        raise CheckpointError(f"{folder} has no part of any optimizer (*{_OPTIMIZER}): was it copied in part?")
    read = _program()
    lazily = {"lazy_mode": True} if "lazy_mode" in inspect.signature(read).parameters else {}
    with _said_nowhere():
        try:
            found: Mapping[str, Any] = read(str(path), folder.name, **lazily)
        # of damaged files it raises anything
        except Exception as error:
            raise CheckpointError(
                f"DeepSpeed cannot put the parts in {folder} together: {type(error).__name__}: {error}"
            ) from error
    return found


def _program() -> Any:
    # what it says when it is imported is nothing that a command has to say
    with contextlib.redirect_stdout(sys.stderr), quiet():
        try:
            from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
        # it looks for compilers and GPUs meanwhile
        except Exception as error:
            raise EnvironmentMismatchError(
                "this checkpoint is a directory that DeepSpeed has to put together, and it cannot be imported "
                f"({type(error).__name__}: {error}): pip install deepspeed"
            ) from error
    return get_fp32_state_dict_from_zero_checkpoint


@contextlib.contextmanager
def _said_nowhere() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), stderr_kept(), quiet():
        yield


def _loaded(file: Path) -> Any:
    """What ``file`` holds, with tensors that stay in it.

    Raises:
        CheckpointError: It is damaged, or names what cannot be imported.
    """
    try:
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
    # unpickling what is damaged raises anything
    except Exception as error:
        raise CheckpointError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a part of a checkpoint: expected a dict, found {type(content)}")
    return content
