"""``load`` on real artifacts: the module that comes back is called like the one that was exported."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.stand_in import StandIn, export_for_test
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_trt_windows import DimRange, InputSpec, load
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.modules.registration import register_containers
from lightning_trt_windows.runtime.loaded import LoadedModule
from lightning_trt_windows.runtime.loading import load_program

BATCH = DimRange(1, 2, 4, name="batch")
SPEC = InputSpec((BATCH, 8))


def check(stand_in: StandIn, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What the loaded module returns, after comparing it with eager: values, containers and their order."""
    with torch.no_grad():
        wanted = copy.deepcopy(module)(*args, **kwargs)
    found = stand_in.load()(*args, **kwargs)
    torch.testing.assert_close(pytree.tree_leaves(found), pytree.tree_leaves(wanted), rtol=1e-4, atol=1e-5)
    assert pytree.tree_structure(found) == pytree.tree_structure(wanted)
    return found


class TwoEngines(nn.Module):
    """Singular values keep to PyTorch, so there is an engine before and one after."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 4)

    def forward(self, x: Tensor, extra: dict[str, Tensor], *, scale: Tensor) -> Any:
        y = self.first(x).relu()
        _, values, _ = torch.linalg.svd(y.reshape(-1, 2, 4) + 0.1, full_matrices=False)
        z = self.second(y + extra["a"]) * scale + values.sum()
        return {"z": z, "more": (values, [x * 2, extra["b"].float() + 1])}


class Fallback(nn.Module):
    """A convolution that stays in PyTorch, with its weights, and tensors that are made on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 3)
        self.register_buffer("offset", torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.relu() * 2)
        return self.head(y * 3 + self.offset + torch.arange(16, device=x.device))


@dataclasses.dataclass
class Detections:
    """What some library would return."""

    boxes: Tensor
    scores: Tensor
    masks: Tensor | None = None


class Pair(NamedTuple):
    """Another one."""

    left: Tensor
    right: Tensor


class Returns(nn.Module):
    """Returns containers of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        return Detections(y, y.sigmoid()), Pair(y + 1, y - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's artifacts are."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def two_engines(folder: Path) -> tuple[StandIn, nn.Module]:
    """Two engines with a fallback between them, keyword arguments, nesting."""
    torch.manual_seed(0)
    module = TwoEngines().eval()
    inputs = {
        "x": SPEC,
        "extra": {"a": SPEC, "b": InputSpec((BATCH,), "int64")},
        "scale": InputSpec((1,)),
    }
    return export_for_test(module, inputs, folder / "two.windows.ep"), module


@pytest.fixture(scope="module")
def flag(folder: Path) -> StandIn:
    """A module with arguments that are no tensors."""

    class Flag(nn.Module):
        def forward(self, x: Tensor, twice: bool = False, note: str | None = None) -> Tensor:
            return x.relu() * (2 if twice else 1)

    inputs = {"x": SPEC, "twice": True, "note": None}
    return export_for_test(Flag(), inputs, folder / "flag.windows.ep")


def call(batch: int = 2) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for :class:`TwoEngines`."""
    extra = {"a": torch.randn(batch, 8), "b": torch.arange(batch)}
    return (torch.randn(batch, 8),), {"extra": extra, "scale": torch.ones(1)}


class TestCalls:
    """Arguments in, values out, as forward has them."""

    @pytest.mark.parametrize("batch", [1, 2, 4])
    def test_values_and_nesting_are_eager_s(self, two_engines: tuple[StandIn, nn.Module], batch: int) -> None:
        """At the smallest, the usual and the largest batch."""
        stand_in, module = two_engines
        assert len(stand_in.artifact.manifest.engines) == 2
        args, kwargs = call(batch)
        check(stand_in, module, *args, **kwargs)

    def test_every_way_to_pass_arguments(self, two_engines: tuple[StandIn, nn.Module]) -> None:
        """By position, by name, in any order; keys of a dict in any order."""
        loaded = two_engines[0].load()
        (x,), kwargs = call()
        extra, scale = kwargs["extra"], kwargs["scale"]
        turned = {"b": extra["b"], "a": extra["a"]}
        ways = [
            loaded(x, extra, scale=scale),
            loaded(scale=scale, extra=extra, x=x),
            loaded(x, scale=scale, extra=turned),
        ]
        assert loaded.argument_names == ("x", "extra", "scale")
        for way in ways[1:]:
            torch.testing.assert_close(pytree.tree_leaves(way), pytree.tree_leaves(ways[0]))

    def test_calls_that_do_not_fit_forward(self, two_engines: tuple[StandIn, nn.Module]) -> None:
        """Missing, unknown, given twice, too many, of another structure: each names the argument."""
        loaded = two_engines[0].load()
        (x,), kwargs = call()
        with pytest.raises(
            ConfigurationError, match=r"'scale' is missing; forward is forward\(x, extra, scale=\.\.\.\)"
        ):
            loaded(x, kwargs["extra"])
        with pytest.raises(ConfigurationError, match="it has no argument 'y'"):
            loaded(x, y=x, **kwargs)
        with pytest.raises(ConfigurationError, match="got 'x' twice"):
            loaded(x, x=x, **kwargs)
        with pytest.raises(ConfigurationError, match="3 positional arguments, 2 were"):
            loaded(x, kwargs["extra"], kwargs["scale"])
        with pytest.raises(ConfigurationError, match=r"extra has another structure.*missing key\(s\): \{'b'\}"):
            loaded(x, extra={"a": x, "c": x}, scale=kwargs["scale"])

    def test_parts_in_pytorch_bring_their_weights(self, folder: Path) -> None:
        """Weights that stay in PyTorch are those of the module, and new tensors are made on the device."""
        torch.manual_seed(0)
        module = Fallback().eval()
        options = {"torch_executed_ops": {torch.ops.aten.convolution.default}}
        spec = InputSpec((BATCH, 8, 16))
        stand_in = export_for_test(module, {"x": spec}, folder / "fallback.windows.ep", compile_options=options)
        assert "aten.convolution.default" in stand_in.artifact.manifest.fallback_ops
        assert stand_in.load()._program.weight_0.device.type == "cpu"
        for batch in (1, 4):
            check(stand_in, module, torch.randn(batch, 8, 16))

    def test_sizes_that_only_the_data_tell(self, folder: Path) -> None:
        """A selection by value has another length in every call."""

        class Select(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.nonzero(x.relu() > 0.5)

        stand_in = export_for_test(Select(), {"x": SPEC}, folder / "select.windows.ep")
        lengths = {len(check(stand_in, Select(), torch.randn(3, 8))) for _ in range(4)}
        assert len(lengths) > 1

    def test_odd_outputs(self, folder: Path) -> None:
        """One tensor twice, an input, a size, None and a bare number."""

        class Odd(nn.Module):
            def forward(self, x: Tensor) -> Any:
                y = x.relu() * 2
                return y, y, x, x.shape[0], None, 3

        stand_in = export_for_test(Odd(), {"x": SPEC}, folder / "odd.windows.ep")
        y, again, _, size, nothing, three = check(stand_in, Odd(), torch.randn(3, 8))
        assert (size, nothing, three) == (3, None, 3)
        torch.testing.assert_close(y, again)

    def test_many_threads(self, two_engines: tuple[StandIn, nn.Module]) -> None:
        """Calls in parallel do not see each other's tensors."""
        stand_in, module = two_engines
        loaded, wrong = stand_in.load(), []

        def work(seed: int) -> None:
            generator = torch.Generator().manual_seed(seed)
            for _ in range(20):
                batch = 1 + seed % 4
                x = torch.randn(batch, 8, generator=generator)
                extra = {"a": x + 1, "b": torch.arange(batch)}
                with torch.no_grad():
                    wanted = module(x, extra, scale=torch.ones(1))["z"]
                found = loaded(x, extra, scale=torch.ones(1))["z"]
                if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_no_gradients(self, two_engines: tuple[StandIn, nn.Module]) -> None:
        """Outputs carry no graph, also where the input asks for one."""
        loaded = two_engines[0].load()
        (x,), kwargs = call()
        assert not loaded(x.requires_grad_(), **kwargs)["z"].requires_grad


class TestConstants:
    """Arguments that are no tensors were fixed at the export."""

    @pytest.fixture
    def loaded(self, flag: StandIn) -> LoadedModule:
        """A module that was exported with ``twice=True``."""
        return flag.load()

    def test_may_be_left_out_or_repeated(self, loaded: LoadedModule) -> None:
        """The value of the export is the default."""
        x = torch.ones(2, 8)
        for found in (loaded(x), loaded(x, True), loaded(x, twice=True, note=None)):
            assert found.equal(x * 2)

    def test_other_values_are_refused(self, loaded: LoadedModule) -> None:
        """The engine cannot do otherwise than it was built."""
        with pytest.raises(
            ConfigurationError, match="twice was exported as True and is part of the engines, got False"
        ):
            loaded(torch.ones(2, 8), twice=False)


class TestClasses:
    """Outputs of classes come back as these where they are known, and as dicts elsewhere."""

    @pytest.fixture
    def returns(self, folder: Path) -> tuple[StandIn, nn.Module]:
        """A module that returns a dataclass and a NamedTuple."""
        register_containers((Detections(torch.ones(1), torch.ones(1)), Pair(torch.ones(1), torch.ones(1))))
        module = Returns().eval()
        return export_for_test(module, {"x": SPEC}, folder / "returns.windows.ep"), module

    def test_known_here(self, returns: tuple[StandIn, nn.Module]) -> None:
        """In the process that exported, the classes are registered."""
        stand_in, module = returns
        detections, pair = check(stand_in, module, torch.randn(2, 8))
        assert isinstance(detections, Detections) and isinstance(pair, Pair) and detections.masks is None

    def test_unknown_elsewhere(self, returns: tuple[StandIn, nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
        """Dicts by field name, with the fields that were None."""
        stand_in, module = returns
        for name in [name for name in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE if name.startswith(__name__)]:
            monkeypatch.delitem(pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE, name)
        x = torch.randn(2, 8)
        detections, pair = stand_in.load()(x)
        wanted = module(x)
        assert type(detections) is dict and list(detections) == ["boxes", "scores", "masks"]
        assert detections["masks"] is None and type(pair) is dict
        torch.testing.assert_close(detections["scores"], wanted[0].scores)
        torch.testing.assert_close(pair["right"], wanted[1].right)


class TestRanges:
    """What the engines were not built for is refused with the input, the dimension, the range and the value."""

    @pytest.fixture
    def loaded(self, two_engines: tuple[StandIn, nn.Module]) -> LoadedModule:
        """A module with a batch of 1 to 4."""
        return two_engines[0].load()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x, e: (torch.randn(5, 8), e), r"dimension 0 \(batch\) of x must be 1 to 4, got 5 in \[5, 8\]"),
            (lambda x, e: (torch.randn(0, 8), e), r"dimension 0 \(batch\) of x must be 1 to 4, got 0"),
            (lambda x, e: (torch.randn(2, 9), e), r"dimension 1 of x must be 8, got 9"),
            (lambda x, e: (torch.randn(2), e), r"x must have 2 dimensions \[1\.\.4, 8\], got \[2\]"),
            (lambda x, e: (x.double(), e), r"x must be float32, got float64; convert it with \.to\(torch\.float32\)"),
            (lambda x, e: (x.tolist(), e), r"x must be a torch\.Tensor, got list"),
            (lambda x, e: (x.to("meta"), e), r"x is on meta, the module on cpu; move it with \.to\('cpu'\)"),
            (
                lambda x, e: (x, {**e, "a": torch.randn(3, 8)}),
                r"dimension 0 of extra\.a is 3, and dimension 0 of x is 2; both are 'batch', so they must be equal",
            ),
            (lambda x, e: (x, {**e, "b": e["b"].int()}), r"extra\.b must be int64, got int32"),
        ],
    )
    def test_refused(self, loaded: LoadedModule, change: Any, message: str) -> None:
        """Before anything runs."""
        (x,), kwargs = call()
        x, kwargs["extra"] = change(x, kwargs["extra"])
        with pytest.raises(ConfigurationError, match=message):
            loaded(x, **kwargs)

    def test_sizes_between_steps(self, tmp_path: Path) -> None:
        """An image of 48 where 32, 64 and so on were asked for; the message has the nearest ones."""
        size = DimRange(32, 64, 96, name="size", multiple_of=32)
        stand_in = export_for_test(nn.Linear(8, 4), {"input": InputSpec((size, 8))}, tmp_path / "m.windows.ep")
        loaded = stand_in.load()
        assert loaded(torch.zeros(96, 8)).shape == (96, 4)
        with pytest.raises(
            ConfigurationError, match=r"must be a multiple of 32, got 48 in \[48, 8\]; pad or resize it to 32 or 64"
        ):
            loaded(torch.zeros(48, 8))


class TestLoad:
    """The public function."""

    def test_manifest_then_hash_then_machine(self, two_engines: tuple[StandIn, nn.Module], tmp_path: Path) -> None:
        """A changed byte is found before the machine is looked at, and the machine before the program is read."""
        artifact = two_engines[0].artifact
        ep, manifest = tmp_path / artifact.path.name, tmp_path / artifact.manifest_path.name
        ep.write_bytes(artifact.path.read_bytes())
        with pytest.raises(ArtifactError, match="does not exist"):
            load(ep)
        manifest.write_bytes(artifact.manifest_path.read_bytes())
        content = bytearray(ep.read_bytes())
        content[len(content) // 2] ^= 1
        ep.write_bytes(content)
        with pytest.raises(ArtifactError, match="not that of the export"):
            load(ep)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a machine without a GPU is told")
    def test_without_a_gpu(self, two_engines: tuple[StandIn, nn.Module]) -> None:
        """What is wanted, what was found, what to do."""
        with pytest.raises(
            EnvironmentMismatchError, match=r"two\.windows\.ep cannot run here:\n  - wanted an? (NVIDIA|CUDA)"
        ):
            load(two_engines[0].artifact.path)

    def test_imports_neither_compiler_nor_lightning(self, two_engines: tuple[StandIn, nn.Module]) -> None:
        """Half of what torch.export.load costs is importing; Lightning and Torch-TensorRT need not be there at all."""
        script = (
            "import sys, torch\n"
            "from lightning_trt_windows.artifact.artifact import read_artifact\n"
            "from lightning_trt_windows.runtime.loading import load_program\n"
            "load_program(read_artifact(sys.argv[1]), torch.device('cpu'), lambda record, plan: lambda inputs: [])\n"
            "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
            "print('torch._dynamo' in sys.modules)"
        )
        command = [sys.executable, "-c", script, str(two_engines[0].artifact.path)]
        modules, dynamo = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        assert not {"lightning", "pytorch_lightning", "torch_tensorrt", "sympy", "tensorrt"} & set(modules.split())
        assert dynamo == "False"

    def test_engines_are_read_one_at_a_time(self, two_engines: tuple[StandIn, nn.Module]) -> None:
        """The buffer of one engine is gone before the next is read."""
        stand_in, alive = two_engines[0], []

        def open_engine(record: Any, plan: memoryview) -> Any:
            assert all(reference() is None for reference in alive)
            alive.append(weakref.ref(plan))
            return lambda inputs: []

        load_program(stand_in.artifact, torch.device("cpu"), open_engine)
        assert len(alive) == 2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Loading warns of nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="lightning_trt_windows")
        yield


def test_example_arguments_fit(two_engines: tuple[StandIn, nn.Module]) -> None:
    """Nested as ``forward`` had them, of the smallest, the usual and the largest sizes; for measuring time."""
    loaded = two_engines[0].load()
    for size in ("min", "opt", "max"):
        arguments = loaded.example_arguments(size)
        assert list(arguments) == list(loaded.argument_names)
        assert arguments["x"].shape == getattr(loaded.manifest.inputs[0], size)
        assert loaded(**arguments)["z"].isfinite().all()
    with pytest.raises(ConfigurationError, match="size must be"):
        loaded.example_arguments("largest")
