"""The backend ``tensorrt`` against NVIDIA's own packages, without TensorRT's libraries: ``make classic``.

Everything here is recorded calls: nothing is built, nothing runs. See ``stack.py`` for what stands in for what.
"""

from __future__ import annotations

import ast
import base64
import filecmp
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_trt_windows.backends.options import NEVER
from lightning_trt_windows.backends.tensorrt import REFUSED

sys.path.insert(0, str(Path(__file__).parent))
from stack import PAIRS, STUBS, Stack, make_stack, unpack

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning-trt-windows" / "classic"
pytestmark = pytest.mark.classic

ALL = {
    "version_compatible": True, "hardware_compatible": True, "optimization_level": 0, "disable_tf32": True,
    "workspace_size": 1 << 20, "enable_weight_streaming": True, "sparse_weights": True, "max_aux_streams": 2,
    "num_avg_timing_iters": 3, "tiling_optimization_level": "fast", "l2_limit_for_tiling": 5,
}  # fmt: skip
"""What ``compile_options`` may have that becomes a call of TensorRT's builder."""
ASKED_FOR = {
    "set_flag(VERSION_COMPATIBLE)", "set_flag(EXCLUDE_LEAN_RUNTIME)", "hardware_compatibility_level = AMPERE_PLUS",
    "builder_optimization_level = 0", "clear_flag(TF32)", "set_memory_pool_limit(WORKSPACE, 1048576)",
    "set_flag(WEIGHT_STREAMING)", "set_flag(SPARSE_WEIGHTS)", "max_aux_streams = 2", "avg_timing_iterations = 3",
    "tiling_optimization_level = FAST", "l2_limit_for_tiling = 5",
}  # fmt: skip
WINDOWS = "runtime_platform = WINDOWS_AMD64"


@pytest.fixture(params=PAIRS)
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each supported release."""
    return made(request.param)


@functools.cache
def made(version: str) -> Stack:
    """Downloaded once, to the user's cache directory."""
    return make_stack(version, CACHE)


@functools.cache
def builder_calls(version: str) -> Any:
    """What that release asks of TensorRT's builder: for Windows, for Windows with everything, for here."""
    source = made(version).upstream / "dynamo" / "conversion" / "_TRTInterpreter.py"
    windows = {"enable_cross_compile_for_windows": True}
    cases = json.dumps([windows, {**windows, **ALL}, {}])
    return json.loads(made(version).run(HERE / "builder_calls.py", str(source), given=cases, torch=False))


def test_what_upstream_asks_of_the_builder(stack: Stack) -> None:
    """Each option becomes its call, every one of which the bindings of that TensorRT have, with these arguments."""
    found = builder_calls(stack.version)
    windows, everything, here = (set(calls) for calls in found["upstream"])
    assert found["version"] == stack.tensorrt
    assert WINDOWS in windows & everything and WINDOWS not in here
    assert everything >= ASKED_FOR
    assert not (windows | here) & (ASKED_FOR - {"avg_timing_iterations = 1"})


def test_what_we_ask_of_the_builder(stack: Stack) -> None:
    """The timing cache begins empty, then with what there is, then anew where TensorRT does not take it."""
    found = builder_calls(stack.version)
    begin, keep = ["set_timing_cache(ITimingCache, False)", "build"], ["get_timing_cache()", "serialize()"]
    assert found["timing_cache"] == [
        *("create_timing_cache(0 bytes)", *begin, *keep),
        *("create_timing_cache(7 bytes)", *begin, *keep),
        *("create_timing_cache(7 bytes)", begin[0], "create_timing_cache(0 bytes)", *begin, *keep),
    ]
    assert found["build"][0] == "build_serialized_network(INetworkDefinition, IBuilderConfig)"


def test_every_option_of_upstream_is_known(stack: Stack) -> None:
    """``docs/options.md`` says of each what it does or why it is refused."""
    tree = ast.parse((stack.upstream / "dynamo" / "_settings.py").read_text(encoding="utf-8"))
    (cls,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "CompilationSettings")
    fields = {n.target.id for n in cls.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    page = (HERE.parents[1] / "docs" / "options.md").read_text(encoding="utf-8")
    assert [name for name in fields - set(REFUSED) if f"| `{name}` |" not in page] == []
    assert set(ALL) <= fields
    assert not set(ALL) & set(REFUSED) and set(NEVER) <= set(REFUSED)


def test_what_cross_compilation_switches_off_is_refused(stack: Stack) -> None:
    """Upstream switches it off with a line in its log."""
    tree = ast.parse((stack.upstream / "dynamo" / "_compiler.py").read_text(encoding="utf-8"))
    (function,) = (
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "cross_compile_for_windows"
    )
    (names,) = (
        ast.literal_eval(n.value)
        for n in ast.walk(function)
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "unsupported_settings"
    )
    assert set(names) >= {"lazy_engine_init", "cache_built_engines", "reuse_cached_engines"}
    assert set(names) <= set(REFUSED)


def test_the_engine_s_fields_are_those_of_upstream(stack: Stack) -> None:
    """The platform as its C++ spells it, the device as ``id%major%minor%type%name``."""
    enums = (stack.upstream / "_enums.py").read_text(encoding="utf-8")
    assert "Platform.WIN_X86_64" in enums and "_to_serialized_rt_platform" in enums
    layout = (stack.upstream / "dynamo" / "runtime" / "_TorchTensorRTModule.py").read_text(encoding="utf-8")
    for index in ("DEVICE_IDX", "TARGET_PLATFORM_IDX", "HW_COMPATIBLE_IDX", "SERIALIZED_METADATA_IDX"):
        assert index in layout


def test_python_is_the_same_in_both_distributions() -> None:
    """What was seen with TensorRT-RTX of this release goes for TensorRT: the code is the same, byte for byte."""
    version = importlib.metadata.version("torch-tensorrt-rtx")
    if version not in PAIRS:
        pytest.skip(f"no classic counterpart of {version} is known here")
    spec = importlib.util.find_spec("torch_tensorrt")
    assert spec is not None and spec.origin is not None
    installed, classic = Path(spec.origin).parent, made(version).upstream
    names = [p.relative_to(installed).as_posix() for p in installed.rglob("*.py")]
    same, different, missing = filecmp.cmpfiles(installed, classic, names, shallow=False)
    assert (different, missing) == ([], []) and len(same) > 150


@pytest.fixture(scope="module")
def exported() -> Any:
    """Exports through Torch-TensorRT of the installed PyTorch's release, with a builder that records."""
    minor = ".".join(importlib.metadata.version("torch").split(".")[:2])
    (version,) = [v for v in PAIRS if v.startswith(minor)] or [None]
    if version is None:
        pytest.skip(f"no classic Torch-TensorRT for PyTorch {minor} is known here")
    stack = made(version)
    (stack.libraries / "libnvinfer_builder_resource_win.so.11.1.0").unlink(missing_ok=True)
    stack.run(HERE / "export_here.py", str(stack.folder), torch=True)
    return json.loads((stack.folder / "out" / "result.json").read_text(encoding="utf-8"))


def test_an_artifact_for_windows(exported: Any) -> None:
    """Manifest and engine say that it runs on GPUs like the one that built."""
    plain = exported["plain"]
    assert plain["backend"]["target"] == "same_capability"
    assert plain["backend"]["compute_capabilities"] == ["8.9"]
    assert {"torch-tensorrt", "tensorrt"} <= set(plain["versions"])
    ((*_, device, _, inputs, outputs, everywhere, platform),) = [record[:8] for record in plain["records"]]
    assert (device, everywhere, platform) == ("0%8%9%0%NVIDIA GeForce RTX 4090", "0", "windows_x86_64")
    assert (inputs, outputs) == ("input_1", "output0")
    assert WINDOWS in plain["calls"]


def test_options_reach_the_builder(exported: Any) -> None:
    """And the manifest."""
    everything = exported["everything"]
    assert everything["backend"]["target"] == "ampere_and_newer"
    assert everything["backend"]["compute_capabilities"] == ["8.0", "newer"]
    assert everything["records"][0][6] == "1"
    assert {"set_flag(VERSION_COMPATIBLE)", "set_flag(EXCLUDE_LEAN_RUNTIME)", "clear_flag(TF32)", WINDOWS} <= set(
        everything["calls"]
    )
    assert everything["backend"]["options"]["version_compatible"] is True


def test_operators_that_stay_in_pytorch(exported: Any) -> None:
    """Two engines, and a builder for each."""
    assert exported["two_engines"]["fallback"] == ["aten.relu.default"]
    assert len(exported["two_engines"]["records"]) == 2
    assert exported["two_engines"]["calls"].count(WINDOWS) == 2


def test_a_twin_is_for_here(exported: Any) -> None:
    """The same calls but for the platform."""
    assert WINDOWS not in exported["twin"]["calls"]
    assert exported["twin"]["options"]["twin"] is True
    assert "linux_x86_64" in exported["twin"]["record"]


def test_no_path_of_the_machine_in_an_artifact(exported: Any) -> None:
    """Upstream pickles its settings into each engine's node, the timing cache's path among them."""
    metadata = next(field for field in exported["twin"]["record"] if len(field) > 400)
    assert str(Path.home()).encode() not in base64.b64decode(metadata)
    assert b"timing-tensorrt" not in base64.b64decode(metadata)


def test_the_library_for_windows_is_looked_for_before_the_build(exported: Any) -> None:
    """Where TensorRT itself lies."""
    message = exported["without the resource"]
    assert "libnvinfer_builder_resource_win.so.*, is not there (looked in " in message
    assert "NVIDIA's tar file for Linux x86-64" in message


def test_published_types(tmp_path: Path) -> None:
    """Every name that is asked for stands in the types that are published for TensorRT.

    They are of 10.13, and neither parse nor pass mypy as they come (``in`` as the name of an argument, a default before
    none), so that names are all that can be compared; the bindings themselves say more.
    """
    unpack(STUBS, tmp_path / "stubs")
    text = (tmp_path / "stubs" / "tensorrt_bindings" / "tensorrt.pyi").read_text(encoding="utf-8")
    text = re.sub(r"(, )in: ", r"\1in_: ", text).replace(
        "channel_axis: int) -> IScale", "channel_axis: int = 0) -> IScale"
    )
    classes = {c.name: c for c in ast.parse(text).body if isinstance(c, ast.ClassDef)}
    listed = {
        name: {n.name for n in body.body if isinstance(n, ast.FunctionDef)}
        | {ast.unparse(n.target) for n in body.body if isinstance(n, ast.AnnAssign)}
        for name, body in classes.items()
    }
    found = builder_calls("2.13.0")
    upstream = {re.split(r"[( ]", call)[0] for calls in found["upstream"] for call in calls}
    assert len(upstream) > 8 and upstream <= listed["IBuilderConfig"]
    assert {"create_timing_cache", "set_timing_cache", "get_timing_cache"} <= listed["IBuilderConfig"]
    assert "serialize" in listed["ITimingCache"] and "build_serialized_network" in listed["Builder"]
    assert {"load_runtime", "deserialize_cuda_engine"} <= listed["Runtime"]
    assert "WINDOWS_AMD64" in listed["RuntimePlatform"] and "AMPERE_PLUS" in listed["HardwareCompatibilityLevel"]
    assert {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "TF32", "WEIGHT_STREAMING"} <= listed["BuilderFlag"]
