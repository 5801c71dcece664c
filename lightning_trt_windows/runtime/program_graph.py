"""A saved graph's JSON to a ``torch.fx`` graph, without ``torch.export``.

``torch.export.load`` imports 2 s and 150 MB of compiler, and gives back symbolic shapes and fake tensors that nobody
needs who only runs the program. Running it takes the nodes and their arguments; this reads those of the schema's major
version 8, which torch 2.7 to 2.14 write, and refuses every kind of argument that it does not know. No text of the file
becomes code: names are made here, and text arguments are literals.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node

from lightning_trt_windows.artifact.outline import ENGINE
from lightning_trt_windows.runtime.operators import resolve

__all__ = ["DTYPES", "Leaf", "ProgramGraph", "read_graph"]

DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 9: torch.complex32, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
    28: torch.uint16, 29: torch.float8_e4m3fn, 30: torch.float8_e5m2, 31: torch.float8_e4m3fnuz,
    32: torch.float8_e5m2fnuz, 34: torch.uint32, 35: torch.uint64,
}  # fmt: skip
"""The schema's numbers of dtypes. Those of layouts and memory formats follow."""
_LAYOUTS = {7: torch.strided}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}


@dataclass(frozen=True)
class Leaf:
    """One input of the program."""

    name: str
    is_tensor: bool
    value: Any = None
    """What it was at the export, where it is no tensor."""


@dataclass(frozen=True)
class ProgramGraph:
    """A graph whose children are engines, ``engine_0`` and so on, and weights, ``weight_0`` and so on."""

    graph: Graph
    leaves: tuple[Leaf, ...]
    weights: tuple[str, ...]
    """Name in the archive of each weight that the graph uses."""


def read_graph(program: Mapping[str, Any], tokens: Mapping[str, int], device: torch.device) -> ProgramGraph:
    """Read the ``graph_module`` of a saved program.

    Args:
        program: Its JSON.
        tokens: Text that stands for a payload, and the number of its engine.
        device: Takes the place of every device that the graph names.

    Returns:
        The graph with its leaves.

    Raises:
        ValueError: Something that programs of engines and tensors do not have. Others where the JSON is damaged.
    """
    reader = _Reader(tokens, device)
    leaves, weights = reader.inputs(program["graph"]["inputs"], program["signature"]["input_specs"])
    for node in program["graph"]["nodes"]:
        reader.node(node)
    other = [kind for spec in program["signature"]["output_specs"] for kind in spec if kind != "user_output"]
    if other:
        raise ValueError(f"it has outputs of the kind {', '.join(other)}")
    reader.graph.output(tuple(reader.value(output) for output in program["graph"]["outputs"]))
    missing = sorted(set(tokens.values()) - reader.engines)
    if missing:
        raise ValueError(f"it does not call the engines {missing}, which the manifest lists")
    return ProgramGraph(reader.graph, leaves, weights)


class _Reader:
    def __init__(self, tokens: Mapping[str, int], device: torch.device) -> None:
        self.graph = Graph()
        self.engines: set[int] = set()
        self._tokens = tokens
        self._device = device
        self._values: dict[str, Callable[[], Node]] = {}

    def inputs(
        self, given: Sequence[Mapping[str, Any]], specs: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Leaf, ...], tuple[str, ...]]:
        """Placeholders for the arguments, then attributes for the weights."""
        leaves: list[Leaf] = []
        lifted: list[tuple[str, str]] = []
        for item, spec in zip(given, specs, strict=True):
            ((kind, content),) = spec.items()
            name = next(iter(item.values())).get("name", "") if "as_tensor" in item else ""
            if kind in ("user_input", "constant_input"):
                node = self.graph.placeholder(f"input_{len(leaves)}")
                if name:
                    self._know(name, node)
                constant = None if name else self.value(content["value"] if kind == "constant_input" else item)
                leaves.append(Leaf(name or str(content.get("name", "")), bool(name), constant))
            elif kind in ("parameter", "buffer", "tensor_constant"):
                lifted.append((name, content[f"{kind}_name"]))
            else:
                raise ValueError(f"it has an input of the kind {kind}")
        for number, (name, _) in enumerate(lifted):
            self._know(name, self.graph.get_attr(f"weight_{number}"))
        return tuple(leaves), tuple(weight for _, weight in lifted)

    def node(self, node: Mapping[str, Any]) -> None:
        """One call."""
        target, arguments = node["target"], node["inputs"]
        if target == ENGINE:
            texts = [argument["arg"].get("as_string") for argument in arguments[1:]]
            numbers = [self._tokens[text] for text in texts if text in self._tokens]
            if len(numbers) != 1 or numbers[0] in self.engines:
                raise ValueError(f"it calls an engine that the manifest does not list, or one twice: {numbers}")
            self.engines.add(numbers[0])
            call = self.graph.call_module(f"engine_{numbers[0]}", (self.value(arguments[0]["arg"]),))
        else:
            args, kwargs = self._arguments(resolve(target), arguments)
            call = self.graph.call_function(resolve(target), args, kwargs)
        self._outputs(call, node["outputs"])

    def value(self, argument: Mapping[str, Any]) -> Any:
        """One argument: a node, or a literal."""
        ((kind, content),) = argument.items()
        if kind not in _KINDS:
            raise ValueError(f"it has an argument of the kind {kind}, which is not a plain value")
        return _KINDS[kind](self, content)

    def named(self, name: str) -> Node:
        """The node whose value is called ``name``."""
        return self._values[name]()

    def size(self, content: Mapping[str, Any]) -> Any:
        """A size: the name of a node, or a literal."""
        ((kind, value),) = content.items()
        return (
            self.named(value) if kind == "as_name" else {"as_int": int, "as_float": float, "as_bool": bool}[kind](value)
        )

    def device(self, content: Mapping[str, Any]) -> torch.device:
        """The archive says ``cuda:0`` throughout; wherever that was, it is this module's device here."""
        return self._device if content["type"] in ("cuda", "cpu") else torch.device(content["type"])

    def _know(self, name: str, node: Node) -> None:
        self._values[name] = lambda: node

    def _arguments(
        self, function: Callable[..., Any], given: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not isinstance(function, torch._ops.OpOverload):
            return tuple(self.value(argument["arg"]) for argument in given), {}
        keyword_only = {argument.name for argument in function._schema.arguments if argument.kwarg_only}
        args, kwargs = [], {}
        for argument in given:
            # 0 is "unknown", as older versions write; 1 is by position, 2 by name
            if argument.get("kind") == 2 or argument["name"] in keyword_only:
                kwargs[argument["name"]] = self.value(argument["arg"])
            else:
                args.append(self.value(argument["arg"]))
        return tuple(args), kwargs

    def _outputs(self, call: Node, outputs: Sequence[Mapping[str, Any]]) -> None:
        if len(outputs) == 1 and not isinstance(next(iter(outputs[0].values())), list):
            for name in _names(outputs[0]):
                self._know(name, call)
            return
        if len(outputs) == 1:
            ((kind, parts),) = outputs[0].items()
            outputs = [{"as_tensor": part} if kind == "as_tensors" else part for part in parts]
        for index, output in enumerate(outputs):
            for name in _names(output):
                self._take(name, call, index)

    def _take(self, name: str, call: Node, index: int) -> None:
        """Name an element of what ``call`` returns; it is taken when something asks for it."""
        taken: list[Node] = []

        def element() -> Node:
            if not taken:
                taken.append(self.graph.call_function(operator.getitem, (call, index)))
            return taken[0]

        self._values[name] = element


def _names(output: Mapping[str, Any]) -> Iterator[str]:
    ((kind, content),) = output.items()
    if kind == "as_tensor":
        yield content["name"]
    elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        if "as_name" in content:
            yield content["as_name"]
    elif kind != "as_none":
        raise ValueError(f"it has a result of the kind {kind}")


_KINDS: Mapping[str, Callable[[_Reader, Any], Any]] = {
    "as_none": lambda reader, value: None,
    "as_tensor": lambda reader, value: reader.named(value["name"]),
    "as_tensors": lambda reader, value: [reader.named(item["name"]) for item in value],
    "as_optional_tensor": lambda reader, value: reader.value(value),
    "as_optional_tensors": lambda reader, value: [reader.value(item) for item in value],
    "as_nested_tensors": lambda reader, value: [[reader.named(item["name"]) for item in row] for row in value],
    "as_int": lambda reader, value: int(value),
    "as_ints": lambda reader, value: [int(item) for item in value],
    "as_int_lists": lambda reader, value: [[int(item) for item in row] for row in value],
    # infinities and NaN are texts in the file
    "as_float": lambda reader, value: float(value),
    "as_floats": lambda reader, value: [float(item) for item in value],
    "as_float_lists": lambda reader, value: [[float(item) for item in row] for row in value],
    "as_bool": lambda reader, value: bool(value),
    "as_bools": lambda reader, value: [bool(item) for item in value],
    "as_string": lambda reader, value: str(value),
    "as_strings": lambda reader, value: [str(item) for item in value],
    "as_complex": lambda reader, value: complex(float(value["real"]), float(value["imag"])),
    "as_sym_int": lambda reader, value: reader.size(value),
    "as_sym_ints": lambda reader, value: [reader.size(item) for item in value],
    "as_sym_float": lambda reader, value: reader.size(value),
    "as_sym_floats": lambda reader, value: [reader.size(item) for item in value],
    "as_sym_bool": lambda reader, value: reader.size(value),
    "as_sym_bools": lambda reader, value: [reader.size(item) for item in value],
    "as_scalar_type": lambda reader, value: DTYPES[value],
    "as_layout": lambda reader, value: _LAYOUTS[value],
    "as_memory_format": lambda reader, value: _MEMORY_FORMATS[value],
    "as_device": lambda reader, value: reader.device(value),
}
"""How each kind of argument is read. Not among them: ``as_custom_obj`` (a pickle), ``as_operator``, ``as_graph``."""
