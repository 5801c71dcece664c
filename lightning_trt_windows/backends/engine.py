"""Build one TensorRT engine from one partition, without executing or deserializing it, so without a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch.fx import GraphModule, Node

from lightning_trt_windows._compat.torch_tensorrt import Upstream, tensorrt_messages
from lightning_trt_windows.backends.binding_names import BindingNames
from lightning_trt_windows.backends.number_check import NumberCheck
from lightning_trt_windows.backends.plan_file import serialized
from lightning_trt_windows.backends.profile_check import check_promised_sizes
from lightning_trt_windows.backends.profiles import Ranges, ranges_in_force
from lightning_trt_windows.backends.rewrites.results import as_traced
from lightning_trt_windows.errors import CompileError

__all__ = ["Configure", "ConverterError", "Engine", "build_engine"]

Configure: TypeAlias = Callable[[Any], AbstractContextManager[None]]
"""Takes TensorRT's ``IBuilderConfig``; what it enters lasts as long as the build."""


class ConverterError(Exception):
    """A converter failed on one node; the caller keeps that node in PyTorch and tries again."""

    def __init__(self, node: Node, cause: Exception) -> None:
        # fx appends the node and a hint for its own developers to the message
        reason = str(cause).split("\n\nWhile executing")[0].strip()
        super().__init__(f"{type(cause).__name__}: {reason}")
        self.node = node


@dataclass(frozen=True)
class Engine:
    """One serialized engine and its bindings."""

    name: str
    plan: memoryview
    """The engine's bytes, in TensorRT's own memory or a file: an engine can be gigabytes and is not copied."""
    inputs: tuple[str, ...]
    """Binding names in calling order."""
    outputs: tuple[str, ...]
    output_allocator: bool
    """Some output's size depends on the data, so the caller must allocate on demand."""
    symbolic_shapes: Any
    """Upstream's record of how output shapes follow from input shapes."""


def build_engine(
    blocks: Upstream,
    name: str,
    graph: GraphModule,
    settings: Any,
    configure: Configure,
    ranges: Ranges,
    check: NumberCheck | None = None,
    names: BindingNames | None = None,
    scratch: Path | None = None,
) -> Engine:
    """Convert ``graph`` and build it.

    Args:
        blocks: Upstream's building blocks.
        name: Name of the engine.
        graph: One partition; its placeholders' metadata hold symbolic shapes.
        settings: Upstream's ``CompilationSettings``.
        configure: Entered with TensorRT's ``IBuilderConfig`` around the build.
        ranges: Of the symbols, as they were captured; they become the profile.
        check: Compares the network with the partition before the engine is built.
        names: What the bindings are called; ``None`` leaves them upstream's names.
        scratch: Directory where a large engine may be while it is not written; ``None`` keeps it in memory.

    Returns:
        The engine with its bindings.

    Raises:
        ConverterError: A node's converter raised.
        WrongNumbersError: A node was converted into something else.
        OutsideProfileError: Sizes that values decide reach the engine, and its profile does not hold them.
        CompileError: TensorRT refused the network (its own words are in the message), or the engine would refuse sizes
            that were promised.
        OutputError: The disk does not take the engine.
    """
    with ranges_in_force(graph, ranges):
        inputs = blocks.construct_submodule_inputs(graph)
    with tensorrt_messages(blocks) as errors:
        interpreter = _interpreter_class(blocks)(
            graph,
            inputs,
            output_dtypes=blocks.infer_module_output_dtypes(graph, truncate_double=settings.truncate_double),
            compilation_settings=settings,
        )
        interpreter.binding_names = names
        try:
            interpreter._construct_trt_network_def()
        # converters raise whatever they meet: TypeError, ValueError, AssertionError, RuntimeError ...
        except Exception as error:
            node = interpreter._cur_node
            if node is None or node.op != "call_function":
                raise CompileError(
                    f"TensorRT's network for {name} could not be made: {error}{_said(errors)}"
                ) from error
            raise ConverterError(node, error) from error
        if getattr(interpreter, "_aliased_io", None):
            raise CompileError(
                f"{name} writes into its inputs ({interpreter._aliased_io}), which a Windows artifact cannot express"
            )
        check_promised_sizes(name, graph, interpreter, ranges)
        if check is not None:
            check.check_network(blocks, name, graph, interpreter)
        config = interpreter._populate_trt_builder_config()
        with configure(config):
            plan = serialized(blocks, interpreter.builder, interpreter.ctx.net, config, graph, scratch)
    if plan is None:
        raise CompileError(f"TensorRT built no engine for {name}.{_int8_convolution(graph)}{_said(errors)}")
    return Engine(
        name=name,
        plan=plan,
        inputs=tuple(interpreter._input_names),
        outputs=tuple(interpreter._output_names),
        output_allocator=bool(interpreter.ctx.requires_output_allocator),
        symbolic_shapes=blocks.extract_symbolic_shape_expressions(graph),
    )


def _int8_convolution(graph: GraphModule) -> str:
    """What to do about a convolution in INT8, of which TensorRT-RTX (seen: 1.6) says nothing that helps."""
    for node in graph.graph.nodes:
        sources = [source for source in node.all_input_nodes if "quantize_op" in str(source.target)]
        if "convolution" in str(node.target) and any(source.args[3:4] == (0,) for source in sources):
            return (
                " It has a convolution in INT8, which TensorRT-RTX does not have: quantise convolutions to FP8 "
                "(mtq.FP8_DEFAULT_CFG), or leave them out of the quantisation"
            )
    return ""


def _said(errors: list[str]) -> str:
    return "\nTensorRT said:\n" + "\n".join(f"  {line}" for line in errors[-5:]) if errors else ""


@functools.cache
def _interpreter_class(blocks: Upstream) -> Any:
    class Interpreter(blocks.TRTInterpreter):  # type: ignore[misc, name-defined]  # the base is imported lazily
        """Upstream's interpreter, which blames the right node, names bindings, and gives outputs tensors of their own.

        Upstream skips a network tensor that is marked as output a second time (one tensor returned twice, a reshape
        that changes nothing), so that the engine has fewer outputs than the graph and the last come back unwritten.
        An identity layer gives every output its own tensor. All releases to 2.14; delete when
        ``test_one_tensor_returned_twice`` passes without it.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.tensors_of: dict[str, list[Any]] = {}
            """Node to the network's tensors that it became."""
            self.binding_names: BindingNames | None = None

        def run_node(self, node: Any) -> Any:
            result = as_traced(blocks, self.ctx.net, node, super().run_node(node))
            values = result if isinstance(result, (tuple, list)) else (result,)
            self.tensors_of[node.name] = [value for value in values if isinstance(value, blocks.trt.ITensor)]
            # a converter may leave a layer that TensorRT refuses, which only shows when a shape is asked for: ask now,
            # while the node is known
            for value in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(value, blocks.trt.ITensor):
                    len(value.shape)
            return result

        def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
            # upstream names inputs, and the shapes of the profile, by the target
            names = self.binding_names
            name = target if names is None else names.inputs[len(self._input_names)]
            return super().placeholder(name, args, kwargs)

        def output(self, target: Any, args: Any, kwargs: Any) -> Any:
            values = args[0] if isinstance(args[0], (tuple, list)) else (args[0],)
            seen: set[str] = set()
            own: list[Any] = []
            for value in values:
                tensor = value
                if isinstance(value, blocks.trt.ITensor):
                    if value.name in seen or value.is_network_input:
                        tensor = self.ctx.net.add_identity(value).get_output(0)
                    seen.add(tensor.name)
                own.append(tensor)
            results = super().output(target, (tuple(own),), kwargs)
            if self.binding_names is not None:
                for number, (tensor, name) in enumerate(zip(results, self.binding_names.outputs, strict=True)):
                    tensor.name = name
                    # TensorRT keeps the name that was there where another tensor of the network has this one
                    self._output_names[number] = tensor.name
            return results

    return Interpreter
