"""Error by precision over the main families of the zoo: a table in Markdown, from real engines on a GPU.

Two commands, on the same machine or on two::

    PYTHONPATH=tests python tests/gpu/precision_table.py build DIR [MODEL ...]   # no GPU needed
    PYTHONPATH=tests python tests/gpu/precision_table.py run DIR OUT.md          # an NVIDIA GPU and tensorrt-rtx

``build`` exports each model three times (``precision="32"``, ``"16"``, ``"bf16"``) into DIR, with the captured program,
inputs of the usual and the largest size, and what the model gives for them in float64 on the CPU. It needs the zoo's
libraries (torchvision, timm, transformers); MODEL names some of the zoo, the default is ``MODELS``: a few minutes on
two idle cores, 320 MB, of which ResNet-18 is 150.

``run`` needs this package, torch of the same minor version as in ``build``, and TensorRT-RTX of the same version. Where
a captured program needs classes of a library that is not there, its columns of eager stay empty. Every number is a
relative norm against float64, the largest over both sizes and all outputs. Eager runs without TF32, and TensorRT
decides itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

MODELS = (
    "mlp", "resnet18", "convnext_atto", "vit_tiny", "swin_tiny", "segformer", "unet_bilinear", "bert", "gpt2", "t5",
    "lstm", "wavenet",
)  # fmt: skip
PRECISIONS = ("32", "16", "bf16")
AUTOCAST = {"16": torch.float16, "bf16": torch.bfloat16}
SIZES = ("opt", "max")
GPU = "cuda:0"


def build(folder: Path, names: Sequence[str]) -> None:
    """Export, and keep what ``run`` compares with."""
    from zoo.entry import Entry
    from zoo.exporting import call, export
    from zoo.models import ZOO

    from lightning_trt_windows.artifact.artifact import ArtifactPaths
    from lightning_trt_windows.export.options import ExportOptions
    from lightning_trt_windows.export.pipeline import prepare

    for name in names:
        for precision in PRECISIONS:
            (folder / precision).mkdir(parents=True, exist_ok=True)
            entry: Entry = dataclasses.replace(ZOO[name], settings={**ZOO[name].settings, "precision": precision})
            exported = export(entry, folder / precision)
            print(f"{name:16} {precision:5} {exported.seconds:5.1f} s", flush=True)
        calls = [call(exported, size) for size in SIZES]
        module = exported.module.double()
        cases = [(args, kwargs, floats(evaluated(module, *tree_map(wide, (args, kwargs))))) for args, kwargs in calls]
        torch.save(cases, folder / f"{name}.cases.pt")
        again = ZOO[name]
        job = prepare(again.module(), exported.discovered, ArtifactPaths.of(folder / "x.windows.ep"), ExportOptions())
        torch.export.save(job.program, folder / f"{name}.pt2")


def run(folder: Path) -> str:
    """The table."""
    head = [
        "model",
        "engines 32",
        "eager 32",
        "engines 16",
        "autocast 16",
        "engines bf16",
        "autocast bf16",
        "size 16 / 32",
    ]
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, TensorRT-RTX {installed()}", "",
        f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}",
    ]  # fmt: skip
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for saved in sorted(folder.glob("*.cases.pt")):
        name = saved.name.removesuffix(".cases.pt")
        cells = row(folder, name, torch.load(saved, weights_only=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def row(folder: Path, name: str, cases: list[Any]) -> list[str]:
    """The cells of one model."""
    from lightning_trt_windows import inspect, load

    eager = eager_module(folder / f"{name}.pt2")
    cells, sizes = [], {}
    for precision in PRECISIONS:
        path = folder / precision / f"{name}.windows.ep"
        sizes[precision] = sum(engine.size for engine in inspect(path).artifact.manifest.engines)
        cells.append(error(lambda path=path: load(path, GPU), cases, None))  # type: ignore[misc]
        cells.append(error(eager, cases, AUTOCAST.get(precision)))
    return [*cells, f"{sizes['16'] / sizes['32']:.2f}"]


def eager_module(path: Path) -> Callable[[], nn.Module]:
    """The captured program on the GPU: PyTorch's own operators, which autocast treats as the module's."""

    def make() -> nn.Module:
        from torch.export.passes import move_to_device_pass

        with contextlib.suppress(ImportError):
            # registers the classes that its models return
            import transformers.modeling_outputs  # noqa: F401
        return move_to_device_pass(torch.export.load(path), GPU).module()  # type: ignore[no-any-return]

    return make


def error(make: Callable[[], Any], cases: list[Any], dtype: torch.dtype | None) -> str:
    """The cell of one way to compute."""
    worst = 0.0
    try:
        module = make()
        for args, kwargs, wanted in cases:
            args, kwargs = tree_map(lambda v: v.to(GPU) if isinstance(v, Tensor) else v, (args, kwargs))
            with torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None):
                found = floats(evaluated(module, args, kwargs))
            assert len(found) == len(wanted), f"{len(found)} tensors instead of {len(wanted)}"
            for ours, theirs in zip(found, wanted):
                assert ours.shape == theirs.shape, f"{list(ours.shape)} instead of {list(theirs.shape)}"
                worst = max(worst, ((ours.double().cpu() - theirs).norm() / theirs.norm()).item())
    # the other cells are worth having all the same; the reason goes to the terminal
    except Exception as reason:
        print(f"  {type(reason).__name__}: {str(reason).splitlines()[0]}", file=sys.stderr)
        return ""
    return f"{worst:.1e}"


def evaluated(module: Any, args: Any, kwargs: Any) -> Any:
    """A call without gradients."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module(*args, **kwargs)


def floats(tree: Any) -> list[Tensor]:
    """The floating tensors in a result."""
    return [leaf.detach() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def wide(value: Any) -> Any:
    """Floating tensors in float64."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def installed() -> str:
    """Version of the bindings."""
    from lightning_trt_windows._compat.bindings import bindings

    return str(bindings("tensorrt_rtx").__version__)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("build", "run"):
        sys.exit(__doc__)
    place = Path(sys.argv[2])
    if sys.argv[1] == "build":
        build(place, sys.argv[3:] or MODELS)
    else:
        text = run(place)
        Path(sys.argv[3]).write_text(text, encoding="utf-8")
        print(text)
