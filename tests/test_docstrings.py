"""What the public face promises in words: its arguments, what it returns, and which exceptions it raises when."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest
from support.paths import REPOSITORY

import lightning_trt_windows
from lightning_trt_windows import errors
from lightning_trt_windows._compat.lightning import written_class
from lightning_trt_windows.errors import ConfigurationError

_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Example):\n((?:[ \t]+.*\n?|\n(?=[ \t]))*)", flags=re.M)
_ENTRY = re.compile(r"^    (\*{0,2}\w+): (\S.*)", flags=re.M)


def public_face() -> dict[str, Any]:
    """Functions and classes of the package's ``__all__``, and those that the page about Python names."""
    named = re.findall(r"^::: ([\w.]+)", (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.M)
    dotted = [*(f"lightning_trt_windows.{name}" for name in lightning_trt_windows.__all__), *named]
    found = {}
    for one in dotted:
        module, _, name = one.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        if inspect.ismodule(value):
            found.update((f"{one}.{error}", getattr(value, error)) for error in value.__all__)
        else:
            found[f"{value.__module__}.{name}"] = value
    return found


def functions_of(face: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Functions, and public methods of classes but those that somebody else's base class documents."""
    for dotted, value in face.items():
        if not inspect.isclass(value):
            yield dotted, value
            continue
        foreign = [base for base in value.__mro__ if not base.__module__.startswith("lightning_trt_windows")]
        for name, method in vars(value).items():
            function = method.__func__ if isinstance(method, (classmethod, staticmethod)) else method
            inherited = hasattr(function, "__override__") or any(name in vars(base) for base in foreign)
            if isinstance(function, FunctionType) and not name.startswith("_") and not inherited:
                yield f"{dotted}.{name}", function


def sections(docstring: str | None) -> dict[str, str]:
    """Section to its text, as it is indented in the docstring."""
    return dict(_SECTION.findall(inspect.cleandoc(docstring or "") + "\n"))


def faults_of_sections(found: dict[str, str], parameters: list[str]) -> Iterator[str]:
    """What ``Args`` and ``Raises`` say that is not so, and what ``Args`` leaves out."""
    described = [name.lstrip("*") for name, _ in _ENTRY.findall(found.get("Args", ""))]
    yield from (f"Args lacks {name}" for name in parameters if name not in described)
    yield from (f"Args describes {name}, which is not a parameter" for name in described if name not in parameters)
    if "Raises" in found and not _ENTRY.findall(found["Raises"]):
        yield "Raises names no exception"
    for name, _ in _ENTRY.findall(found.get("Raises", "")):
        error = getattr(errors, name, getattr(builtins, name, None))
        if not (isinstance(error, type) and issubclass(error, Exception)):
            yield f"Raises names {name}, which is not an exception"


def faults_of_function(function: Callable[..., Any]) -> list[str]:
    """What the docstring of a function leaves out, or says that is not so."""
    found = sections(function.__doc__)
    parameters = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    faults = list(faults_of_sections(found, parameters))
    if function.__annotations__.get("return") not in ("None", None) and not found.keys() & {"Returns", "Yields"}:
        faults.append("there is no Returns")
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = {
        ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None
    }
    named = {name for name, _ in _ENTRY.findall(found.get("Raises", ""))}
    return faults + [f"Raises lacks {name}" for name in sorted(raised & set(errors.__all__) - named)]


def faults_of_class(cls: type) -> list[str]:
    """What the docstring of a class leaves out of its constructor; fields of dataclasses have their own docstrings."""
    cls = written_class(cls)  # another test may have given the callback its base
    found = sections(cls.__doc__)
    own = "__init__" in vars(cls) and not dataclasses.is_dataclass(cls)
    parameters = [name for name in inspect.signature(cls.__init__).parameters if name != "self"] if own else []  # type: ignore[misc]
    return list(faults_of_sections(found, parameters))


FACE = public_face()
FUNCTIONS = dict(functions_of(FACE))


@pytest.mark.parametrize("dotted", sorted(FUNCTIONS))
def test_public_functions_say_what_they_take_return_and_raise(dotted: str) -> None:
    """Every parameter, what comes back, and each error of ours that stands in a ``raise`` of the function itself."""
    assert faults_of_function(FUNCTIONS[dotted]) == []


@pytest.mark.parametrize("dotted", sorted(name for name, value in FACE.items() if inspect.isclass(value)))
def test_public_classes_say_what_they_take_and_raise(dotted: str) -> None:
    """There is a docstring, and its sections are about what there is."""
    assert FACE[dotted].__doc__
    assert faults_of_class(FACE[dotted]) == []


def test_the_face_is_all_there() -> None:
    """Every public name is looked at, and functions that only the page names as well."""
    looked_at = {dotted.rpartition(".")[2] for dotted in FACE}
    assert set(lightning_trt_windows.__all__) <= looked_at
    assert "lightning_trt_windows.bundle.huggingface.collect_for_hub" in FUNCTIONS
    assert "lightning_trt_windows.artifact.shapes.InputSpec.at" in FUNCTIONS


def test_a_docstring_that_is_not_so_is_found() -> None:
    """The rules above are able to fail, each of them."""

    def planted(path: str, device: str = "cuda:0") -> str:  # noqa: D417 -- the fault is what is tested
        """Do something.

        Args:
            path: A file.
            dtype: A type.

        Raises:
            ArtefactError: The file is damaged.
        """
        raise errors.ArtifactError(path, ["is damaged"]) if device else ConfigurationError("no device")

    def planted_too(path: str) -> None:
        """Do something.

        Args:
            path: A file.

        Raises:
            It is none.
        """
        raise ConfigurationError(path)

    assert faults_of_function(planted) == [
        "Args lacks device",
        "Args describes dtype, which is not a parameter",
        "Raises names ArtefactError, which is not an exception",
        "there is no Returns",
    ]
    assert faults_of_function(planted_too) == ["Raises names no exception", "Raises lacks ConfigurationError"]
    assert faults_of_class(type("Planted", (), {"__init__": lambda self, x: None})) == ["Args lacks x"]
