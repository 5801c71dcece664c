"""One value with everything that a user may choose."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import pytest

from lightning_trt_windows import RangeOptions, WindowsExport
from lightning_trt_windows.builds.executors.process import BuildProcess
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.settings import ExportSettings
from lightning_trt_windows.training.options import Options


def test_every_argument_is_in_it() -> None:
    """The callback takes each field once, under its name; nothing is lost on the way."""
    arguments = set(inspect.signature(WindowsExport).parameters)
    settings = {f.name for f in fields(ExportSettings)}
    own = {f.name for f in fields(Options)} - {"settings"}
    assert arguments == settings | own
    assert not settings & own


def test_defaults_are_those_of_the_settings() -> None:
    """A function and the callback make the same artifact."""
    assert WindowsExport().options.settings == ExportSettings()


def test_where_engines_are_built() -> None:
    """In a process of its own while training goes on, in this one at its end, unless somebody says otherwise."""
    assert WindowsExport().options.executor == "inline"
    assert WindowsExport(when="checkpoint").options.executor == "process"
    assert WindowsExport(when="checkpoint", executor="inline").options.executor == "inline"


def test_builds_at_a_time() -> None:
    """As many as were asked for, where the executor is ours."""
    executor, is_own = WindowsExport(when="checkpoint", workers=3, build_deadline=60).options.make_executor()
    assert is_own
    assert isinstance(executor, BuildProcess)
    assert (executor.workers, executor.deadline) == (3, 60)
    executor.shutdown()


def test_ranges_in_yaml() -> None:
    """A plain mapping will be one of options."""
    ranges: Any = {"caps": {"batch": 64}}
    assert WindowsExport(ranges=ranges).options.ranges == RangeOptions(caps={"batch": 64})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"when": "never"}, "when must be one of 'train_end', 'checkpoint', got 'never'"),
        ({"on_error": "ignore"}, "on_error must be one of"),
        ({"log_artifacts": "some"}, "log_artifacts must be one of"),
        ({"executor": "nobody"}, "executor must be one of"),
        ({"executor": ThreadPoolExecutor(1)}, "would change its random numbers"),
        ({"max_pending": 0}, "max_pending must be 1 or more, got 0"),
        ({"build_deadline": 0}, "build_deadline must be more than 0"),
        ({"build_memory": -1.0}, "build_memory must be more than 0"),
        ({"workers": 0}, "workers must be 1 or more, got 0"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    """When the callback is made."""
    with pytest.raises(ConfigurationError, match=message):
        WindowsExport(**arguments)
