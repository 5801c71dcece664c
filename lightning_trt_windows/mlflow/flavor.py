"""``save_model``, ``log_model`` and ``load_model``: an artifact as an MLflow model, and back.

The model has the artifact's files as they are, byte for byte, in the folder ``artifact``; what to install, as a bundle
names it, with this package's wheel while no index has it; a signature from the manifest; and the flavour
``python_function`` for ``mlflow.pyfunc``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.files import output_errors
from lightning_trt_windows.bundle.gathering import Gathered
from lightning_trt_windows.bundle.pins import requirements
from lightning_trt_windows.bundle.selection import wheel_member
from lightning_trt_windows.bundle.wheel import package_version
from lightning_trt_windows.errors import ConfigurationError, did_you_mean
from lightning_trt_windows.mlflow.predictor import DEFAULTS, FOLDER, loaded_from
from lightning_trt_windows.mlflow.signature import mlflow_library, signature_of
from lightning_trt_windows.storage.remote_artifact import fetch

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature
    from mlflow.models.model import ModelInfo

    from lightning_trt_windows.runtime.loaded import LoadedModule

__all__ = ["FLAVOR_NAME", "load_model", "log_model", "save_model"]

FLAVOR_NAME = "lightning_trt_windows"
"""Name of the flavour in ``MLmodel``."""
_MODULE = "lightning_trt_windows.mlflow"


def save_model(
    artifact: Artifact | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    mlflow_model: Model | None = None,
    signature: ModelSignature | None = None,
    pip_requirements: str | Sequence[str] | None = None,
    extra_pip_requirements: str | Sequence[str] | None = None,
    model_config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write an artifact as an MLflow model.

    Args:
        artifact: The artifact, its ``.ep`` or its ``.json``, or the URL of one.
        path: The folder; it must not be there, or be empty.
        mlflow_model: What MLflow knows of the model already; MLflow passes it.
        signature: By default that of the manifest.
        pip_requirements: What to install in place of what a bundle names.
        extra_pip_requirements: What to install beside it.
        model_config: Options of ``lightning_trt_windows.load`` for ``mlflow.pyfunc``, such as
            ``{"cuda_graphs": True}``; ``mlflow.pyfunc.load_model`` may replace them.
        metadata: Kept by MLflow.

    Raises:
        ArtifactError: The artifact is missing or damaged.
        ConfigurationError: ``path`` is there and holds something, or ``model_config`` has an option that ``load`` does
            not have.
        EnvironmentMismatchError: MLflow is not installed.
        OutputError: The folder cannot be written.
    """
    mlflow = mlflow_library()
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there already; an MLflow model is written into a new folder")
    config = {**DEFAULTS, **(model_config or {})}
    if unknown := sorted(set(config) - set(DEFAULTS)):
        hint = did_you_mean(unknown[0], DEFAULTS, f"there are {', '.join(DEFAULTS)}")
        raise ConfigurationError(f"model_config: load has no option {unknown[0]!r}{hint}")
    with tempfile.TemporaryDirectory() as place:
        source = (artifact.url or artifact.path) if isinstance(artifact, Artifact) else artifact
        local = read_artifact(fetch(source, place))
        manifest = local.manifest
        item = Gathered(local, PurePosixPath(), 0)
        wheel = wheel_member(None)
        model = mlflow.models.Model() if mlflow_model is None else mlflow_model
        model.add_flavor(
            FLAVOR_NAME,
            artifact=f"{FOLDER}/{local.path.name}",
            sha256=manifest.ep.sha256,
            backend=manifest.backend.name,
            compute_capabilities=list(manifest.backend.compute_capabilities),
            package_version=package_version(),
        )
        if pip_requirements is None:
            package = f"./{wheel.name}" if wheel else f"lightning-trt-windows=={package_version()}"
            pip_requirements = _requirements(item, package)
            pip_requirements += _lines(extra_pip_requirements)
            extra_pip_requirements = None
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=_MODULE,
            mlflow_model=model,
            signature=signature or signature_of(manifest),
            pip_requirements=pip_requirements,
            extra_pip_requirements=extra_pip_requirements,
            model_config=config,
            metadata=None if metadata is None else dict(metadata),
        )
        with output_errors(folder / FOLDER, manifest.ep.size):
            (folder / FOLDER).mkdir()
            for file in item.files:
                shutil.copyfile(file, folder / FOLDER / file.name)
            if wheel:
                target = folder.joinpath(*wheel.name.split("/"))
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(b"".join(wheel.pieces()))
            model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            model.save(str(folder / "MLmodel"))


def log_model(
    artifact: Artifact | str | os.PathLike[str],
    name: str | None = None,
    *,
    registered_model_name: str | None = None,
    **options: Any,
) -> ModelInfo:
    """Log an artifact as an MLflow model, to the run that is active or a new one.

    Args:
        artifact: The artifact, its ``.ep`` or its ``.json``, or the URL of one.
        name: Of the logged model.
        registered_model_name: Register it under this name as well.
        **options: Those of ``save_model``, and of MLflow's ``Model.log``: ``run_id``, ``params``, ``tags``, ``step``,
            ``model_type``, ``model_id``, ``await_registration_for``.

    Returns:
        What MLflow says of the logged model; ``model_uri`` is what ``load_model`` takes.

    Raises:
        ArtifactError: The artifact is missing or damaged.
        EnvironmentMismatchError: MLflow is not installed.
    """
    mlflow = mlflow_library()
    import lightning_trt_windows.mlflow as flavor

    info: ModelInfo = mlflow.models.Model.log(
        artifact_path=None,
        name=name,
        flavor=flavor,
        registered_model_name=registered_model_name,
        artifact=artifact,
        **options,
    )
    return info


def load_model(model_uri: str, dst_path: str | None = None, **options: Any) -> LoadedModule:
    """Load an artifact that was saved or logged as an MLflow model, onto a GPU.

    Args:
        model_uri: Folder or URI of the model: ``models:/net/1``, ``runs:/RUN/net``.
        dst_path: Folder to download to; by default a temporary one.
        **options: Those of ``lightning_trt_windows.load``.

    Returns:
        The module, as ``lightning_trt_windows.load`` gives it.

    Raises:
        ConfigurationError: The model has not this flavour.
        ArtifactError: The artifact is missing or damaged.
        EnvironmentMismatchError: MLflow is not installed, or this machine cannot run the artifact.
    """
    mlflow = mlflow_library()
    folder = mlflow.artifacts.download_artifacts(artifact_uri=str(model_uri), dst_path=dst_path)
    flavors = mlflow.models.Model.load(folder).flavors
    if FLAVOR_NAME not in flavors:
        raise ConfigurationError(f"{model_uri} is a model of the flavours {', '.join(flavors)}, not {FLAVOR_NAME}")
    return loaded_from(Path(folder), **options)


def _requirements(item: Gathered, package: str) -> list[str]:
    """What a bundle with this artifact says in ``requirements-windows.txt``."""
    manifest = item.manifest
    text = requirements(
        [(manifest.backend.name, manifest.versions)],
        package=package,
        goldens=manifest.golden is not None,
        signatures=item.signed,
        openssf=item.openssf_signed,
    )
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _lines(given: str | Sequence[str] | None) -> list[str]:
    """Requirements as MLflow takes them: a list, or the name of a file."""
    if given is None:
        return []
    return Path(given).read_text(encoding="utf-8").splitlines() if isinstance(given, str) else list(given)
