"""Ranges and input specs as values."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec, parse_input_spec
from lightning_trt_windows.errors import ConfigurationError


@pytest.mark.parametrize("bounds", [(1, 1, 1), (1, 8, 32), (8, 8, 32), (1, 32, 32)])
def test_a_range_keeps_its_bounds(bounds: tuple[int, int, int]) -> None:
    """Equal neighbours are fine: bounds are inclusive."""
    assert DimRange(*bounds).bounds == bounds


@pytest.mark.parametrize("bounds", [(0, 1, 1), (2, 1, 3), (1, 4, 3), (-1, 1, 1), (3, 2, 1)])
def test_bounds_out_of_order_are_refused(bounds: tuple[int, int, int]) -> None:
    """The message repeats what was given."""
    with pytest.raises(ConfigurationError, match=f"min={bounds[0]}, opt={bounds[1]}, max={bounds[2]}"):
        DimRange(*bounds)


@pytest.mark.parametrize("bound", [True, 1.0, "1", None])
def test_a_bound_is_a_whole_number(bound: Any) -> None:
    """``True`` is an int to Python, never a size to us."""
    with pytest.raises(ConfigurationError, match=r"DimRange\.min must be a whole number"):
        DimRange(bound, 8, 32)


def test_every_bound_is_a_multiple_where_one_is_asked_for() -> None:
    """The message names the bounds that are not."""
    assert DimRange(32, 64, 96, multiple_of=32).multiple_of == 32
    with pytest.raises(ConfigurationError, match="opt=50 is not a multiple of 32"):
        DimRange(32, 50, 96, multiple_of=32)
    with pytest.raises(ConfigurationError, match="at least 1"):
        DimRange(1, 1, 1, multiple_of=0)


def test_a_range_of_one_size_is_static() -> None:
    """And prints as that size."""
    assert DimRange(4, 4, 4).is_static
    assert str(DimRange(4, 4, 4)) == "4"
    assert str(DimRange(1, 8, 32)) == "1..8..32"


def test_a_spec_gives_concrete_shapes() -> None:
    """At each bound, static axes included."""
    spec = InputSpec([DimRange(1, 8, 32), 3])  # type: ignore[arg-type]  # YAML gives lists
    assert [spec.at(bound) for bound in ("min", "opt", "max")] == [(1, 3), (8, 3), (32, 3)]
    assert str(spec) == "float32[1..8..32, 3]"
    assert hash(spec) == hash(InputSpec((DimRange(1, 8, 32), 3)))


def test_a_scalar_has_no_axes() -> None:
    """An empty shape is a shape."""
    assert InputSpec(()).at("opt") == ()


@pytest.mark.parametrize("shape", ["3", b"3", 3, None, {3}])
def test_a_shape_is_a_sequence(shape: Any) -> None:
    """Text iterates, and is no shape."""
    with pytest.raises(ConfigurationError, match="must be a sequence of sizes"):
        InputSpec(shape)


@pytest.mark.parametrize("size", [-1, True, 1.5, "3", None, (1, 2, 3)])
def test_an_axis_is_a_size_or_a_range(size: Any) -> None:
    """The message names the axis."""
    with pytest.raises(ConfigurationError, match=r"shape\[1\] must be a size or a DimRange"):
        InputSpec((1, size))


@pytest.mark.parametrize("dtype", ["float", "torch.float32", "", None])
def test_dtypes_are_spelled_as_torch_does(dtype: Any) -> None:
    """The message lists the known ones."""
    with pytest.raises(ConfigurationError, match="bfloat16, bool"):
        InputSpec((1,), dtype)


def test_values_are_a_range() -> None:
    """Lowest first."""
    assert InputSpec((1,), "int64", (0, 99)).values == (0, 99)
    with pytest.raises(ConfigurationError, match="lowest, highest"):
        InputSpec((1,), "int64", (1, 0))


def test_a_spec_is_made_of_what_yaml_gives() -> None:
    """Triples and mappings become ranges."""
    spec = parse_input_spec(
        {"shape": [[1, 8, 32], {"min": 2, "opt": 2, "max": 4, "name": "n"}, 3], "dtype": "int64", "values": [0, 9]}, "x"
    )
    assert spec == InputSpec((DimRange(1, 8, 32), DimRange(2, 2, 4, "n"), 3), "int64", (0, 9))
    assert parse_input_spec(spec, "x") is spec


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 3], "expected an InputSpec or a mapping with a shape"),
        ({"dtype": "int64"}, "expected an InputSpec or a mapping with a shape"),
        ({"shape": [1], "type": "int64"}, r"unknown keys \['type'\]"),
        ({"shape": [[1, 8]]}, r"shape\[0\] must be \[min, opt, max\]"),
    ],
)
def test_what_yaml_gets_wrong_is_named(value: object, message: str) -> None:
    """Led by where it stands."""
    with pytest.raises(ConfigurationError, match=f"inputs.x: {message}"):
        parse_input_spec(value, "inputs.x")
