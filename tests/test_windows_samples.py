"""``examples/windows``: the C++ program is compiled with mingw-w64 and runs under Wine, the Python one runs here.

On ONNX Runtime's CPU provider, with a model without engines: engines need a GPU, and without one both say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.artifacts import put
from support.paths import REPOSITORY

from lightning_trt_windows import write_onnx
from tools.windows_python import wine
from tools.windows_python.cpython import RUNTIME_DLLS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SAMPLES = REPOSITORY / "examples" / "windows"
COMPILER = "x86_64-w64-mingw32-g++"

pytestmark = pytest.mark.linux("compiles for Windows and starts Wine")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with ``plain.onnx``, which has our ranges and no engine, and ``tiny.windows.onnx``, which has one."""
    make, types = onnx.helper, onnx.TensorProto
    weights = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    graph = make.make_graph(
        [make.make_node("MatMul", ["x", "w"], ["y"]), make.make_node("Identity", ["k"], ["z"])],
        "plain",
        [
            make.make_tensor_value_info("x", types.FLOAT, ["batch", 4]),
            make.make_tensor_value_info("k", types.INT64, ["batch"]),
        ],
        [
            make.make_tensor_value_info("y", types.FLOAT, ["batch", 3]),
            make.make_tensor_value_info("z", types.INT64, ["batch"]),
        ],
        [weights],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "without_ranges.onnx")
    ranges = {"x.min": "1,4", "x.opt": "8,4", "x.max": "64,4", "k.min": "1", "k.opt": "8", "k.max": "64"}
    make.set_model_props(model, ranges)
    onnx.save(model, tmp_path / "plain.onnx")
    write_onnx(put(tmp_path))
    return tmp_path


def test_the_samples_are_short() -> None:
    """Each under a hundred lines, with no line that a page would wrap."""
    samples = [*SAMPLES.glob("*.c*"), *SAMPLES.glob("*.py")]
    assert len(samples) == 6
    for path in samples:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) < 100 and max(map(len, lines)) <= 120, path.name


def test_the_python_sample(models: Path) -> None:
    """Ranges, outputs and times of a model without engines; and what is missing for one that has them."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SAMPLES / "run_model.py"), *words]
        return subprocess.run(command, cwd=models, capture_output=True, text=True, check=False)

    done = run("plain.onnx", "--cpu", "--size", "max")
    assert done.returncode == 0, done.stderr
    assert "x opt [8, 4]" in done.stdout and "gives y [64, 3]" in done.stdout and "at max: P50" in done.stdout
    engine = run("tiny.windows.onnx", "--cpu")
    assert engine.returncode == 1 and "EPContext" in engine.stderr and "Traceback" not in engine.stderr
    without = run("without_ranges.onnx", "--cpu")
    assert without.returncode == 1 and "no x.min in the model" in without.stderr


@pytest.mark.samples
@pytest.mark.skipif(not shutil.which(COMPILER), reason="needs mingw-w64: apt-get install g++-mingw-w64-x86-64")
@pytest.mark.skipif(not Path("/usr/lib/wine/wine64").exists(), reason="needs Wine: apt-get install wine64")
def test_the_cpp_sample_runs_under_wine(models: Path) -> None:
    """The whole program on the CPU provider; an engine, and a provider that cannot be loaded, end in words."""
    from support.windows_onnxruntime import INCLUDE, windows_onnxruntime

    if not shutil.which("npm") and INCLUDE not in os.environ:
        pytest.skip(f"the headers of ONNX Runtime come from a package of npm, or the folder that {INCLUDE} names")
    place = windows_onnxruntime()
    for dll in ("onnxruntime", *RUNTIME_DLLS):
        shutil.copy(place / "dll" / f"{dll}.dll", models)
    flags = ["-std=c++17", "-O1", "-municode", "-static", "-I", str(place / "include")]
    source = [str(SAMPLES / "run_model.cpp"), str(models / "onnxruntime.dll"), "-o", str(models / "run_model.exe")]
    subprocess.run([COMPILER, *flags, *source], check=True, capture_output=True)
    # Wine's services keep the pipe of whoever started them: they are to end with the program, so it has a prefix alone
    prefix = models / "wine"
    shutil.copytree(wine.prepare_wine(), prefix, symlinks=True)
    environment = wine.environment(prefix, [])

    def run(*words: str) -> tuple[int, str]:
        with subprocess.Popen(  # with a terminal or a file for standard streams Wine makes a console of its own
            ["/usr/lib/wine/wine64", "run_model.exe", *words], cwd=models, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            said, _ = process.communicate(timeout=300)
        return process.returncode, said.decode(errors="replace").replace("\r\n", "\n")

    status, said = run("plain.onnx", "cpu", "max")
    assert status == 0, said
    for line in ("x min [1, 4]", "x opt [8, 4]", "k max [64]", "gives y [64, 3]\n  begins with 18", "gives z [64]"):
        assert f"{line}\n" in said, said
    assert "at max: P50 " in said
    status, said = run("tiny.windows.onnx", "cpu")
    assert status == 1 and "error: EPContext node generated by 'NvTensorRTRTXExecutionProvider'" in said, said
    status, said = run("without_ranges.onnx", "cpu")
    assert status == 1 and "error: no x.min in the model" in said, said
    status, said = run("tiny.windows.onnx", "no_provider.dll")
    assert status == 1 and "error: " in said and "no_provider.dll" in said, said
    assert run("tiny.windows.onnx")[0] == 2
