"""Twins (host builds): where engines for Windows cannot run on the machine that builds, those of a twin do.

A twin has the same program and settings. It is compiled for the machine's own system, compared with the goldens, and
deleted; the result stands in the artifact's manifest, which says that the numbers are the twin's.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.export import ExportedProgram

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.backends import Backend, CompiledProgram
from lightning_trt_windows.backends.binding_names import ProgramNames
from lightning_trt_windows.export.saved_program import load_program, save_program
from lightning_trt_windows.modules.state import random_state_kept
from lightning_trt_windows.progress.events import stage
from lightning_trt_windows.settings import ExportSettings
from lightning_trt_windows.verification.at_export import verified

__all__ = ["copied_for_twin", "verified_by_twin"]


def copied_for_twin(program: ExportedProgram, settings: ExportSettings, backend: Backend) -> io.BytesIO | None:
    """A copy of ``program``, which compiling consumes; ``None`` where nobody verifies or the artifact itself runs here.

    The copy is a file in memory: a deep copy renames inputs.
    """
    if backend.runs_here or not settings.verify:
        return None
    copy = io.BytesIO()
    save_program(program, copy)
    return copy


def verified_by_twin(
    artifact: Artifact,
    program: io.BytesIO,
    settings: ExportSettings,
    backend: Backend,
    names: ProgramNames,
    write: Callable[[CompiledProgram, ArtifactPaths], Artifact],
) -> Artifact:
    """Compile and write a twin of ``artifact``, verify it, and note in the manifest of ``artifact`` what came of it.

    Args:
        artifact: For Windows, written.
        program: What ``copied_for_twin`` kept.
        settings: Of the artifact; they ask for verification.
        backend: The one that built.
        names: What the program calls its inputs and outputs.
        write: Writes a compiled program with its goldens.

    Returns:
        The artifact with the verdict in its manifest.
    """
    stage("twin", artifact.path.name)
    program.seek(0)
    with tempfile.TemporaryDirectory() as folder:
        with random_state_kept():
            compiled = backend.compile(load_program(program), settings, twin=True, names=names)
        twin = write(compiled, ArtifactPaths.of(Path(folder) / artifact.path.name))
        return verified(artifact, settings.verify, twin=twin)
