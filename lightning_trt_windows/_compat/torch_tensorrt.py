"""The one door to Torch-TensorRT: its building blocks, and what must be worked around to use them.

``upstream()`` imports the installed distribution once (5 s, so only when a compile starts) and returns the blocks that
the backends are built from. Nothing else in the package imports ``torch_tensorrt`` or ``tensorrt`` for compiling.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from lightning_trt_windows._compat import cpu_build
from lightning_trt_windows._compat.bindings import installed_version
from lightning_trt_windows._compat.no_gpu import no_gpu_needed
from lightning_trt_windows._compat.versions import Workaround, minor
from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.progress.upstream_output import quiet, record_line

__all__ = [
    "ATTENTION_DECOMPOSES",
    "COMPLEX_NUMBERS_LOSE_SHAPES",
    "DISTRIBUTIONS",
    "REPEATED_OUTPUTS_ARE_DROPPED",
    "EngineFields",
    "Upstream",
    "installed_distribution",
    "upstream",
]

DISTRIBUTIONS = {"tensorrt_rtx": "torch-tensorrt-rtx", "tensorrt": "torch-tensorrt"}
"""Backend name to distribution. Both import as ``torch_tensorrt`` and exclude each other."""

ATTENTION_DECOMPOSES = Workaround(
    upstream="torch-tensorrt",
    since="2.11",
    until="2.12",
    reason="Attention decomposes on a CPU to an operator that only CPUs have. Harmless later: the key is absent.",
    link="https://github.com/pytorch/TensorRT/pull/3296",
    test="test_torch_tensorrt.py::test_attention_still_decomposes_below_the_bound",
    delete="2.11 is no longer supported.",
)

COMPLEX_NUMBERS_LOSE_SHAPES = Workaround(
    upstream="torch-tensorrt",
    since="2.11",
    until="2.14",
    reason="The pass that rewrites complex numbers loses shapes, without a word: they are refused.",
    link="https://github.com/pytorch/TensorRT/pull/4430",
    test="test_torch_tensorrt.py::test_complex_numbers_lose_shapes_below_the_bound",
    delete="2.13 is no longer supported.",
)

REPEATED_OUTPUTS_ARE_DROPPED = Workaround(
    upstream="torch-tensorrt",
    since="2.11",
    until=None,
    reason="The interpreter marks a tensor as output once, however often the graph returns it: the other outputs come "
    "back unwritten. backends/engine.py gives each a tensor of its own.",
    link="https://github.com/pytorch/TensorRT/blob/v2.13.0/py/torch_tensorrt/dynamo/conversion/_TRTInterpreter.py",
    test="test_torch_tensorrt.py::test_repeated_outputs_are_still_dropped",
    delete="Upstream's interpreter gives every output a tensor of its own.",
)


@dataclass(frozen=True)
class Upstream:
    """Torch-TensorRT's building blocks, by their upstream names."""

    trt: Any
    CompilationSettings: Any
    Device: Any
    TRTInterpreter: Any
    interpreter_module: Any
    CONVERTERS: Any
    converter: Callable[..., Callable[..., Any]]
    """``dynamo_tensorrt_converter``, which registers a converter."""
    OpSupportTester: Any
    TRTPartitioner: Any
    construct_submodule_inputs: Callable[..., Any]
    infer_module_output_dtypes: Callable[..., Any]
    extract_symbolic_shape_expressions: Callable[..., Any]
    pre_export_lowering: Callable[..., Any]
    post_lowering: Callable[..., Any]
    get_decompositions: Callable[..., Any]
    get_trt_tensor: Callable[..., Any]
    lowering_passes: Any
    layout: Any
    no_op: Any
    version: str

    def trt_dtype(self, dtype: Any) -> Any:
        """TensorRT's name for a type of PyTorch's that TensorRT has."""
        return getattr(self.trt, str(dtype).removeprefix("torch."))

    @property
    def takes_complex_numbers(self) -> bool:
        """Whether a graph with complex numbers inside comes out right."""
        return not COMPLEX_NUMBERS_LOSE_SHAPES.needed_by(self.version)


def installed_distribution(backend: str) -> str:
    """Resolve ``backend`` (``auto`` included) to the name of an installed backend.

    Returns:
        The name of an installed backend: ``tensorrt_rtx`` or ``tensorrt``.

    Raises:
        EnvironmentMismatchError: Torch-TensorRT is missing, both distributions are installed, PyTorch is a build or a
            version that the installed Torch-TensorRT does not work with.
    """
    found = {name: installed_version(distribution) for name, distribution in DISTRIBUTIONS.items()}
    present = [name for name, version in found.items() if version]
    if len(present) == 2:
        raise EnvironmentMismatchError(
            f"Both {DISTRIBUTIONS['tensorrt_rtx']} {found['tensorrt_rtx']} and {DISTRIBUTIONS['tensorrt']} "
            f"{found['tensorrt']} are installed. They share the import name torch_tensorrt and overwrite each other's "
            "files. Uninstall both, then install the one you want: pip uninstall torch-tensorrt torch-tensorrt-rtx && "
            'pip install "lightning-trt-windows[rtx]"'
        )
    wanted = present if backend == "auto" else [backend]
    if not wanted or wanted[0] not in present:
        name = wanted[0] if wanted else "tensorrt_rtx"
        extra = "rtx" if name == "tensorrt_rtx" else "tensorrt"
        has = f" Installed is {DISTRIBUTIONS[present[0]]} {found[present[0]]}." if present else ""
        raise EnvironmentMismatchError(
            f"Backend {backend!r} needs the distribution {DISTRIBUTIONS[name]}, which is not installed.{has} "
            f'Install it with: pip install "lightning-trt-windows[{extra}]"'
        )
    _check_torch(wanted[0])
    return wanted[0]


def _check_torch(backend: str) -> None:
    distribution = DISTRIBUTIONS[backend]
    own, torch_version = installed_version(distribution), installed_version("torch")
    if torch_version is None:
        raise EnvironmentMismatchError(
            f"PyTorch is not installed, {distribution} {own} needs it. "
            'Install both with: pip install "lightning-trt-windows[rtx]"'
        )
    if minor(own) != minor(torch_version):
        raise EnvironmentMismatchError(
            f"{distribution} {own} was built for PyTorch {'.'.join(map(str, minor(own)))}.*, installed is PyTorch "
            f"{torch_version}. Install a matching pair: pip install "
            f'"torch=={".".join(map(str, minor(own)))}.*" "{distribution}=={own}"'
        )
    cpu_build.check_build(backend, distribution, own)


@functools.cache
def upstream() -> Upstream:
    """Import Torch-TensorRT and collect its building blocks.

    Returns:
        The building blocks, the same object at each call.

    Raises:
        EnvironmentMismatchError: The import fails; upstream's own reason is in the message and chained.
    """
    try:
        with quiet(), no_gpu_needed(), cpu_build.cuda_libraries_hidden():
            return _import_blocks()
    # Torch-TensorRT raises bare Exception, ImportError, OSError and AttributeError when its parts do not fit
    except Exception as error:
        raise EnvironmentMismatchError(
            f"Torch-TensorRT is installed but does not import: {type(error).__name__}: {error}. The versions of torch, "
            "torch-tensorrt(-rtx) and tensorrt(-rtx) must come from one release; the support matrix in the README "
            "lists the tested ones"
        ) from error


def _import_blocks() -> Upstream:
    import torch_tensorrt
    from torch_tensorrt.dynamo import partitioning
    from torch_tensorrt.dynamo._settings import CompilationSettings
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter
    from torch_tensorrt.dynamo.conversion._conversion import infer_module_output_dtypes
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS, dynamo_tensorrt_converter
    from torch_tensorrt.dynamo.conversion._symbolic_shape_capture import extract_symbolic_shape_expressions
    from torch_tensorrt.dynamo.conversion.converter_utils import get_trt_tensor
    from torch_tensorrt.dynamo.lowering import get_decompositions, post_lowering, pre_export_lowering
    from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass
    from torch_tensorrt.dynamo.partitioning import _adjacency_partitioner
    from torch_tensorrt.dynamo.runtime import _TorchTensorRTModule

    return Upstream(
        # torch_tensorrt aliases tensorrt_rtx to tensorrt at its import, so take the module that it uses itself
        trt=_TRTInterpreter.trt,
        CompilationSettings=CompilationSettings,
        Device=torch_tensorrt.Device,
        TRTInterpreter=_TRTInterpreter.TRTInterpreter,
        interpreter_module=_TRTInterpreter,
        CONVERTERS=DYNAMO_CONVERTERS,
        converter=dynamo_tensorrt_converter,
        OpSupportTester=_adjacency_partitioner.OpSupportTester,
        TRTPartitioner=_adjacency_partitioner.TRTPartitioner,
        construct_submodule_inputs=partitioning.construct_submodule_inputs,
        infer_module_output_dtypes=infer_module_output_dtypes,
        extract_symbolic_shape_expressions=extract_symbolic_shape_expressions,
        pre_export_lowering=pre_export_lowering,
        post_lowering=post_lowering,
        get_decompositions=get_decompositions,
        get_trt_tensor=get_trt_tensor,
        lowering_passes=_aten_lowering_pass.ATEN_POST_LOWERING_PASSES,
        layout=_TorchTensorRTModule,
        no_op=cpu_build.engine_operator(_TorchTensorRTModule),
        version=torch_tensorrt.__version__,
    )


@contextlib.contextmanager
def tensorrt_messages(blocks: Upstream) -> Iterator[list[str]]:
    """Collect what TensorRT itself says (it writes to the terminal otherwise); yields the list of error messages."""
    errors: list[str] = []

    class Recorder(blocks.trt.ILogger):  # type: ignore[misc, name-defined]  # a C++ class that only exists at run time
        def log(self, severity: Any, message: str) -> None:
            if severity in (self.ERROR, self.INTERNAL_ERROR):
                errors.append(message)
            if severity in (self.ERROR, self.INTERNAL_ERROR, self.WARNING):
                record_line(f"TensorRT {severity.name}: {message}")

    with mock.patch.object(blocks.interpreter_module, "TRT_LOGGER", Recorder()):
        yield errors


def decompositions(blocks: Upstream, settings: Any) -> dict[Any, Any]:
    """The decompositions upstream's compile uses, attention kept whole (``ATTENTION_DECOMPOSES``)."""
    import torch

    table = blocks.get_decompositions(
        settings.enable_experimental_decompositions, getattr(settings, "decompose_attention", False)
    )
    attention = torch.ops.aten.scaled_dot_product_attention.default
    return {op: function for op, function in table.items() if op is not attention}


def lower(blocks: Upstream, program: Any, settings: Any) -> Any:
    """Upstream's passes over a decomposed program; complex numbers stay where they fail (``FFTS_FAIL_TO_LOWER``)."""
    import torch

    def is_complex(node: Any) -> bool:
        value = getattr(node, "meta", {}).get("val")
        return isinstance(value, torch.Tensor) and value.is_complex()

    nodes = list(program.graph.nodes)
    # what is returned or given would become pairs of real numbers
    if not any(is_complex(node) for node in (*nodes[-1].all_input_nodes, *(n for n in nodes if n.op == "placeholder"))):
        try:
            return blocks.post_lowering(program.module(), settings)
        # passes raise whatever they meet
        except Exception:
            if not any(is_complex(node) for node in nodes):
                raise
    with _complex_numbers_left(blocks):
        return blocks.post_lowering(program.module(), settings)


@contextlib.contextmanager
def _complex_numbers_left(blocks: Upstream) -> Iterator[None]:
    """Leave out the passes that make real numbers of complex ones."""
    manager = blocks.lowering_passes
    kept = [one for one in manager.passes if "complex" not in getattr(one, "__name__", str(one))]
    with mock.patch.object(manager, "passes", kept), mock.patch.object(manager, "_validated", True):
        yield


@dataclass(frozen=True)
class EngineFields:
    """What upstream's engine node records beside the payload."""

    name: str
    payload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    device: str
    """``id%major%minor%type%name`` of the GPU the loader looks for."""
    any_newer_gpu: bool
    """Any GPU of capability 8.0 and above passes the loader's check, not only the recorded one."""
    platform: str
    """What the engine runs on, as upstream's C++ spells it."""
    output_allocator: bool
    symbolic_shapes: Any
    settings: Any

    def as_arguments(self, blocks: Upstream) -> list[str]:
        """The node's string arguments in the installed version's layout (10 in 2.11, 12 in 2.12 and 2.13, 13 later)."""
        import torch

        layout = blocks.layout
        metadata = {
            "settings": self.settings,
            "inout_symexprs": self.symbolic_shapes,
            "output_tensors_are_unowned": False,
        }
        values: Mapping[str, str] = {
            "ABI_TARGET_IDX": getattr(layout, "ABI_VERSION", None) or torch.ops.tensorrt.ABI_VERSION(),
            "NAME_IDX": self.name,
            "DEVICE_IDX": self.device,
            "ENGINE_IDX": self.payload,
            "INPUT_BINDING_NAMES_IDX": "%".join(self.inputs),
            "OUTPUT_BINDING_NAMES_IDX": "%".join(self.outputs),
            "HW_COMPATIBLE_IDX": str(int(self.any_newer_gpu)),
            # upstream's own format, for upstream's loader; this package never reads it back
            "SERIALIZED_METADATA_IDX": base64.b64encode(pickle.dumps(metadata)).decode(),
            "TARGET_PLATFORM_IDX": self.platform,
            "REQUIRES_OUTPUT_ALLOCATOR_IDX": str(int(self.output_allocator)),
            "RESOURCE_ALLOCATION_STRATEGY_IDX": "0",
            "REQUIRES_NATIVE_MULTIDEVICE_IDX": "0",
            "ALIASED_IO_IDX": "",
        }
        record = [""] * int(layout.SERIALIZATION_LEN)
        for index, value in values.items():
            if hasattr(layout, index):
                record[int(getattr(layout, index))] = value
        return record
