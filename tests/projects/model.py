"""What a file of a project declares: its requirements, and functions that train one model of it each."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

__all__ = ["MODELS", "Model", "Train", "model", "models_in", "options", "requirements_in"]

Train: TypeAlias = Callable[[list[Any], Path], nn.Module]
"""Trains with the given callbacks, in the given folder, and returns what was trained."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model of a project."""

    train: Train
    steps: str = ""
    """What a user has to do besides adding the callback; it is done in ``train``."""
    way_on: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the callback to try where the plain one gives nothing; by default what the message says to do."""
    note: str = ""
    """What is peculiar about it."""


MODELS: dict[str, Model] = {}
"""The models of the project whose file has been imported, by the names of their functions."""


def model(**fields: Any) -> Callable[[Train], Train]:
    """Enter a function that trains one model; its name is the model's."""

    def enter(train: Train) -> Train:
        MODELS[train.__name__] = Model(train=train, **fields)
        return train

    return enter


def options(callbacks: list[Any], folder: Path, **more: Any) -> dict[str, Any]:
    """Arguments of the Trainer: those of any short training on a CPU."""
    return {
        "accelerator": "cpu",
        "callbacks": callbacks,
        "default_root_dir": folder,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": False,
        "max_epochs": 2,
        **more,
    }


def models_in(file: Path) -> list[str]:
    """Names of the models that ``file`` declares, without importing it: its project may not be installed here."""
    return [
        node.name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Call) and ast.unparse(d.func) == "model" for d in node.decorator_list)
    ]


def requirements_in(file: Path) -> tuple[str, ...]:
    """The pinned requirements that ``file`` declares, the project's own first."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "REQUIREMENTS":
            return tuple(ast.literal_eval(node.value))
    raise ValueError(f"{file} has no REQUIREMENTS")
