"""What the user asks of one export is checked and kept in one value."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_trt_windows import InputSpec, RangeOptions
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.export.options import ExportOptions


def test_arguments_are_sorted_into_options_and_settings() -> None:
    """Fields of ``ExportSettings`` go there, whatever their order; ranges may be a mapping, as YAML gives them."""
    options = ExportOptions.of({"precision": "16", "method": "embed", "golden": True, "ranges": {"margin": 0.25}})
    assert (options.settings.precision, options.settings.golden) == ("16", True)
    assert (options.method, options.ranges) == ("embed", RangeOptions(margin=0.25))
    assert (options.inputs, options.extra) == (None, {})


@pytest.mark.parametrize("name", ["precison", "executor", "settings"])
def test_an_unknown_argument_is_refused_by_name(name: str) -> None:
    """A slip of the pen, an option of many exports, and the settings as a whole: none is a setting of one export."""
    with pytest.raises(ConfigurationError, match=f"unknown setting {name}; known are backend, precision"):
        ExportOptions.of({name: "16"})


def test_later_changes_of_the_caller_do_not_matter() -> None:
    """The value is frozen, and its mappings are copies."""
    inputs: dict[str, Any] = {"x": InputSpec((1, 4))}
    extra = {"classes": 3}
    options = ExportOptions(inputs=inputs, extra=extra)
    inputs["y"], extra["classes"] = InputSpec((1, 4)), 4
    assert list(options.inputs or ()) == ["x"]
    assert options.extra == {"classes": 3}
