"""Who may import whom: the rule that lets an artifact be inspected anywhere and keeps upstream behind two doors."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import TESTS
from support.tested_in import TESTED_IN

import lightning_trt_windows

PACKAGE = Path(lightning_trt_windows.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}

LAYERS = (
    "integrations",
    "cli",
    "training",
    "builds",
    "export",
    "capture",
    "verification",
    "backends",
    "network",
    "mlflow",
    "onnx",
    "runtime",
    "discovery",
    "checkpoints",
    "bundle",
    "loggers",
    "_compat",
    "modules",
    "progress",
    "storage",
    "artifact",
    "settings",
    "errors",
)
"""The rooms from the top down. A room imports only what stands below it, inside functions and for types as well."""

FACE = ("__init__", "__main__")
"""The public face stands above all rooms, and nothing imports it."""

DOORS = {
    "torch_tensorrt": ("backends/", "_compat/", "runtime/loading.py"),
    "tensorrt": ("backends/", "_compat/", "runtime/loading.py"),
    "tensorrt_rtx": ("backends/", "_compat/", "runtime/loading.py"),
    "lightning": ("training/callback.py", "integrations/", "_compat/"),
    "pytorch_lightning": ("training/callback.py", "_compat/"),
    "mlflow": ("loggers/", "mlflow/"),
    "wandb": ("loggers/",),
    "comet_ml": ("loggers/",),
    "fsspec": ("storage/remote_file.py",),
    "model_signing": ("artifact/openssf.py",),
    "psutil": ("builds/",),
    "onnx": ("onnx/",),
    "huggingface_hub": ("bundle/model_card.py", "bundle/hub_push.py"),
    "pybase64": ("artifact/payload_reader.py",),
    "lightning_trt_windows.training.callback": ("__init__.py", "integrations/"),
    "lightning_trt_windows.integrations.yaml_config": ("integrations/autoload.py",),
    "lightning_trt_windows.cli": ("__main__.py", "cli/"),
}
"""What is imported, and the files or folders that may do it."""

STANDARD_LIBRARY_ONLY = (
    "errors.py",
    "settings.py",
    "artifact/",
    "storage/",
    "progress/events.py",
    "progress/upstream_output.py",
    "discovery/options.py",
    "loggers/record.py",
    "bundle/collecting.py",
    "bundle/hub_push.py",
    "bundle/huggingface.py",
    "bundle/reading.py",
    "onnx/",
    "builds/executors/names.py",
    "integrations/autoload.py",
    "verification/result.py",
    "verification/verify.py",
    "capture/constraint_fixes.py",
    "cli/__init__.py",
    "checkpoints/metadata.py",
)
"""Files and rooms that need nothing but Python when they are imported."""

WINDOWS_HALF = (
    "mlflow/flavor.py",
    "runtime/loading.py",
    "artifact/inspection.py",
    "artifact/signing.py",
    "bundle/collecting.py",
    "bundle/huggingface.py",
    "bundle/reading.py",
    "verification/verify.py",
    "verification/metric.py",
)
"""What a Windows machine runs, and all that it needs ..."""

LINUX_HALF = (
    "integrations/",
    "training/",
    "builds/",
    "export/",
    "capture/",
    "backends/",
    "network/",
    "discovery/",
    "checkpoints/",
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
    assert trespassers("export/job.py", "import torch\ndef f():\n    from torch_tensorrt.dynamo import compile")
    assert trespassers("capture/program.py", "import lightning.pytorch as pl")
    assert trespassers("export.py", "from lightning_trt_windows.training.callback import WindowsExport")
    assert trespassers("backends/new.py", "import torch_tensorrt") == []


def room_of(module: str) -> str:
    """The room that a file stands in: its folder, or its own name at the top."""
    return module.partition("/")[0].removesuffix(".py")


def rooms_imported(source: str) -> Iterator[tuple[str, str]]:
    """Each import of ours in ``source``, wherever it stands, with its room."""
    for name in imports(source):
        top, _, rest = name.partition(".")
        if top == "lightning_trt_windows":
            room = rest.partition(".")[0]
            yield room if room in LAYERS else "__init__", name


def climbers(module: str, source: str) -> list[str]:
    """Imports of ``module`` that go to a room which does not stand below its own."""
    own = room_of(module)
    if own in FACE:
        return []
    floor = LAYERS.index(own)
    return [
        f"{module} imports {name}, but {room} does not stand below {own}"
        for room, name in rooms_imported(source)
        if room != own and (room in FACE or LAYERS.index(room) <= floor)
    ]


def test_every_room_has_its_floor() -> None:
    """Folders and files at the top are in the table or are the public face; no room in the table is gone."""
    rooms = {room_of(module) for module in MODULES}
    assert rooms == {*LAYERS, *FACE}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_import_only_what_stands_below_them(module: str) -> None:
    """No import goes up, so no two rooms import each other; lazy and type-only imports count."""
    assert climbers(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_climbing_is_found() -> None:
    """The rule above is able to fail: at the top of a file, in a function, for types, and by way of the public face."""
    assert climbers("artifact/files.py", "from lightning_trt_windows.storage.remote_file import RemoteFile")
    lazily = "def f():\n    from lightning_trt_windows.export.job import Job"
    assert climbers("capture/goldens.py", lazily)
    for_types = "if TYPE_CHECKING:\n    from lightning_trt_windows.training import options"
    assert climbers("builds/batch.py", for_types)
    assert climbers("builds/batch.py", "import lightning_trt_windows.training.options")
    assert climbers("cli/export.py", "from lightning_trt_windows import export_module")
    assert climbers("training/session.py", "from lightning_trt_windows.builds.queue import Failure") == []


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
    with pytest.raises(AssertionError, match=r"which training/callback\.py needs, imports"):
        test_the_windows_half_needs_nothing_of_the_linux_half("training/callback.py")


@pytest.mark.parametrize("module", [module for module in sorted(MODULES) if module.startswith(STANDARD_LIBRARY_ONLY)])
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


def test_every_module_has_a_test_file() -> None:
    """Of its own name in the same room, or one that a table names."""

    def own(module: str) -> Path:
        place = Path(module)
        return TESTS / place.parent / f"test_{place.name.removeprefix('_')}"

    without = {
        name for name in MODULES if Path(name).name not in ("__init__.py", "__main__.py") and not own(name).exists()
    }
    assert without == set(TESTED_IN), sorted(without ^ set(TESTED_IN))
    assert [file for file in TESTED_IN.values() if not (TESTS / file).exists()] == []
