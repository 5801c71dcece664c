"""Which operators are translated together."""

from __future__ import annotations

from typing import Any

from lightning_trt_windows.artifact.outline import ENGINE
from lightning_trt_windows.onnx.stages import stages_of


def call(target: str, takes: list[str], gives: list[str], *, numbers: bool = False) -> dict[str, Any]:
    """A call as a saved program has it."""
    kind, key = ("as_sym_int", "as_name") if numbers else ("as_tensor", "name")
    inputs = [{"name": "self", "arg": {"as_tensor": {"name": name}}} for name in takes]
    return {"target": target, "inputs": inputs, "outputs": [{kind: {key: name}} for name in gives]}


def shown(nodes: list[dict[str, Any]], wanted: list[str]) -> list[tuple[list[str], list[str]]]:
    """Targets and results of each stage."""
    stages = stages_of(nodes, wanted)
    return [([str(node["target"]) for node in stage.nodes], list(stage.gives)) for stage in stages]


def test_before_between_and_behind_engines() -> None:
    """Each operator once, as soon as it can be; what a later stage needs is given."""
    nodes = [
        call("first", ["x"], ["a"]),
        call(ENGINE, ["a"], ["b"]),
        call("second", ["b", "a"], ["c"]),
        call(ENGINE, ["c"], ["d"]),
        call("third", ["d", "c", "x"], ["e"]),
    ]
    assert shown(nodes, ["a", "c", "e"]) == [(["first"], ["a"]), (["second"], ["c"]), (["third"], ["e"])]
    assert shown(nodes, ["e"]) == [(["first"], ["a"]), (["second"], ["c"]), (["third"], ["e"])]


def test_engines_side_by_side_do_not_divide() -> None:
    """Nor do operators that nobody asked for."""
    nodes = [
        call(ENGINE, ["x"], ["a"]),
        call(ENGINE, ["y"], ["b"]),
        call("add", ["a", "b"], ["c"]),
        call("nobody", ["c"], ["d"]),
    ]
    assert shown(nodes, ["c"]) == [(["add"], ["c"])]
    assert shown(nodes, []) == []


def test_numbers_are_computed_anew() -> None:
    """A size crosses no border between stages, and a stage of sizes alone is none."""
    nodes = [
        call("size", ["x"], ["s"], numbers=True),
        call(ENGINE, ["x"], ["a"]),
        call("resize", ["a", "s"], ["b"]),
        call(ENGINE, ["b"], ["c"]),
        call("resize", ["c", "s"], ["d"]),
    ]
    assert shown(nodes, ["b", "d"]) == [(["size", "resize"], ["b"]), (["size", "resize"], ["d"])]


def test_a_long_chain() -> None:
    """Files may be as long as they like."""
    nodes = [call("step", [f"v{number}"], [f"v{number + 1}"]) for number in range(5000)]
    ((targets, gives),) = shown(nodes, ["v5000"])
    assert (len(targets), gives) == (5000, ["v5000"])
