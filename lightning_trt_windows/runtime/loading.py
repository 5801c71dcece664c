"""``load``: from the two files of an artifact to something that is called like the module it came from.

Needs PyTorch and TensorRT's Python bindings, and neither Lightning nor Torch-TensorRT. The order is what makes it safe:
the manifest, the hash of the file, the machine; only then is anything in the file parsed.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lightning_trt_windows.artifact.artifact import Artifact, open_checked, read_artifact
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.signing import PublicKeyLike, check_signature
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.runtime.environment import check_environment, lean_runtime_for

if TYPE_CHECKING:
    import torch

    from lightning_trt_windows.artifact.ep_file import EpFile
    from lightning_trt_windows.artifact.manifest import EngineRecord
    from lightning_trt_windows.runtime.engine_runner import EngineOpener, EngineRunner, TensorRTRuntime
    from lightning_trt_windows.runtime.loaded import LoadedModule
    from lightning_trt_windows.runtime.runtime_cache import RuntimeCache

__all__ = ["load", "load_program"]


def load(
    path: str | os.PathLike[str],
    device: str | torch.device = "cuda:0",
    *,
    runtime_cache: str | os.PathLike[str] | None = None,
    cuda_graphs: bool = False,
    kernel_specialization: Literal["lazy", "eager", "none"] | None = None,
    trusted_keys: Sequence[PublicKeyLike] | None = None,
) -> LoadedModule:
    """Load an artifact, named by its ``.ep`` or its ``.json``, onto a GPU.

    Args:
        path: Either of the two files; the other one lies beside it.
        device: The GPU.
        runtime_cache: File in which TensorRT-RTX keeps the kernels that it compiles for this GPU, so that the next
            start does not compile them again. Written when the module goes, and by ``save_runtime_cache()``.
        cuda_graphs: Let TensorRT-RTX record each engine's kernels and replay them, which saves launches where shapes
            repeat.
        kernel_specialization: When TensorRT-RTX compiles kernels for the shapes that it meets: ``"lazy"`` beside the
            calls, ``"eager"`` before the first call with a shape, ``"none"`` never. ``None`` is its own choice, lazy;
            on GPUs that NVIDIA does not support it on, none, because specialized kernels gave wrong numbers there.
        trusted_keys: Public keys, or files with them: Ed25519 for the signature of the manifest, one of NIST's curves
            for that of OpenSSF's model signing. One of them must have signed; that is checked before the ``.ep`` is
            opened. ``None`` asks for no signature, an empty list is an error.

    Returns:
        The module: called as ``forward`` is, with tensors on ``device``.

    Raises:
        ArtifactError: A file is missing or damaged, the signature is missing or by another key, or the program has
            something in it that no artifact needs.
        EnvironmentMismatchError: PyTorch, TensorRT, the driver or the GPU is not what the artifact needs (the error
            lists every mismatch), or there is too little memory.
        ConfigurationError: The artifact's backend does not have an option, an option has a value outside its choices,
            or the runtime cache cannot be read.
    """
    artifact = read_artifact(path)
    if trusted_keys is not None:
        check_signature(artifact, trusted_keys)
    with open_checked(artifact) as file:
        doubts = check_environment(artifact, str(device), file.headers(artifact.manifest.engines))
        opener, cache = _opener(
            artifact,
            device,
            unsupported_gpu=bool(doubts),
            runtime_cache=runtime_cache,
            cuda_graphs=cuda_graphs,
            kernel_specialization=kernel_specialization,
        )
        try:
            return _assembled(artifact, file, opener.device, opener, cache)
        except MemoryError as error:
            needed = sum(engine.size for engine in artifact.manifest.engines)
            raise EnvironmentMismatchError(
                f"{artifact.path.name} takes more memory than there is here: its engines have {readable_size(needed)}, "
                f"in the PC's memory while they are read and then on the GPU ({str(error) or 'MemoryError'}). Close "
                "other programs, enlarge the paging file, or take a GPU with more memory"
            ) from error


def _opener(
    artifact: Artifact,
    device: str | torch.device,
    *,
    unsupported_gpu: bool,
    runtime_cache: str | os.PathLike[str] | None,
    cuda_graphs: bool,
    kernel_specialization: Literal["lazy", "eager", "none"] | None,
) -> tuple[TensorRTRuntime, RuntimeCache | None]:
    """Check the options of ``load``, and set TensorRT up with them."""
    backend = artifact.manifest.backend.name
    if backend != "tensorrt_rtx" and (runtime_cache is not None or cuda_graphs or kernel_specialization):
        raise ConfigurationError(
            "runtime_cache, cuda_graphs and kernel_specialization are TensorRT-RTX's, this artifact is of " + backend
        )
    if kernel_specialization not in (None, "lazy", "eager", "none"):
        raise ConfigurationError(
            f"kernel_specialization must be 'lazy', 'eager', 'none' or None, got {kernel_specialization!r}"
        )
    if unsupported_gpu and backend == "tensorrt_rtx" and kernel_specialization is None:
        kernel_specialization = "none"

    import torch

    from lightning_trt_windows._compat.bindings import bindings
    from lightning_trt_windows.runtime.engine_runner import TensorRTRuntime
    from lightning_trt_windows.runtime.runtime_cache import RuntimeCache

    target = torch.device(device)
    if target.index is None:
        target = torch.device(target.type, torch.cuda.current_device())
    cache = None if runtime_cache is None else RuntimeCache(runtime_cache)
    lean = lean_runtime_for(artifact)
    opener = TensorRTRuntime(
        bindings(backend),
        target,
        cache=cache,
        cuda_graphs=cuda_graphs,
        specialization=kernel_specialization,
        lean_runtime=lean,
    )
    return opener, cache


def load_program(
    artifact: Artifact, device: torch.device, open_engine: EngineOpener, *, keeps_engines: bool = True
) -> LoadedModule:
    """Load an artifact as ``load`` does, onto any device and with another way to run its engines.

    Args:
        artifact: The artifact; it is compared with its manifest.
        device: Where it runs.
        open_engine: Makes what runs an engine of its bytes.
        keeps_engines: Give it the bytes. Otherwise they are compared with their hash and let go piece by piece, which
            takes no memory.

    Returns:
        The module.

    Raises:
        ArtifactError: As ``load`` raises it.
    """
    with open_checked(artifact) as file:
        return _assembled(artifact, file, device, open_engine, None, keeps_engines=keeps_engines)


def _compared(file: EpFile, engine: EngineRecord) -> memoryview:
    """No bytes, after those in the file have been found to be the engine's."""
    digest = hashlib.sha256()
    for piece in file.engine_pieces(engine):
        digest.update(piece)
    if digest.hexdigest() != engine.sha256:
        raise ArtifactError(file.path, [f"engine {engine.name}: its content is not that of the export"])
    return memoryview(b"")


def _assembled(
    artifact: Artifact,
    file: EpFile,
    device: torch.device,
    open_engine: EngineOpener,
    cache: RuntimeCache | None,
    *,
    keeps_engines: bool = True,
) -> LoadedModule:
    """Put the program and its engines together; engines are read one after the other, a buffer at a time in memory."""
    from lightning_trt_windows.runtime.loaded import assemble
    from lightning_trt_windows.runtime.program_reader import damage_as_artifact_error, read_program

    runners: list[EngineRunner] = []
    program = read_program(artifact, file, device)
    for engine in artifact.manifest.engines:
        runners.append(open_engine(engine, file.engine(engine) if keeps_engines else _compared(file, engine)))
    with damage_as_artifact_error(artifact):
        module = assemble(artifact, program, runners, device, cache)
    if cache is not None:
        # also at the end of the process
        weakref.finalize(module, cache.save_quietly)
    return module
