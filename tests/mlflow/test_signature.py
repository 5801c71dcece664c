"""The signature of an MLflow model says what the manifest says, as far as MLflow has words for it."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from support.paths import DATA

from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.mlflow.signature import numpy_dtype, signature_of


@pytest.fixture
def manifest() -> Manifest:
    """That of the frozen artifact: a batch of 1 to 8 of 4 numbers to 2."""
    return read_artifact(DATA / "tiny.windows.ep").manifest


def test_sizes_that_vary_are_minus_one(manifest: Manifest) -> None:
    """Static ones are numbers; names and dtypes are those of the manifest."""
    signature = signature_of(manifest)
    (taken,), (given,) = signature.inputs.inputs, signature.outputs.inputs
    assert (taken.name, taken.type, taken.shape) == ("input", np.dtype("float32"), (-1, 4))
    assert (given.name, given.type, given.shape) == ("output", np.dtype("float32"), (-1, 2))


@pytest.mark.parametrize(
    ("dtype", "numpy"),
    [("float16", "float16"), ("int64", "int64"), ("bool", "bool"), ("bfloat16", "float32"), ("complex64", "complex64")],
)
def test_every_dtype_has_a_word(manifest: Manifest, dtype: str, numpy: str) -> None:
    """NumPy has no bfloat16: float32 holds it. MLflow writes the signature down and reads it again."""
    (record,) = manifest.inputs
    changed = dataclasses.replace(manifest, inputs=(dataclasses.replace(record, dtype=dtype),))
    signature = signature_of(changed)
    assert signature.inputs.inputs[0].type == np.dtype(numpy) == numpy_dtype(dtype)
    assert type(signature).from_dict(signature.to_dict()) == signature


def test_without_mlflow_it_is_said(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that has it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(EnvironmentMismatchError, match=r"pip install \"lightning-trt-windows\[mlflow\]\""):
        signature_of(manifest)
