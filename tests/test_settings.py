"""What the user chooses, and what is refused."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.settings import ExportSettings, PrecisionName


def test_the_defaults_are_allowed() -> None:
    """Nobody has to choose anything."""
    assert ExportSettings() == ExportSettings(backend="auto", precision=None, compute_capabilities=(), min_block_size=1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backend", "trt", "backend must be one of 'auto', 'tensorrt_rtx', 'tensorrt', got 'trt'"),
        ("precision", "fp8", "precision must be one of None, '32', '16', 'bf16', got 'fp8'"),
        ("precision", 8, "precision must be one of"),
        ("precision", True, "precision must be one of"),
        ("precision", ["16"], "precision must be one of"),
        ("io_precision", "16", "io_precision must be one of 'module', 'engine', got '16'"),
        ("io_precision", "engine", "needs a precision"),
        ("recurrent", "cudnn", "recurrent must be one of 'auto', 'engine', 'pytorch', got 'cudnn'"),
        ("compute_capabilities", "8.6", "must be a list"),
        ("compute_capabilities", ["sm_86"], "looks like '8.6', got 'sm_86'"),
        ("compute_capabilities", ["8."], "looks like"),
        ("tensorrt_rtx", "newest", "must be a version in quotation marks, as '1.7', got 'newest'"),
        ("tensorrt_rtx", "1", "must be a version"),
        ("tensorrt_rtx", 1.7, "in quotation marks"),
        ("min_block_size", 0, "whole number from 1"),
        ("min_block_size", True, "whole number from 1"),
        ("min_block_size", "5", "whole number from 1"),
    ],
)
def test_a_value_outside_its_choices_is_refused(field: str, value: Any, message: str) -> None:
    """The message names the field, the choices and what was given."""
    with pytest.raises(ConfigurationError, match=message):
        ExportSettings(**{field: value})


@pytest.mark.parametrize("name", get_args(PrecisionName))
def test_precision_has_the_names_that_people_know(name: Any) -> None:
    """Lightning's, TensorRT's and PyTorch's become ours, so that one request has one fingerprint."""
    bits = "bf16" if str(name).startswith("bf") else "16" if "16" in str(name) else "32"
    assert ExportSettings(precision=name).precision == bits


def test_lists_from_yaml_become_tuples() -> None:
    """Also numbers that YAML takes for floats."""
    capabilities: Any = [8.6, "8.9"]
    assert ExportSettings(compute_capabilities=capabilities).compute_capabilities == ("8.6", "8.9")


def test_settings_do_not_change_with_the_callers_dict() -> None:
    """They are a copy."""
    options = {"optimization_level": 3}
    settings = ExportSettings(compile_options=options)
    options.clear()
    assert settings.compile_options == {"optimization_level": 3}
