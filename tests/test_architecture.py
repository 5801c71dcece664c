"""Who may import whom: the rule that lets an artifact be inspected anywhere and keeps upstream behind two doors."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_trt_windows

PACKAGE = Path(lightning_trt_windows.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}

DOORS = {
    "torch_tensorrt": ("backends/", "_compat/", "runtime/loading.py"),
    "tensorrt": ("backends/", "_compat/", "runtime/loading.py"),
    "tensorrt_rtx": ("backends/", "_compat/", "runtime/loading.py"),
    "lightning": ("callback.py", "lightning_cli.py", "lightning_flag.py", "_compat/"),
    "pytorch_lightning": ("callback.py", "_compat/"),
    "mlflow": ("loggers/",),
    "wandb": ("loggers/",),
    "comet_ml": ("loggers/",),
    "fsspec": ("storage.py",),
    "psutil": ("builds/",),
    "pybase64": ("artifact/payload_reader.py",),
    "lightning_trt_windows.training.callback": ("__init__.py", "lightning_flag.py", "settings_file.py"),
    "lightning_trt_windows.integrations.yaml_config": ("factory.py",),
    "lightning_trt_windows.cli": ("__main__.py", "cli/"),
}
"""What is imported, and the files or folders that may do it."""

STANDARD_LIBRARY_ONLY = (
    "errors.py",
    "shapes.py",
    "settings.py",
    "range_options.py",
    "manifest.py",
    "artifact.py",
    "inspection.py",
    "storage.py",
    "remote_artifact.py",
    "destination.py",
    "index.py",
    "loggers/record.py",
    "bundle/collecting.py",
    "bundle/huggingface.py",
    "bundle/reading.py",
    "archive.py",
    "stages.py",
    "standings.py",
    "executor_names.py",
    "noise.py",
    "engine_header.py",
    "signature.py",
    "factory.py",
    "verification/result.py",
    "verification/verify.py",
    "capture/constraint_fixes.py",
    "cli/__init__.py",
)

WINDOWS_HALF = (
    "runtime/loading.py",
    "inspection.py",
    "bundle/collecting.py",
    "bundle/huggingface.py",
    "bundle/reading.py",
    "signature.py",
    "verification/verify.py",
    "verification/metric.py",
)
"""What a Windows machine runs, and all that it needs ..."""

LINUX_HALF = (
    "capture/",
    "export.py",
    "callback.py",
    "following.py",
    "reporting.py",
    "many.py",
    "preflight.py",
    "lightning_cli.py",
    "lightning_flag.py",
    "settings_file.py",
    "builds/",
    "checkpoint.py",
    "observe/",
    "backends/",
)
"""... has none of these: they need Lightning or Torch-TensorRT."""


def imports(source: str, *, at_import: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; ``at_import`` leaves out what functions and type checkers import."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute in this package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            types_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if not (at_import and (function or types_only)):
                pending.append(child)


def trespassers(module: str, source: str) -> list[str]:
    """Imports that ``module`` may not have."""
    found = []
    for name in imports(source):
        for guarded, doors in DOORS.items():
            if (name == guarded or name.startswith(f"{guarded}.")) and not module.startswith(doors):
                found.append(f"{module} imports {name}, which only {', '.join(doors)} may")
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_upstream_is_imported_behind_its_doors_only(module: str) -> None:
    """Torch-TensorRT in backends and workarounds, Lightning in the callback; nobody imports the callback or the CLI."""
    if module == "__init__.py":  # its imports are for type checkers: it loads each name when it is asked for
        return
    assert trespassers(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_trespassers_are_found() -> None:
    """The rule above is able to fail, inside functions too."""
    assert trespassers("export.py", "import torch\ndef f():\n    from torch_tensorrt.dynamo import compile")
    assert trespassers("capture/program.py", "import lightning.pytorch as pl")
    assert trespassers("export.py", "from lightning_trt_windows.training.callback import WindowsExport")
    assert trespassers("backends/new.py", "import torch_tensorrt") == []


def needed_by(module: str, *, at_import: bool = False) -> Iterator[tuple[str, str]]:
    """Every import of ``module`` and of the modules of ours that it needs, each with the file that has it."""
    pending, seen = [module], {module}
    while pending:
        current = pending.pop()
        for name in imports(MODULES[current].read_text(encoding="utf-8"), at_import=at_import):
            yield current, name
            top, _, rest = name.partition(".")
            if top == "lightning_trt_windows":
                files = set(files_of(rest)) - seen
                seen |= files
                pending.extend(files)


def files_of(dotted: str) -> Iterator[str]:
    """The files of ours that ``dotted`` may name: the module, or the one that its last part stands in."""
    parts = dotted.split(".")
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        yield from (file for file in (f"{path}.py", f"{path}/__init__.py") if file in MODULES)


@pytest.mark.parametrize("module", WINDOWS_HALF)
def test_the_windows_half_needs_nothing_of_the_linux_half(module: str) -> None:
    """Loading and looking need neither Lightning nor Torch-TensorRT, not even inside a function."""
    for current, name in needed_by(module):
        for file in files_of(name.removeprefix("lightning_trt_windows.")):
            assert not file.startswith(LINUX_HALF), f"{current}, which {module} needs, imports {name}"
        upstream = name.partition(".")[0] in ("lightning", "pytorch_lightning", "torch_tensorrt")
        assert not upstream, f"{current}, which {module} needs, imports {name}"


def test_crossing_the_halves_is_found() -> None:
    """The rule above is able to fail: the callback needs the Linux half."""
    with pytest.raises(AssertionError, match=r"which callback\.py needs, imports"):
        test_the_windows_half_needs_nothing_of_the_linux_half("callback.py")


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_the_middle_needs_the_standard_library_only(module: str) -> None:
    """At import: nothing but the standard library, and modules of ours that keep to it as well."""
    for current, name in needed_by(module, at_import=True):
        top = name.partition(".")[0]
        known = top == "lightning_trt_windows" or top in sys.stdlib_module_names
        assert known, f"{current}, which {module} needs, imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_says_what_it_offers(module: str) -> None:
    """A docstring, and ``__all__`` where there is something to offer."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assigned = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
    defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert "__all__" in assigned or all(name.startswith("_") for name in defined)


def test_every_public_name_is_there() -> None:
    """``__all__`` of the package resolves, and ``dir`` shows it."""
    for name in lightning_trt_windows.__all__:
        home = importlib.import_module(getattr(lightning_trt_windows, name).__module__)
        assert getattr(home, name) is getattr(lightning_trt_windows, name)
    assert set(lightning_trt_windows.__all__) <= set(dir(lightning_trt_windows))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lightning_trt_windows.nothing  # noqa: B018 -- the access is what is tested
