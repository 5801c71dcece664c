"""Sessions of ONNX Runtime and their calls. The provider needs a GPU: calls are made on the CPU provider here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.artifacts import put

from lightning_trt_windows import write_onnx
from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.onnx.providers import PROVIDER_DISTRIBUTION
from lightning_trt_windows.onnx.session import _provider_of, call_on_gpu, call_on_host, installed_versions, open_session
from lightning_trt_windows.onnx.tensor_types import TYPES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session_of(types: dict[str, int]) -> Any:
    """A session that gives back each of its inputs, on the CPU."""
    make = onnx.helper
    given = [make.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in types.items()]
    back = [make.make_tensor_value_info(f"{name}_back", kind, ["batch", 3]) for name, kind in types.items()]
    nodes = [make.make_node("Identity", [name], [f"{name}_back"]) for name in types]
    model = make.make_model(
        make.make_graph(nodes, "back", given, back), opset_imports=[make.make_opsetid("", 17)], ir_version=9
    )
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("call_on", [call_on_host, call_on_gpu])
def test_every_type_arrives(call_on: Any) -> None:
    """Each type that a model of ours can have, also bfloat16, which NumPy lacks, and a tensor that is a view."""
    session = session_of(TYPES)
    tensors = [(torch.arange(6).reshape(3, 2).T % 2).to(getattr(torch, name)) for name in TYPES]
    assert not tensors[0].is_contiguous()
    found = call_on(session, tensors)()
    if call_on is call_on_gpu:
        assert found is None  # they stay where they were bound; the call is made for its time
        return
    for value, tensor, name in zip(found, tensors, TYPES, strict=True):
        if name == "bfloat16":
            assert value.data_type() == "tensor(bfloat16)"
        else:
            assert np.array_equal(value.numpy(), tensor.numpy()), name


def test_inputs_are_as_many_as_the_model_has() -> None:
    """A model of something else is not called with what is there."""
    session = session_of({"a": 1, "b": 1})
    for call_on in (call_on_host, call_on_gpu):
        with pytest.raises(ValueError, match="shorter"):
            call_on(session, [torch.zeros(1, 3)])


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx") is not None, reason="it is installed")
def test_what_is_missing_is_named() -> None:
    """With the command that installs it."""
    with pytest.raises(EnvironmentMismatchError, match=f"pip install onnxruntime {PROVIDER_DISTRIBUTION}"):
        open_session(Path("net.windows.onnx"))
    assert "onnxruntime" in installed_versions()


def test_the_provider_that_takes_the_engines_is_named(tmp_path: Path) -> None:
    """At the end of ONNX Runtime's message; nothing is added of a file that is no model."""
    artifact = read_artifact(put(tmp_path))
    said = _provider_of(write_onnx(artifact).path)
    assert artifact.manifest.versions["tensorrt-rtx"] in said and f"{PROVIDER_DISTRIBUTION} 0.4.0 bundle" in said
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff\xff")
    assert _provider_of(tmp_path / "broken.onnx") == ""
    assert _provider_of(tmp_path / "none.onnx") == ""
