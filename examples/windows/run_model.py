"""Open a model of lightning-trt-windows with ONNX Runtime, print its ranges, run a batch and time it.

    pip install onnxruntime onnxruntime-ep-nv-tensorrt-rtx-cu13==0.4.0
    python run_model.py model.windows.onnx
    python run_model.py model.windows.onnx --size max

Which version of the provider goes with a model stands in the model, as ``execution_provider_versions``. PyTorch and
this package are not needed. ``--cpu`` runs a model that has no engines.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import onnxruntime

PROVIDER = "NvTensorRTRTXExecutionProvider"
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}


def open_session(path: str, *, cpu: bool) -> Any:
    """A session on the first GPU that the provider finds."""
    options = onnxruntime.SessionOptions()
    if not cpu:
        import onnxruntime_ep_nv_tensorrt_rtx as provider

        onnxruntime.register_execution_provider_library(PROVIDER, provider.get_library_path())
        devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
        if not devices:
            raise RuntimeError(f"{PROVIDER} finds no GPU: it needs an NVIDIA RTX GPU and its driver")
        options.add_provider_for_devices(devices[:1], {})
    return onnxruntime.InferenceSession(path, sess_options=options)


def shape_of(properties: dict[str, str], name: str, size: str) -> list[int]:
    """The shape of an input at its smallest, usual or largest size."""
    if (text := properties.get(f"{name}.{size}")) is None:
        raise RuntimeError(f"no {name}.{size} in the model: no ranges are known")
    return [int(one) for one in text.split(",") if one]


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--size", choices=("min", "opt", "max"), default="opt", help="default: %(default)s")
    parser.add_argument("--cpu", action="store_true", help="without the provider, for a model that has no engines")
    arguments = parser.parse_args()
    try:
        session = open_session(arguments.model, cpu=arguments.cpu)
        properties = session.get_modelmeta().custom_metadata_map
        inputs: dict[str, Any] = {}
        for given in session.get_inputs():
            for size in ("min", "opt", "max"):
                print(f"{given.name} {size} {shape_of(properties, given.name, size)}")
            shape = shape_of(properties, given.name, arguments.size)
            inputs[given.name] = np.ones(shape, TYPES[given.type])  # your data goes here
        results = session.run(None, inputs)  # the first call compiles kernels
        for output, result in zip(session.get_outputs(), results):
            print(f"gives {output.name} {list(result.shape)}")
        times = []
        for number in range(110):
            start = time.perf_counter()
            session.run(None, inputs)
            if number >= 10:
                times.append(1000 * (time.perf_counter() - start))
        times.sort()
        print(f"at {arguments.size}: P50 {times[49]:.3f} ms, P99 {times[98]:.3f} ms")
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
