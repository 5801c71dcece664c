"""TensorRT-RTX itself: what its engines were seen to compute wrongly. Nothing here can mend it, only say it."""

from __future__ import annotations

from lightning_trt_windows._compat.versions import Workaround

__all__ = ["WRONG_NUMBERS", "cautions"]

WRONG_NUMBERS = Workaround(
    upstream="tensorrt-rtx",
    since="1.4",
    until="1.6",
    reason="Engines of 1.4.0 for graph convolutions (index_add), MobileNetV3 and models that autocast inside forward "
    "computed wrong numbers on an H200, those of 1.6.1 right ones; 1.5 was not run.",
    link="https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/index.html",
    test="gpu/test_zoo_rehearsal.py::test_zoo_on_a_gpu",
    delete="No supported torch-tensorrt-rtx pairs with TensorRT-RTX 1.4 or 1.5: 2.13 is no longer supported.",
)


def cautions(version: str | None) -> tuple[str, ...]:
    """What to know of engines that TensorRT-RTX ``version`` builds: sentences, most often none."""
    if not WRONG_NUMBERS.needed_by(version):
        return ()
    return (
        f"Built with TensorRT-RTX {version}. {WRONG_NUMBERS.reason} Compare with eager on the GPU you ship to, or "
        "export with torch-tensorrt-rtx 2.14, which brings TensorRT-RTX 1.6.",
    )
