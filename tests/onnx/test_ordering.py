"""Nodes of a graph in an order in which they can be computed."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from lightning_trt_windows.onnx.ordering import in_order


def node(name: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    """A node that gives a value of its name."""
    return helper.make_node("Sum", list(inputs), [name], name=name, **attributes)


def test_what_is_needed_comes_first() -> None:
    """Also for a diamond, and what does not depend on anything else stays where it was."""
    nodes = [node("d", "b", "c"), node("c", "a"), node("b", "a"), node("a", "given"), node("alone", "given")]
    assert [one.name for one in in_order(nodes)] == ["a", "c", "b", "d", "alone"]
    in_place = [node("a", "given"), node("x", "given"), node("b", "a")]
    assert [one.name for one in in_order(in_place)] == ["a", "x", "b"]


def test_graphs_inside_of_nodes_need_values_as_well() -> None:
    """Those of the graph around; not what they make themselves."""
    inner = helper.make_graph(
        [node("t", "b"), node("u", "t")], "branch", [], [helper.make_empty_tensor_value_info("u")]
    )
    outer = helper.make_node("If", ["cond"], ["out"], name="out", then_branch=inner, else_branch=inner)
    assert [one.name for one in in_order([outer, node("b", "given"), node("t", "out")])] == ["b", "out", "t"]


def test_a_circle() -> None:
    """No program has one."""
    with pytest.raises(RuntimeError, match="depends on itself"):
        in_order([node("a", "b"), node("b", "a")])
