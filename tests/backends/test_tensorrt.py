"""The backend ``tensorrt`` above the builder, through TensorRT-RTX, whose Python is the same byte for byte.

TensorRT itself is on no machine that runs these tests. Everything but the answer which GPU builds is real here:
settings, compile path, TensorRT-RTX's builder in the place of TensorRT's, archive, manifest. ``tests/classic`` holds
the rest to NVIDIA's own packages.
"""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.backends import builds_on_a_gpu, get_backend, tensorrt, tensorrt_rtx, windows_builder
from lightning_trt_windows.backends.timing_cache import default_path, timing_cache
from lightning_trt_windows.backends.windows_builder import BuildGpu, build_gpu, check_machine, check_resource
from lightning_trt_windows.errors import ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.settings import ExportSettings

ADA = BuildGpu("NVIDIA GeForce RTX 4090", (8, 9))
TURING = BuildGpu("NVIDIA GeForce RTX 2070", (7, 5))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine with a GPU and all that TensorRT needs, whose builder is TensorRT-RTX's."""
    monkeypatch.setattr(tensorrt, "build_gpu", lambda: ADA)
    monkeypatch.setattr(tensorrt, "check_resource", lambda: None)
    monkeypatch.setattr(tensorrt, "installed_distribution", lambda name: name)
    monkeypatch.setattr("lightning_trt_windows._compat.torch_tensorrt.installed_distribution", lambda name: name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return monkeypatch


def exported(path: Path, **settings: Any) -> Artifact:
    """A small module, with a layer in half of the options' way."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return export_module(module, {"input": InputSpec((DimRange(1, 2, 8), 4))}, path, backend="tensorrt", **settings)


def engine_fields(artifact: Artifact) -> list[Any]:
    """The arguments of the engine's node, after its inputs."""
    program = torch.export.load(artifact.path)
    (node,) = (n for n in program.graph.nodes if "no_op_placeholder" in str(n.target))
    return list(node.args[1:])


@pytest.mark.filterwarnings("ignore")
class TestArtifact:
    """What stands in the manifest and in the engine's node."""

    def test_engines_are_for_gpus_like_the_one_that_built(self, machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The device record is upstream's format, the platform its C++ spelling."""
        artifact = exported(tmp_path / "m.windows.ep")
        backend = artifact.manifest.backend
        assert (backend.name, backend.target, backend.compute_capabilities) == ("tensorrt", "same_capability", ("8.9",))
        assert {"torch-tensorrt", "tensorrt"} <= set(artifact.manifest.versions)
        fields = engine_fields(artifact)
        assert "0%8%9%0%NVIDIA GeForce RTX 4090" in fields and "windows_x86_64" in fields

    def test_engines_for_ampere_and_newer(self, machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """``hardware_compatible`` says so in the manifest, and to upstream's loader."""
        options = {"hardware_compatible": True, "optimization_level": 0, "disable_tf32": True}
        backend = exported(tmp_path / "m.windows.ep", compile_options=options).manifest.backend
        assert (backend.target, backend.compute_capabilities) == ("ampere_and_newer", ("8.0", "newer"))
        assert options.items() <= backend.options.items()
        assert tensorrt._device_record(ADA, True, SimpleNamespace()) == ("0%8%9%0%NVIDIA GeForce RTX 4090", True)

    def test_a_twin_is_for_the_machine_that_builds(self, machine: pytest.MonkeyPatch) -> None:
        """The same program and settings; the manifest's options tell it from the artifact."""
        program = torch.export.export(nn.Linear(4, 4), (torch.randn(2, 4),), strict=False)
        twin = get_backend("tensorrt").compile(program, ExportSettings(backend="tensorrt"), twin=True)
        (node,) = (n for n in twin.program.graph.nodes if "no_op_placeholder" in str(n.target))
        assert twin.options["twin"] is True and "linux_x86_64" in node.args
        program = torch.export.export(nn.Linear(4, 4), (torch.randn(2, 4),), strict=False)
        with pytest.raises(ConfigurationError, match="run on Linux as they are"):
            tensorrt_rtx.TensorRTRTX().compile(program, ExportSettings(), twin=True)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_what_is_verified_is_the_twin(self, machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The manifest says so, and nothing of the twin stays; where there is no GPU it says that too."""
        artifact = exported(tmp_path / "m.windows.ep", verify="auto")
        found = artifact.manifest.verification
        assert found is not None and found["kind"] == "twin" and found["verdict"] == "numbers not checked"
        assert "windows_x86_64" in engine_fields(artifact) and "twin" not in artifact.manifest.backend.options
        names = {path.name for path in tmp_path.iterdir()} - {"cache"}
        assert names == {"m.windows.ep", "m.windows.json", "m.windows.golden.safetensors"}

    def test_nothing_of_the_machine_is_written(self, machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Upstream pickles its settings into the node, which had the timing cache's path among them."""
        artifact = exported(tmp_path / "m.windows.ep")
        assert str(tmp_path) not in artifact.manifest_path.read_text(encoding="utf-8")
        import base64

        metadata = max((field for field in engine_fields(artifact) if isinstance(field, str)), key=len)
        assert str(tmp_path).encode() not in base64.b64decode(metadata)


class TestSettings:
    """What the backend does not take, before anything is compiled."""

    @pytest.mark.parametrize(
        ("option", "why"),
        [
            ("use_python_runtime", "cross compilation for Windows cannot use it"),
            ("lazy_engine_init", "cross compilation for Windows cannot use it"),
            ("cache_built_engines", "cross compilation for Windows cannot use it"),
            ("reuse_cached_engines", "cross compilation for Windows cannot use it"),
            ("enable_cross_compile_for_windows", "every artifact is for Windows"),
            ("immutable_weights", "the weights of an artifact are those of its checkpoint"),
            ("enabled_precisions", "use the argument precision"),
            ("device", "choose it with CUDA_VISIBLE_DEVICES"),
            ("optimisation_level", "did you mean 'optimization_level'"),
        ],
    )
    def test_options(self, machine: pytest.MonkeyPatch, option: str, why: str) -> None:
        """With the reason."""
        with pytest.raises(ConfigurationError, match=why):
            tensorrt.TensorRT().check(ExportSettings(backend="tensorrt", compile_options={option: True}))

    @pytest.mark.parametrize(
        ("gpu", "settings", "why"),
        [
            (ADA, {"compute_capabilities": ["8.6"]}, "TensorRT builds for the GPU that builds, and NVIDIA GeForce RTX"),
            (ADA, {"compile_options": {"optimization_level": 6}}, "optimization_level: TensorRT has 0 to 5, got 6"),
            (ADA, {"compile_options": {"optimization_level": True}}, "TensorRT has 0 to 5, got True"),
            (
                ADA,
                {"compile_options": {"tiling_optimization_level": "high"}},
                "none, fast, moderate or full, got 'high",
            ),
            (
                TURING,
                {"compile_options": {"hardware_compatible": True}},
                "on Ampere and newer only, and NVIDIA GeForce",
            ),
            (TURING, {"precision": "bf16"}, "bfloat16 begins with 8.0"),
        ],
    )
    def test_values(self, machine: pytest.MonkeyPatch, gpu: BuildGpu, settings: dict[str, Any], why: str) -> None:
        """Those that the GPU or TensorRT does not take."""
        machine.setattr(tensorrt, "build_gpu", lambda: gpu)
        with pytest.raises(ConfigurationError, match=why):
            tensorrt.TensorRT().check(ExportSettings(backend="tensorrt", **settings))

    def test_values_that_will_do(self, machine: pytest.MonkeyPatch) -> None:
        """The GPU's own capability is a promise that the build keeps."""
        options = {"hardware_compatible": True, "version_compatible": True, "timing_cache_path": ""}
        tensorrt.TensorRT().check(
            ExportSettings(backend="tensorrt", compute_capabilities=("8.9",), precision="bf16", compile_options=options)
        )


class TestMachine:
    """What is refused before training, with what to do about it."""

    def test_other_systems(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only Linux on x86-64 builds for Windows."""
        check_machine()
        monkeypatch.setattr(windows_builder.platform, "machine", lambda: "aarch64")
        with pytest.raises(EnvironmentMismatchError, match=r"on Linux x86-64 only, this is Linux aarch64"):
            check_machine()
        monkeypatch.setattr(windows_builder.platform, "system", lambda: "Windows")
        with pytest.raises(EnvironmentMismatchError, match=r"this is Windows aarch64.*lightning-trt-windows export"):
            check_machine()

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a word about the variable that hides one."""
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        with pytest.raises(EnvironmentMismatchError, match=r"there is none here\. Build on a Linux machine"):
            build_gpu()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(EnvironmentMismatchError, match="CUDA_VISIBLE_DEVICES is '', which hides it"):
            build_gpu()

    def test_no_library_for_windows(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Looked for where the loader of libraries looks."""
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        with pytest.raises(
            EnvironmentMismatchError, match=r"resource_win\.so\.\*, is not there \(looked in .*tar file"
        ):
            check_resource()
        (tmp_path / "libnvinfer_builder_resource_win.so.11.1.0").touch()
        check_resource()

    def test_the_other_distribution(self) -> None:
        """TensorRT-RTX's is installed here."""
        with pytest.raises(EnvironmentMismatchError, match=r"needs the distribution torch-tensorrt, which is not inst"):
            get_backend("tensorrt")

    def test_which_builds_see_a_gpu(self) -> None:
        """In a process of its own a build of TensorRT-RTX sees none."""
        assert builds_on_a_gpu("tensorrt") and not builds_on_a_gpu("tensorrt_rtx") and not builds_on_a_gpu("auto")


class Config:
    """What the timing cache asks of TensorRT's builder configuration; ``tests/classic`` has the real names."""

    def __init__(self, takes: bytes = b"") -> None:
        self.takes, self.cache = takes, b"unset"

    def create_timing_cache(self, content: bytes) -> Any:
        return None if content == b"damaged" else SimpleNamespace(content=content, serialize=lambda: content + b"+")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content in (b"", self.takes):
            self.cache = cache.content
            return True
        return False

    def get_timing_cache(self) -> Any:
        return self.create_timing_cache(self.cache)


class TestTimingCache:
    """Per user, TensorRT version and GPU generation; only ever a saving of time."""

    def test_where_it_is(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """In the user's cache directory, which nobody else writes to, and not in the temporary one."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        path = default_path("11.1.0.106", "8.9")
        assert path == str(tmp_path / "lightning-trt-windows" / "timing-tensorrt-11.1.0.106-sm-8.9.bin")
        with timing_cache(Config(), path):
            pass
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert default_path("11.1.0.106", "8.9").startswith(str(Path.home() / ".cache"))

    @pytest.mark.parametrize(("before", "begun"), [(None, b""), (b"+", b"+"), (b"another's", b""), (b"damaged", b"")])
    def test_what_a_build_begins_with(self, tmp_path: Path, before: bytes | None, begun: bytes) -> None:
        """What there is, if TensorRT takes it."""
        path, config = tmp_path / "t.bin", Config(takes=b"+")
        if before is not None:
            path.write_bytes(before)
        with timing_cache(config, str(path)):
            assert config.cache == begun
        assert path.read_bytes() == begun + b"+"

    def test_what_cannot_be_written_is_not(self, tmp_path: Path) -> None:
        """And a build that fails leaves what was there."""
        (tmp_path / "file").write_text("")
        with timing_cache(Config(), str(tmp_path / "file" / "t.bin")):
            pass
        with timing_cache(Config(), ""):
            pass
        path = tmp_path / "t.bin"
        with pytest.raises(RuntimeError), timing_cache(Config(), str(path)):
            raise RuntimeError
        assert not path.exists()
