"""What the user chooses about an export. Standard library only; every field can be written in YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lightning_trt_windows.errors import ConfigurationError

__all__ = [
    "PRECISION_DTYPES",
    "BackendName",
    "ExportSettings",
    "Format",
    "IOPrecision",
    "Precision",
    "PrecisionName",
    "Recurrent",
]

BackendName = Literal["auto", "tensorrt_rtx", "tensorrt"]
Format = Literal["ep", "onnx"]
Precision = Literal["32", "16", "bf16"]
PrecisionName = Literal[
    "32", "16", "bf16", 32, 16, "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed", "fp32", "fp16",
    "float32", "float16", "bfloat16",
]  # fmt: skip
"""What is taken for a ``Precision``: also the names that Lightning's Trainer, TensorRT and PyTorch have for them."""
IOPrecision = Literal["module", "engine"]
Recurrent = Literal["auto", "engine", "pytorch"]

PRECISION_DTYPES = {"32": "float32", "16": "float16", "bf16": "bfloat16"}
"""What each ``Precision`` is as a dtype, as torch spells it."""
_PRECISIONS: dict[Any, Precision] = {
    **dict.fromkeys(("32", 32, "32-true", "fp32", "float32"), "32"),
    **dict.fromkeys(("16", 16, "16-true", "16-mixed", "fp16", "float16"), "16"),
    **dict.fromkeys(("bf16", "bf16-true", "bf16-mixed", "bfloat16"), "bf16"),
}


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of one export, the same for the callback, the functions and the command line.

    Raises:
        ConfigurationError: A value outside its choices.
    """

    backend: BackendName = "auto"
    """``auto`` takes the installed distribution: torch-tensorrt-rtx or torch-tensorrt."""
    precision: Precision | None = None  # also a PrecisionName, which becomes one
    """What engines compute in; inputs and outputs keep their types. ``None`` is the type of the weights, ``"32"`` is
    float32. ``"16"`` (float16) and ``"bf16"`` (bfloat16) hold the weights and compute matrix products and convolutions
    so, and sums, normalisations and exponentials in float32, as CUDA autocast does: half the size.
    ``Trainer(precision="16-mixed")`` trains float32 weights, so the engine is float32 unless this says otherwise."""
    io_precision: IOPrecision = "module"
    """What floating-point inputs and outputs of the artifact are: ``"module"``, what those of the module are, or
    ``"engine"``, what ``precision`` says, which must be given: an application that has float16 then converts nothing.
    Integers, booleans and complex numbers stay what they are."""
    compute_capabilities: tuple[str, ...] = ()
    """GPU generations to build for, as ``"8.6"``. Empty is TensorRT-RTX's own choice: Ampere and newer, also GPUs
    that do not exist yet. A list is exact and has no forward compatibility; Turing is ``"7.5"``."""
    tensorrt_rtx: str | None = None
    """Which TensorRT-RTX must build the engines, as ``"1.7"`` or ``"1.7.1.116"``: an engine loads in the version that
    built it, and Windows ML and ONNX Runtime's execution provider bring one of theirs. Engines are built with the one
    that is installed; another is refused before anything is compiled, with the command that installs this one. ``None``
    is whichever is installed."""
    min_block_size: int = 1
    """Minimum number of operators in a TensorRT subgraph; smaller groups fall back to PyTorch."""
    golden: bool = False
    """Record goldens beside the artifact, for ``verify``: synthetic inputs within the ranges, and as reference outputs
    what the captured program gives for them on the CPU before anything is lowered."""
    verify: bool | Literal["auto"] = False
    """Verify the artifact when it has been written, against goldens, which are then recorded, and write the verdict
    into the manifest. ``True`` needs a GPU that runs the engines; ``"auto"`` checks the numbers where there is one."""
    check: Literal["auto", "full", False] = "auto"
    """Compare what engines will compute with the module before they are built, on the CPU: ``"auto"`` within a second
    or two, the smallest inputs first; ``"full"`` at the smallest, usual and largest sizes and between; ``False`` does
    not compare."""
    formats: tuple[Format, ...] = ("ep",)
    """``"ep"``, the artifact that ``load`` takes, is always among them. ``"onnx"`` adds a model for ONNX Runtime and
    Windows ML and the engines that it names; what stays in PyTorch becomes operators of ONNX. Where one has no form in
    ONNX, the artifact is complete without the model, and a warning and a note in the manifest name the operator. Needs
    the packages ``onnx`` and ``onnxscript``, which the extra ``onnx`` brings."""
    recurrent: Recurrent = "auto"
    """Where LSTM, GRU and RNN run: ``"engine"``, as loops, ``"pytorch"``, as a fallback to cuDNN, or ``"auto"``, where
    they are faster: cuDNN for long sequences, the engine for short ones, for GRUs of 256 units and more, where nothing
    else would be in an engine, and with ``formats=("ep", "onnx")``."""
    compile_options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to Torch-TensorRT's ``CompilationSettings``; unknown and ineffective keys are errors."""

    def __post_init__(self) -> None:
        given: Any = self.precision
        is_name = isinstance(given, (str, int)) and not isinstance(given, bool)
        object.__setattr__(self, "precision", _PRECISIONS.get(given, given) if is_name else given)
        formats = self.formats
        if isinstance(formats, str) or "ep" not in formats or not set(formats) <= set(get_args(Format)):
            raise ConfigurationError(f"formats must be ['ep'] or ['ep', 'onnx'], got {formats!r}")
        # in one order: the same request has the same fingerprint
        object.__setattr__(self, "formats", tuple(one for one in get_args(Format) if one in formats))
        for name, choices in (
            ("backend", get_args(BackendName)),
            ("precision", (None, *get_args(Precision))),
            ("io_precision", get_args(IOPrecision)),
            ("recurrent", get_args(Recurrent)),
        ):
            if getattr(self, name) not in choices:
                listed = ", ".join(repr(c) for c in choices)
                raise ConfigurationError(f"{name} must be one of {listed}, got {getattr(self, name)!r}")
        if self.io_precision == "engine" and self.precision is None:
            raise ConfigurationError(
                "io_precision='engine' needs a precision: without one engines compute in the types of the weights, of "
                "which there may be several. Set precision to '16', 'bf16' or '32'"
            )
        if self.verify not in (False, True, "auto"):
            raise ConfigurationError(f"verify must be one of False, True, 'auto', got {self.verify!r}")
        if self.check not in (False, "auto", "full"):
            raise ConfigurationError(f"check must be one of 'auto', 'full', False, got {self.check!r}")
        if isinstance(self.compute_capabilities, str):
            raise ConfigurationError(
                f"compute_capabilities must be a list such as ['8.6', '8.9'], got {self.compute_capabilities!r}"
            )
        object.__setattr__(self, "compute_capabilities", tuple(str(c) for c in self.compute_capabilities))
        for capability in self.compute_capabilities:
            major, dot, minor = capability.partition(".")
            if not (dot and major.isdigit() and minor.isdigit()):
                raise ConfigurationError(f"a compute capability looks like '8.6', got {capability!r}")
            if self.precision == "bf16" and int(major) < 8:
                raise ConfigurationError(
                    f"GPUs of compute capability {capability} have no bfloat16; take precision='16', or 8.0 and newer"
                )
        wanted = self.tensorrt_rtx
        # a number is none: 1.10 would be 1.1
        if wanted is not None and not (isinstance(wanted, str) and re.fullmatch(r"\d+(\.\d+){1,3}", wanted)):
            raise ConfigurationError(f"tensorrt_rtx must be a version in quotation marks, as '1.7', got {wanted!r}")
        if isinstance(self.min_block_size, bool) or not isinstance(self.min_block_size, int) or self.min_block_size < 1:
            raise ConfigurationError(f"min_block_size must be a whole number from 1, got {self.min_block_size!r}")
        # a copy: the settings stay what they were when the caller changes his dict
        object.__setattr__(self, "compile_options", dict(self.compile_options or {}))
