"""Read a TensorRT network back through the bindings: its layers, and which tensor comes from which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_trt_windows.network.evaluate import Evaluation, Evaluator, Step

__all__ = ["Network", "read_network"]

_CLASSES = {
    "ELEMENTWISE": "IElementWiseLayer",
    "LRN": "ILRNLayer",
    "NMS": "INMSLayer",
    "ONE_HOT": "IOneHotLayer",
    "PARAMETRIC_RELU": "IParametricReLULayer",
    "RAGGED_SOFTMAX": "IRaggedSoftMaxLayer",
    "SOFTMAX": "ISoftMaxLayer",
    "TOPK": "ITopKLayer",
    "CONDITIONAL_INPUT": "IIfConditionalInputLayer",
    "CONDITIONAL_OUTPUT": "IIfConditionalOutputLayer",
}
"""Kinds of layers whose class is not called as the kind."""


@dataclass
class Network:
    """A network that can be evaluated. It lives as long as the TensorRT objects that it was read from."""

    trt: Any
    steps: list[Step]
    """Its layers, in the order in which they were added."""
    inputs: dict[str, Any]
    """Input bindings with their types, as TensorRT has them."""
    outputs: tuple[str, ...]
    weights: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that layers give."""
        return tuple(name for step in self.steps for name in step.outputs)

    def evaluate(
        self,
        inputs: Mapping[str, Tensor],
        outputs: Iterable[str] | None = None,
        *,
        seconds: float | None = None,
        memory: int | None = None,
    ) -> Evaluation:
        """Compute tensors of the network on the CPU.

        Args:
            inputs: Value of each input binding, and of any tensor in between that is not to be computed.
            outputs: Names of tensors, of any in the network; by default those of the output bindings. Only what they
                need is computed.
            seconds: How long it may take.
            memory: Bytes that values may take together at any moment, besides weights and inputs.

        Returns:
            The values by name, and what was noted meanwhile.

        Raises:
            NetworkError: The network does what TensorRT does not allow.
            UnknownLayerError: The network has a layer that cannot be evaluated here.
            BudgetExceededError: The evaluation took more time or memory than it may.
        """
        wanted = tuple(self.outputs if outputs is None else outputs)
        evaluator = Evaluator(self.trt, self.steps, self.inputs, self.weights, seconds=seconds, memory=memory)
        return evaluator.evaluate(inputs, wanted)


def read_network(trt: Any, network: Any, *, weights: Mapping[str, Any] | None = None) -> Network:
    """Read ``network``.

    Args:
        trt: TensorRT's bindings, the module that made the network.
        network: An ``INetworkDefinition``. Loops, conditionals and attentions without a name get one, because the
            bindings make a new object each time they are asked for: only names tell which layers belong together.
        weights: Constants that the bindings cannot return (bfloat16), by upstream's name for them.

    Returns:
        The network; nothing is computed yet.
    """
    steps = [_step(trt, network.get_layer(number), number) for number in range(network.num_layers)]
    inputs = {}
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        inputs[tensor.name] = tensor.dtype
    outputs = tuple(network.get_output(number).name for number in range(network.num_outputs))
    return Network(trt, steps, inputs, outputs, dict(weights or {}))


def _step(trt: Any, layer: Any, number: int) -> Step:
    kind = layer.type.name
    cls = getattr(trt, _CLASSES.get(kind, f"I{kind.title().replace('_', '')}Layer"), None)
    if cls is not None:
        # the bindings give every layer as an ILayer; its own class has its attributes
        layer.__class__ = cls
    owner = ""
    for attribute in ("loop", "conditional", "attention"):
        found = getattr(layer, attribute, None)
        if found is not None:
            if not found.name:
                found.name = f"{attribute} {number}"
            owner = found.name
    inputs = tuple(_names(layer.get_input, layer.num_inputs))
    given = map(layer.get_output, range(layer.num_outputs))
    outputs = tuple("" if tensor is None else tensor.name for tensor in given)
    return Step(layer, kind, inputs, outputs, owner, known=cls is not None)


def _names(get: Any, count: int) -> Iterator[str]:
    for number in range(count):
        tensor = get(number)
        if tensor is not None:
            yield tensor.name
