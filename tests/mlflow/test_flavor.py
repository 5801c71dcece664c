"""An artifact as an MLflow model: saved, logged to a tracking server of this test, registered, loaded and called."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from support.paths import DATA
from support.stand_in import StandIn, export_for_test
from torch import Tensor, nn

import lightning_trt_windows.mlflow as flavor
from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.artifact.artifact import check_artifact, read_artifact
from lightning_trt_windows.bundle.wheel import package_version
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.runtime import loading

TINY = DATA / "tiny.windows.ep"
BATCH = DimRange(1, 2, 4, name="batch")


class Pair(nn.Module):
    """Two inputs of different dtypes, two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.layer = nn.Linear(8, 3)

    def forward(self, ids: Tensor, image: Tensor) -> dict[str, Tensor]:
        y = self.layer(torch.cat([self.embedding(ids), image], 1))
        return {"logits": y, "label": y.argmax(1)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, StandIn]:
    """The module, and its artifact with goldens."""
    torch.manual_seed(0)
    module = Pair().eval()
    inputs = {"ids": InputSpec((BATCH,), "int64"), "image": InputSpec((BATCH, 4))}
    path = tmp_path_factory.mktemp("pair") / "pair.windows.ep"
    return module, export_for_test(module, inputs, path, golden=True)


@pytest.fixture
def on_cpu(pair: tuple[nn.Module, StandIn], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """``load`` with the engines' own graphs in the place of engines, and the options it was given."""
    options: list[dict[str, Any]] = []

    def load(path: Path, **given: Any) -> Any:
        options.append(given)
        return StandIn(read_artifact(path), pair[1].partitions).load()

    monkeypatch.setattr(loading, "load", load)
    return options


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's own tracking server, with a registry, and artifacts through it."""
    place = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "artifacts"),
    ]  # fmt: skip
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place, env={**os.environ, "PYTHONPATH": ""})
    url, last = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < last, (place / "log").read_text()
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def tracking(server: str) -> Iterator[str]:
    """The server is MLflow's for the time of a test."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    mlflow.set_experiment("tests")
    yield server
    mlflow.set_tracking_uri(before)


def arguments(batch: int) -> dict[str, np.ndarray]:
    """Arrays for the pair's inputs."""
    numbers = np.random.default_rng(batch)
    return {"ids": numbers.integers(0, 20, batch), "image": numbers.random((batch, 4), dtype=np.float32)}


def test_logged_registered_and_called(
    pair: tuple[nn.Module, StandIn], tracking: str, on_cpu: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Through the server: the files come back byte for byte, and a registered model computes what the module does."""
    with mlflow.start_run() as run:
        info = flavor.log_model(pair[1].artifact, "net", registered_model_name="pair", tags={"for": "windows"})
    assert info.run_id == run.info.run_id
    assert info.signature == flavor.signature_of(pair[1].artifact.manifest)
    assert set(info.flavors) == {"python_function", flavor.FLAVOR_NAME}
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri="models:/pair/1", dst_path=str(tmp_path)))
    assert check_artifact(folder / "artifact" / "pair.windows.ep").manifest == pair[1].artifact.manifest
    for file in pair[1].artifact.path.parent.iterdir():
        assert (folder / "artifact" / file.name).read_bytes() == file.read_bytes()
    model = mlflow.pyfunc.load_model("models:/pair/1", model_config={"device": "cuda:1"})
    assert [given["device"] for given in on_cpu] == ["cuda:1"] and not on_cpu[0]["cuda_graphs"]
    for batch in (1, 3, 4):
        given = arguments(batch)
        found = model.predict(given)
        with torch.no_grad():
            expected = pair[0](**{name: torch.from_numpy(value) for name, value in given.items()})
        assert set(found) == {record.name for record in pair[1].artifact.manifest.outputs}
        for name, value in expected.items():
            (key,) = (key for key in found if key.endswith(name))
            np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-4, atol=1e-5)
    loaded = flavor.load_model(info.model_uri, device="cuda:0", cuda_graphs=True)
    assert on_cpu[-1] == {"device": "cuda:0", "cuda_graphs": True}
    assert loaded.manifest == pair[1].artifact.manifest


def test_what_does_not_fit_is_refused(
    pair: tuple[nn.Module, StandIn], on_cpu: list[dict[str, Any]], tmp_path: Path
) -> None:
    """By MLflow, from the signature, and by the artifact, whose ranges MLflow has no words for."""
    flavor.save_model(pair[1].artifact.path, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    given = arguments(2)
    with pytest.raises(mlflow.exceptions.MlflowException, match="image"):
        model.predict({"ids": given["ids"]})
    with pytest.raises(mlflow.exceptions.MlflowException):
        model.predict({**given, "image": given["image"][:, :3]})
    with pytest.raises(ConfigurationError, match="batch"):
        model.predict(arguments(5))


def test_one_input_needs_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array is enough, and in bfloat16 what NumPy lacks goes in and comes out as float32."""
    module = nn.Linear(4, 2).eval()
    path = tmp_path / "half.windows.ep"
    stand_in = export_for_test(module, {"input": InputSpec((BATCH, 4))}, path, precision="bf16", io_precision="engine")
    assert stand_in.artifact.manifest.inputs[0].dtype == "bfloat16"
    flavor.save_model(path, tmp_path / "model")
    monkeypatch.setattr(loading, "load", lambda *_, **__: stand_in.load())
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    x = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    for given in (x, {"input": x}):
        (found,) = model.predict(given).values()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, module(torch.from_numpy(x)).detach().numpy(), rtol=3e-2, atol=3e-2)


def test_without_a_gpu_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of this package, with what is missing, rather than one out of a library; nothing runs on the CPU."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    flavor.save_model(TINY, tmp_path / "model")
    for load in (mlflow.pyfunc.load_model, flavor.load_model):
        with pytest.raises(EnvironmentMismatchError, match=r"tiny\.windows\.ep cannot run here:\n.*NVIDIA driver"):
            load(str(tmp_path / "model"))
    with pytest.raises(ConfigurationError, match=r"load has no option 'devise'; did you mean 'device'"):
        flavor.save_model(TINY, tmp_path / "wrong", model_config={"devise": "cuda:0"})


def test_what_is_to_be_installed(tmp_path: Path) -> None:
    """As a bundle names it, with this package's wheel under the path that pip is told."""
    flavor.save_model(TINY, tmp_path / "model", extra_pip_requirements=["pillow>=10"])
    lines = (tmp_path / "model" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wheel = f"wheels/lightning_trt_windows-{package_version()}-py3-none-any.whl"
    assert f"./{wheel}" in lines and (tmp_path / "model" / wheel).is_file()
    assert {"torch==2.14.1+cu130", "pillow>=10"} <= set(lines)
    assert any(line.startswith("tensorrt-rtx-cu13-libs==") for line in lines)
    flavor.save_model(TINY, tmp_path / "own", pip_requirements=["torch"])
    own = (tmp_path / "own" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in own if not line.startswith("mlflow")] == ["torch"]


def test_faults_are_named(tmp_path: Path) -> None:
    """A damaged artifact, a folder that is there, a model of another flavour, and one without its artifact."""
    with pytest.raises(ConfigurationError, match="is there already"):
        flavor.save_model(TINY, tmp_path.parent)
    damaged = tmp_path / "tiny.windows.ep"
    damaged.write_bytes(TINY.read_bytes()[:-1] + b"x")
    damaged.with_suffix(".json").write_bytes(TINY.with_suffix(".json").read_bytes())
    with pytest.raises(ArtifactError, match="content"):
        flavor.save_model(damaged, tmp_path / "of damaged")
    assert not (tmp_path / "of damaged").exists()
    mlflow.pyfunc.save_model(str(tmp_path / "other"), loader_module="json", pip_requirements=["torch"])
    with pytest.raises(ConfigurationError, match="flavours python_function, not lightning_trt_windows"):
        flavor.load_model(str(tmp_path / "other"))
    flavor.save_model(TINY, tmp_path / "emptied")
    (tmp_path / "emptied" / "artifact" / "tiny.windows.ep").unlink()
    with pytest.raises(ArtifactError, match="should hold one artifact in its folder artifact, and holds none"):
        mlflow.pyfunc.load_model(str(tmp_path / "emptied"))
