"""What a TensorRT network computes, evaluated on the CPU with PyTorch, layer by layer.

An engine is built from a network, and runs on a GPU only. The network can be read back through TensorRT's bindings, and
evaluated by the documented meaning of its layers: so a conversion that changed what the model computes shows on a
machine without a GPU. Faults of TensorRT's kernels do not show here.
"""

from __future__ import annotations

from lightning_trt_windows.network.errors import BudgetExceededError, NetworkError, UnknownLayerError
from lightning_trt_windows.network.evaluate import Evaluation
from lightning_trt_windows.network.reader import Network, read_network

__all__ = ["BudgetExceededError", "Evaluation", "Network", "NetworkError", "UnknownLayerError", "read_network"]
