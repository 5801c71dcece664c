"""Prints what one release of Torch-TensorRT asks of TensorRT's builder for some settings, and what we ask of it.

Run by ``test_classic.py`` with NVIDIA's bindings of that release. Upstream's own function is taken from its source, so
that no other part of it, and no PyTorch, is needed: ``builder_calls.py _TRTInterpreter.py``, settings as JSON on stdin.
"""

from __future__ import annotations

import ast
import json
import logging
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tensorrt as trt
from recorded import Recorder

from lightning_trt_windows.backends.timing_cache import timing_cache

UPSTREAM_DEFAULTS = {
    "workspace_size": 0, "max_aux_streams": None, "version_compatible": False, "hardware_compatible": False,
    "optimization_level": None, "num_avg_timing_iters": 1, "sparse_weights": False, "disable_tf32": False,
    "immutable_weights": True, "strip_engine_weights": False, "refit_identical_engine_weights": False,
    "enable_cross_compile_for_windows": False, "enable_weight_streaming": False, "tiling_optimization_level": "none",
    "l2_limit_for_tiling": -1, "use_explicit_typing": True, "enabled_precisions": (),
}  # fmt: skip


def upstream_function(source: Path) -> Any:
    """``TRTInterpreter._populate_trt_builder_config``."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (function,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "_populate_trt_builder_config"
    )
    function.returns = None
    for argument in function.args.args:
        argument.annotation = None
    names: dict[str, Any] = {
        "trt": trt,
        "is_tensorrt_version_supported": lambda version: True,
        "ENABLED_FEATURES": SimpleNamespace(native_trt_collectives=True, tensorrt_rtx=False),
        "_LOGGER": logging.getLogger("upstream"),
    }
    exec(compile(ast.Module([function], []), str(source), "exec"), names)
    return names["_populate_trt_builder_config"]


def upstream_calls(function: Any, options: dict[str, Any]) -> list[str]:
    """What it asks for."""
    log: list[str] = []
    settings = SimpleNamespace(
        **{**UPSTREAM_DEFAULTS, **options},
        engine_capability=SimpleNamespace(to=lambda kind: kind.STANDARD),
        device=SimpleNamespace(device_type=trt.DeviceType.GPU),
    )
    builder = Recorder(trt, "Builder", [], create_builder_config=Recorder(trt, "IBuilderConfig", log))
    function(
        SimpleNamespace(
            builder=builder, compilation_settings=settings, _debugger_config=None, optimization_profiles=None
        )
    )
    return log


def our_calls() -> list[str]:
    """What the timing cache asks for: nothing there, something there, something of another version there."""
    log: list[str] = []
    cache = Recorder(trt, "ITimingCache", log, serialize=b"timings")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "user" / "timings.bin"
        for taken in (True, True, False):
            results = {"create_timing_cache": cache, "get_timing_cache": cache, "set_timing_cache": taken}
            with timing_cache(Recorder(trt, "IBuilderConfig", log, **results), str(path)):
                log.append("build")
        assert path.read_bytes() == b"timings"
    return log


def build_calls() -> list[str]:
    """What ``backends/engine.py`` and the loader ask for beside."""
    log: list[str] = []
    builder, runtime = Recorder(trt, "Builder", log), Recorder(trt, "Runtime", log)
    builder.build_serialized_network(Recorder(trt, "INetworkDefinition", log), Recorder(trt, "IBuilderConfig", log))
    runtime.load_runtime("nvinfer_lean_11.dll").deserialize_cuda_engine(b"plan")
    return log


if __name__ == "__main__":
    populate = upstream_function(Path(sys.argv[1]))
    cases = json.loads(sys.stdin.read())
    print(
        json.dumps(
            {
                "version": trt.__version__,
                "upstream": [upstream_calls(populate, options) for options in cases],
                "timing_cache": our_calls(),
                "build": build_calls(),
            }
        )
    )
