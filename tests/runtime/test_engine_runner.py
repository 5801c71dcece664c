"""One engine through the bindings. The bindings are a stand-in on the CPU, held to the signatures of the real ones."""

from __future__ import annotations

import importlib.util
import inspect
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bindings_stand_in import make_bindings
from torch import Tensor

from lightning_trt_windows.artifact.manifest import EngineRecord, PayloadLocation
from lightning_trt_windows.errors import ArtifactError, EnvironmentMismatchError, LightningTrtError
from lightning_trt_windows.runtime.engine_runner import _DTYPES, EngineRunner, TensorRTRuntime
from lightning_trt_windows.runtime.runtime_cache import RuntimeCache

CPU = torch.device("cpu")


def record(inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> EngineRecord:
    """The manifest's entry of an engine."""
    location = PayloadLocation(member="m", offset=0, length=4)
    return EngineRecord(name="engine", size=1, sha256="0" * 64, inputs=inputs, outputs=outputs, location=location)


def double() -> Any:
    """Bindings whose engine doubles."""
    return make_bindings(lambda x: [x * 2], {"x": "FLOAT"}, {"y": "FLOAT"})


def opened(bindings: Any, record: EngineRecord, **options: Any) -> EngineRunner:
    """The engine, ready to run."""
    return TensorRTRuntime(bindings, CPU, **options)(record, bytearray(1))


class TestRun:
    """Tensors in, tensors out."""

    def test_inputs_are_read_in_place(self) -> None:
        """Also those that are not contiguous, and batches without elements."""
        run = opened(double(), record())
        for x in (torch.randn(2, 3), torch.randn(3, 2).T, torch.randn(0, 3), torch.randn(5, 6)[1:3, ::2]):
            assert run([x])[0].equal(x * 2)

    def test_order_of_bindings_is_the_manifest_s(self) -> None:
        """TensorRT's own order does not matter."""
        bindings = make_bindings(
            lambda a, b: [a - b, a + b], {"a": "FLOAT", "b": "FLOAT"}, {"difference": "FLOAT", "sum": "FLOAT"}
        )
        run = opened(bindings, record(("b", "a"), ("sum", "difference")))
        total, difference = run([torch.ones(2), torch.full((2,), 5.0)])
        assert total.tolist() == [6, 6] and difference.tolist() == [4, 4]

    def test_outputs_are_new_in_every_call(self) -> None:
        """A caller may keep what it got."""
        run = opened(double(), record())
        first = run([torch.ones(2)])[0]
        run([torch.full((2,), 7.0)])
        assert first.tolist() == [2, 2]

    def test_shapes_are_set_when_they_change(self) -> None:
        """A call with the shapes of the last one sets addresses only."""
        bindings = double()
        run = opened(bindings, record())
        (context,) = bindings.engines[0].contexts
        for batch, calls in ((2, 1), (2, 1), (3, 2), (2, 3)):
            run([torch.ones(batch, 2)])
            assert context.shape_calls == calls

    def test_dtypes_are_the_engine_s(self) -> None:
        """Torch-TensorRT truncates some inputs at the border, float64 for one."""
        assert opened(double(), record())([torch.ones(2, dtype=torch.float64)])[0].dtype is torch.float32

    def test_sizes_that_only_the_data_tell(self) -> None:
        """The output comes out of the allocator's memory with the shape that TensorRT reports."""
        bindings = make_bindings(
            lambda x: [torch.nonzero(x), x + 1],
            {"x": "FLOAT"},
            {"where": "INT64", "y": "FLOAT"},
            shape_of=lambda name, given: (-1, 1) if name == "where" else tuple(given[0].shape),
        )
        run = opened(bindings, record(("x",), ("where", "y")))
        for x in (torch.tensor([1.0, 0, 2]), torch.zeros(3), torch.ones(3)):
            where, y = run([x])
            assert where.equal(torch.nonzero(x)) and y.equal(x + 1)

    def test_values_that_are_sizes(self) -> None:
        """TensorRT reads them on the host, and the output's shape follows their values, not their shape."""
        bindings = make_bindings(
            lambda x, n: [x[: int(n[0])]], {"x": "FLOAT", "n": "INT64"}, {"y": "FLOAT"}, host=("n",)
        )
        run = opened(bindings, record(("x", "n")))
        x = torch.arange(5.0)
        assert [run([x, torch.tensor([n])])[0].tolist() for n in (2, 4)] == [[0, 1], [0, 1, 2, 3]]

    def test_a_context_for_each_thread(self) -> None:
        """TensorRT's contexts are not thread-safe."""
        bindings = double()
        run = opened(bindings, record())
        results: list[list[float]] = []

        def work(value: float) -> None:
            for _ in range(50):
                results.append(run([torch.full((2,), value)])[0].tolist())

        threads = [threading.Thread(target=work, args=(float(n),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bindings.engines[0].contexts) == 5, "one for the thread that loaded, one for each that called"
        assert sorted(map(tuple, results)) == sorted([(2.0 * n, 2.0 * n) for n in range(4)] * 50)

    def test_addresses_stay_for_cuda_graphs(self) -> None:
        """A recording is of addresses: what goes in and out is copied, and a caller may still keep what it got."""
        bindings = double()
        run = opened(bindings, record(), cuda_graphs=True)
        (context,) = bindings.engines[0].contexts
        kept, seen = [], set()
        for value in (1.0, 2.0, 3.0):
            kept.append(run([torch.full((2,), value)])[0])
            seen.add((context.addresses["x"], context.addresses["y"]))
        assert [output.tolist() for output in kept] == [[2, 2], [4, 4], [6, 6]]
        assert len(seen) == 1
        with torch.inference_mode():
            assert run([torch.ones(4)])[0].tolist() == [2] * 4
        assert run([torch.ones(4)])[0].tolist() == [2] * 4, "memory from inference mode is written to outside of it"
        result = run([torch.ones(4, requires_grad=True)])[0]
        assert not result.requires_grad and not run([torch.ones(4)])[0].requires_grad
        assert run([torch.arange(6).view(2, 3).T])[0].tolist() == [[0, 6], [2, 8], [4, 10]]


class TestRefusals:
    """What TensorRT does not take is told in its own words."""

    def test_an_engine_of_another_version(self) -> None:
        """Errors are quoted, warnings are not."""
        bindings = make_bindings(lambda x: [x], {"x": "FLOAT"}, {"y": "FLOAT"}, complaint="serialized with 9.9")
        with pytest.raises(EnvironmentMismatchError, match=r"(?s)does not take the engine engine on cpu.*9\.9\Z"):
            opened(bindings, record())

    def test_other_bindings_than_the_manifest_s(self) -> None:
        """The two files do not belong together."""
        with pytest.raises(ArtifactError, match=r"the engine binds \['x', 'y'\], the manifest \['x', 'z'\]"):
            opened(double(), record(outputs=("z",)))

    def test_types_that_pytorch_does_not_have(self) -> None:
        """FP4, for one."""
        bindings = make_bindings(lambda x: [x], {"x": "FP4"}, {"y": "FLOAT"})
        with pytest.raises(ArtifactError, match="binding x is of type FP4"):
            opened(bindings, record())

    def test_shapes_outside_of_the_profile(self) -> None:
        """And the next call with a good shape works."""
        run = opened(double(), record())
        with pytest.raises(LightningTrtError, match=r"the engine engine does not take x with the shape \[9, 2\]"):
            run([torch.ones(9, 2)])
        assert run([torch.ones(2, 2)])[0].shape == (2, 2)

    def test_execution_that_fails(self) -> None:
        """No output is returned as if it had been written."""
        bindings = make_bindings(lambda x: [x], {"x": "FLOAT"}, {"y": "FLOAT"}, fails=True)
        with pytest.raises(LightningTrtError, match="the engine engine failed, and gave no reason"):
            opened(bindings, record())([torch.ones(2)])


class TestOptions:
    """TensorRT-RTX's CUDA graphs and runtime cache."""

    def test_cuda_graphs(self) -> None:
        """TensorRT-RTX's own strategy, on request."""
        for wanted in (True, False):
            bindings = double()
            opened(bindings, record(), cuda_graphs=wanted)
            config = bindings.engines[0].contexts[0].config
            assert (config is not None) == wanted
            assert not wanted or config.cuda_graph_strategy is bindings.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE

    def test_specialization_of_kernels(self) -> None:
        """By the name of TensorRT-RTX's own strategy."""
        bindings = double()
        opened(bindings, record(), specialization="none")
        strategy = bindings.engines[0].contexts[0].config.dynamic_shapes_kernel_specialization_strategy
        assert strategy is bindings.DynamicShapesKernelSpecializationStrategy.NONE

    def test_the_cache_is_kept(self, tmp_path: Path) -> None:
        """Read before the first context, shared by engines, written when it has grown and only then."""
        path = tmp_path / "cache"
        cache = RuntimeCache(path)
        bindings = double()
        runtime = TensorRTRuntime(bindings, CPU, cache=cache)
        for _ in range(2):
            runtime(record(), bytearray(1))
        cache.save()
        assert path.read_bytes() == b"kernels" * 2
        written = path.stat().st_mtime_ns
        cache.save()
        assert path.stat().st_mtime_ns == written
        again = RuntimeCache(path)
        opened(double(), record(), cache=again)
        again.save()
        assert path.read_bytes() == b"kernels" * 3

    def test_a_cache_of_another_gpu(self, tmp_path: Path) -> None:
        """TensorRT-RTX refuses it, and it is written anew."""
        path = tmp_path / "cache"
        path.write_bytes(b"of another GPU")
        cache = RuntimeCache(path)
        opened(double(), record(), cache=cache)
        cache.save()
        assert path.read_bytes() == b"kernels"

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """At the end of the process that is a line in the log, not a traceback."""
        cache = RuntimeCache(tmp_path / "missing" / "cache")
        opened(double(), record(), cache=cache)
        cache.save_quietly()
        assert "the runtime cache is not kept" in caplog.text


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="compares with the bindings of tensorrt-rtx"
)
class TestRealBindings:
    """What the stand-in has, the real ones have; they import without a GPU."""

    @pytest.fixture(scope="class")
    @staticmethod
    def real() -> Any:
        """The module."""
        import tensorrt_rtx

        return tensorrt_rtx

    def test_classes_methods_and_arguments(self, real: Any) -> None:
        """By name and order, as the documentation of the compiled methods gives them."""
        compared = 0
        for name, cls in vars(double()).items():
            if not inspect.isclass(cls) or name in ("TensorLocation", "CudaGraphStrategy"):
                continue
            assert hasattr(real, name)
            for method, function in vars(cls).items():
                # subclasses are called by these; the base class does not list them
                if method.startswith("_") or not inspect.isfunction(function):
                    continue
                assert hasattr(getattr(real, name), method), f"{name}.{method}"
                given = list(inspect.signature(function).parameters)[1:]
                documented = getattr(getattr(real, name), method).__doc__ or ""
                found = [
                    re.findall(r"(?:\(|, )(\w+): ", line)[1:]
                    for line in documented.splitlines()
                    if re.match(rf"(\d+\. )?{method}\(self", line.strip())
                ]
                if documented.strip():
                    assert given in found, f"{name}.{method}({given}), documented {found}"
                    compared += 1
        assert compared >= 15

    def test_members(self, real: Any) -> None:
        """Names of enumerations, and the properties that are set."""
        assert {"DEVICE", "HOST"} <= set(real.TensorLocation.__members__)
        assert "WHOLE_GRAPH_CAPTURE" in real.CudaGraphStrategy.__members__
        assert hasattr(real.IRuntimeConfig, "cuda_graph_strategy") and hasattr(real.ICudaEngine, "num_io_tensors")
        assert set(_DTYPES) <= set(real.DataType.__members__)
        assert real.ILogger.ERROR != real.ILogger.INTERNAL_ERROR

    def test_our_subclasses(self, real: Any) -> None:
        """The logger and the allocator are accepted by the compiled base classes."""
        from lightning_trt_windows.runtime.engine_runner import _logger
        from lightning_trt_windows.runtime.execution import _allocator

        logger = _logger(real)
        logger.log(real.ILogger.ERROR, "a")
        logger.log(real.ILogger.WARNING, "b")
        assert list(logger.errors) == ["a"]
        allocator = _allocator(real, CPU)
        address = allocator.reallocate_output_async("y", 0, 24, 256, None)
        allocator.notify_shape("y", real.Dims([2, 3]))
        output: Tensor = allocator.take("y", torch.float32)
        assert output.shape == (2, 3) and output.data_ptr() == address
