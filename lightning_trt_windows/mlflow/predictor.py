"""What ``mlflow.pyfunc`` calls: arrays in, arrays out, through a loaded artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.errors import ArtifactError, ConfigurationError
from lightning_trt_windows.mlflow.signature import numpy_dtype

if TYPE_CHECKING:
    from lightning_trt_windows.runtime.loaded import LoadedModule

__all__ = ["DEFAULTS", "FOLDER", "Predictor", "load_predictor", "loaded_from"]

FOLDER = "artifact"
"""Folder of an MLflow model that holds the files of the artifact."""
DEFAULTS: Mapping[str, Any] = {
    "device": "cuda:0",
    "runtime_cache": None,
    "cuda_graphs": False,
    "kernel_specialization": None,
    "trusted_keys": None,
}
"""Options of ``load``. MLflow ignores those of ``model_config`` that a model was not saved with."""


def load_predictor(path: str, model_config: Mapping[str, Any] | None = None) -> Predictor:
    """Load what ``mlflow.pyfunc.load_model`` calls; MLflow calls this.

    Args:
        path: Folder of the MLflow model.
        model_config: Options of ``lightning_trt_windows.load``, such as ``{"device": "cuda:1"}``.

    Returns:
        What has the method ``predict``.

    Raises:
        ArtifactError: The model holds no artifact, or a damaged one.
        EnvironmentMismatchError: This machine cannot run it: no GPU, or other versions than it needs.
        ConfigurationError: An option has a value outside its choices.
    """
    return Predictor(loaded_from(Path(path), **{**DEFAULTS, **(model_config or {})}))


def loaded_from(model: Path, **options: Any) -> LoadedModule:
    """Load the artifact in the folder of an MLflow model.

    Raises:
        ArtifactError: There is none, or a damaged one.
        EnvironmentMismatchError: This machine cannot run it.
        ConfigurationError: An option of ``load`` cannot be had.
    """
    found = sorted((model / FOLDER).glob("*.ep"))
    if len(found) != 1:
        held = "none" if not found else f"{len(found)} of them"
        raise ArtifactError(model, [f"should hold one artifact in its folder {FOLDER}, and holds {held}"])
    # the function, as it is at the time of the call
    from lightning_trt_windows.runtime import loading

    return loading.load(found[0], **options)


class Predictor:
    """A loaded artifact for ``mlflow.pyfunc``.

    Args:
        loaded: The artifact.
    """

    def __init__(self, loaded: LoadedModule) -> None:
        self._loaded = loaded

    def get_raw_model(self) -> LoadedModule:
        """What ``unwrap_python_model`` and MLflow's evaluators ask for: the loaded module."""
        return self._loaded

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the artifact.

        Args:
            model_input: An array for each input, by its name; where there is one input, the array itself will do.
            params: Not used: an artifact has no parameters.

        Returns:
            An array for each output, by its name.

        Raises:
            ConfigurationError: An input is missing or unknown, or has a shape outside its range.
        """
        import numpy
        import torch

        manifest = self._loaded.manifest
        names = [record.name for record in manifest.inputs]
        given = (
            model_input if isinstance(model_input, Mapping) else {names[0]: model_input} if len(names) == 1 else None
        )
        if given is None or set(given) != set(names):
            found = ", ".join(map(str, given)) if given is not None else type(model_input).__name__
            raise ConfigurationError(f"expected an array for each of {', '.join(names)}, got {found}")
        tensors = []
        for record in manifest.inputs:
            array = numpy.asarray(given[record.name], dtype=numpy_dtype(record.dtype))
            # a copy where NumPy's memory cannot be shared, as of a view that MLflow made
            tensor = torch.from_numpy(numpy.require(array, requirements=("C", "W")))
            tensors.append(tensor.to(self._loaded.device, getattr(torch, record.dtype)))
        outputs = self._loaded.call_flat(tensors)
        return {record.name: _array(value) for record, value in zip(manifest.outputs, outputs)}


def _array(value: Any) -> Any:
    """A tensor as an array, in float32 where NumPy lacks its dtype; what is no tensor as it is."""
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    name = str(value.dtype).removeprefix("torch.")
    wanted = numpy_dtype(name)
    if wanted.name != name:
        value = value.to(torch.float32)
    return value.detach().cpu().numpy()
