"""The signature of an MLflow model, from an artifact's manifest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.errors import EnvironmentMismatchError

if TYPE_CHECKING:
    from types import ModuleType

    from mlflow.models import ModelSignature

__all__ = ["mlflow_library", "numpy_dtype", "signature_of"]

_DYNAMIC = -1


def signature_of(manifest: Manifest) -> ModelSignature:
    """Say in MLflow's words what an artifact takes and gives: names, dtypes and shapes, -1 where a size varies.

    MLflow has no words for ranges, for sizes that are equal, nor for bfloat16, which is float32 in a signature.

    Args:
        manifest: Of the artifact.

    Returns:
        The signature.

    Raises:
        EnvironmentMismatchError: MLflow is not installed.
    """
    models = mlflow_library().models
    inputs = (
        (record.name, record.dtype, [_DYNAMIC if symbol else size for symbol, size in zip(record.symbols, record.opt)])
        for record in manifest.inputs
    )
    outputs = (
        (record.name, record.dtype, [size if isinstance(size, int) else _DYNAMIC for size in record.shape])
        for record in manifest.outputs
    )
    signature: ModelSignature = models.ModelSignature(inputs=_schema(inputs), outputs=_schema(outputs))
    return signature


def numpy_dtype(name: str) -> Any:
    """NumPy's dtype of a tensor; float32 for what NumPy lacks, which holds every value of it."""
    import numpy

    try:
        dtype = numpy.dtype(name)
    except TypeError:
        return numpy.dtype("float32")
    # other packages (ml_dtypes) register theirs, which MLflow does not take
    return dtype if dtype.isbuiltin == 1 else numpy.dtype("float32")


def mlflow_library() -> ModuleType:
    """The package ``mlflow``.

    Raises:
        EnvironmentMismatchError: It is not installed.
    """
    try:
        import mlflow
        import mlflow.models
        import mlflow.pyfunc
    except ImportError as error:
        raise EnvironmentMismatchError(
            "an MLflow model needs the package mlflow, which is not installed: "
            'pip install "lightning-trt-windows[mlflow]"'
        ) from error
    return mlflow


def _schema(tensors: Iterable[tuple[str, str, list[int]]]) -> Any:
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(numpy_dtype(dtype), tuple(shape), name) for name, dtype, shape in tensors])
