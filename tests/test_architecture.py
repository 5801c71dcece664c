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
    "torch_tensorrt": ("backends/", "_compat/", "runtime.py"),
    "tensorrt": ("backends/", "_compat/", "runtime.py"),
    "tensorrt_rtx": ("backends/", "_compat/", "runtime.py"),
    "lightning": ("callback.py", "_compat/"),
    "pytorch_lightning": ("callback.py", "_compat/"),
    "lightning_trt_windows.callback": ("__init__.py",),
    "lightning_trt_windows.cli": ("__main__.py",),
}
"""What is imported, and the files or folders that may do it."""

STANDARD_LIBRARY_ONLY = (
    "errors.py",
    "shapes.py",
    "settings.py",
    "manifest.py",
    "artifact.py",
    "inspection.py",
    "cli.py",
)


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
    assert trespassers("capture.py", "import lightning.pytorch as pl")
    assert trespassers("export.py", "from lightning_trt_windows.callback import WindowsExport")
    assert trespassers("backends/new.py", "import torch_tensorrt") == []


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_the_middle_needs_the_standard_library_only(module: str) -> None:
    """At import: nothing but the standard library, and modules of ours that keep to it as well."""
    pending, seen = [module], set()
    while pending:
        current = pending.pop()
        seen.add(current)
        for name in imports(MODULES[current].read_text(encoding="utf-8"), at_import=True):
            top, _, rest = name.partition(".")
            if top != "lightning_trt_windows":
                assert top in sys.stdlib_module_names, f"{current}, which {module} needs, imports {name}"
                continue
            parts = rest.split(".")
            candidates = {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
            files = {file for c in candidates for file in (f"{c}.py", f"{c}/__init__.py") if file in MODULES}
            pending.extend(files - seen)


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
