"""What turns an ExportedProgram into engines. A backend names no files and writes no manifest.

To add one: a module here with a class that obeys ``Backend``, and a line in ``BACKENDS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning_trt_windows.settings import ExportSettings

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from lightning_trt_windows.artifact.manifest import CheckRecord, OperatorCounts, Target
    from lightning_trt_windows.backends.binding_names import ProgramNames
    from lightning_trt_windows.backends.engine import Engine
    from lightning_trt_windows.backends.number_check import Boundary
    from lightning_trt_windows.backends.samples import Samples

__all__ = ["BACKENDS", "Backend", "CompiledProgram", "builds_on_a_gpu", "get_backend"]

BACKENDS = {
    "tensorrt_rtx": "lightning_trt_windows.backends.tensorrt_rtx:TensorRTRTX",
    "tensorrt": "lightning_trt_windows.backends.tensorrt:TensorRT",
}
"""Name to ``module:class``; the module is imported when the backend is asked for."""


@dataclass(frozen=True)
class CompiledProgram:
    """What a backend gives back."""

    backend: str
    """Name of the backend."""
    program: ExportedProgram
    """Ready to save, with a token in place of each engine's payload."""
    engines: Mapping[str, Engine]
    """Token to engine."""
    fallback_ops: tuple[str, ...]
    """Operators that run in PyTorch between the engines, sorted, each once."""
    operators: OperatorCounts
    """How many run where."""
    compute_capabilities: tuple[str, ...]
    """GPU generations the engines run on, as ``"8.6"``; ``"newer"`` stands for GPUs that do not exist yet."""
    options: Mapping[str, Any]
    """The upstream options that differ from upstream's defaults."""
    versions: Mapping[str, str]
    """Versions that loading depends on."""
    notes: tuple[str, ...] = field(default=())
    """Sentences for the manifest: what was decided or given up."""
    check: CheckRecord | None = None
    """What was compared before the engines were built, for the manifest."""
    replay: Mapping[str, tuple[Boundary, ...]] = field(default_factory=dict)
    """What passed the borders of each engine during the check, by the engine's name."""
    lines: Mapping[str, str] = field(default_factory=dict)
    """The line of the model that a node of ``program`` comes from, by the node's name; no file says it."""
    target: Target = "portable"
    """Which GPUs the engines run on, other than those listed; see ``BackendRecord``."""


class Backend(Protocol):
    """Turns programs into engines."""

    name: str
    runs_here: bool
    """Whether engines for Windows also run on the Linux machine that builds; otherwise only a twin does, a host build
    of the same program."""

    def check(self, settings: ExportSettings) -> None:
        """Refuse settings and environments that cannot work, in a second and before any training.

        Raises:
            ConfigurationError: An option that is unknown or has no effect.
            EnvironmentMismatchError: Something that must be installed is not.
        """

    def compile(
        self,
        program: ExportedProgram,
        settings: ExportSettings,
        *,
        twin: bool = False,
        samples: Samples | None = None,
        names: ProgramNames | None = None,
        scratch: Path | None = None,
        same: str | None = None,
    ) -> CompiledProgram:
        """Compile ``program``, whose graph is consumed.

        Args:
            program: A captured program.
            settings: What the user chose.
            twin: Build for this machine's own system instead of Windows, where engines for Windows cannot run here.
            samples: Inputs to check the numbers at before engines are built; ``None`` checks nothing.
            names: What the program calls its inputs and outputs, and so what engines call their bindings; ``None``
                leaves them upstream's names.
            scratch: Directory where large engines may be while they are not written, which takes their size in memory
                less; ``None`` keeps them in memory.
            same: Equal for programs that differ in the values of their weights only, and have the same settings: what
                does not depend on weights is done once for them. ``None`` keeps nothing.

        Returns:
            The program with its engines, and what was noted on the way.

        Raises:
            CompileError: No engine, or an artifact that would give wrong results.
            OutputError: The disk does not take an engine.
        """


def builds_on_a_gpu(name: str) -> bool:
    """Whether the backend called ``name`` (``auto`` is the installed one) needs a GPU in the process that builds."""
    from lightning_trt_windows._compat.bindings import installed_version
    from lightning_trt_windows._compat.torch_tensorrt import DISTRIBUTIONS

    return name == "tensorrt" or (
        name == "auto"
        and bool(installed_version(DISTRIBUTIONS["tensorrt"]))
        and not installed_version(DISTRIBUTIONS["tensorrt_rtx"])
    )


def get_backend(name: str) -> Backend:
    """The backend called ``name``; ``auto`` is the installed one.

    Returns:
        The backend.

    Raises:
        EnvironmentMismatchError: The backend is not installed, or its packages do not fit together.
    """
    from lightning_trt_windows._compat.torch_tensorrt import installed_distribution

    found = installed_distribution(name)
    module, _, attribute = BACKENDS[found].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend
