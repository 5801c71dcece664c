"""What importing costs, measured in processes of their own; and that the measurements are able to fail."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.paths import DATA

HEAVY = ("torch", "torch_tensorrt", "tensorrt", "tensorrt_rtx", "lightning", "pytorch_lightning", "numpy")

NO_TORCH = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy}:
            raise ImportError(f"{{name}} is refused here")
sys.meta_path.insert(0, Refuse())
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def heavy_after(statement: str) -> list[str]:
    """Which heavy packages are loaded once ``statement`` has run."""
    done = python(f"import sys\n{statement}\nprint(*[name for name in {HEAVY} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import lightning_trt_windows",
        "from lightning_trt_windows import DimRange, InputSpec, inspect",
        "import lightning_trt_windows.artifact.artifact, lightning_trt_windows.settings",
        "import lightning_trt_windows.artifact.payload_writer",
        "import lightning_trt_windows.cli",
    ],
)
def test_the_middle_brings_nothing_heavy(statement: str) -> None:
    """Neither torch nor Lightning nor Torch-TensorRT, nor what comes with them."""
    assert heavy_after(statement) == []


def test_heavy_imports_would_be_seen() -> None:
    """The test above is able to fail."""
    assert "torch" in heavy_after("import lightning_trt_windows.export.pipeline")


@pytest.mark.linux("imports Lightning")
def test_the_callback_does_not_bring_torch_tensorrt() -> None:
    """Five seconds that only a compile may cost."""
    loaded = heavy_after("from lightning_trt_windows import WindowsExport")
    assert "torch" in loaded
    assert not {"torch_tensorrt", "tensorrt", "tensorrt_rtx"} & set(loaded)


@pytest.mark.linux("imports Lightning")
def test_the_import_costs_a_training_script_nothing() -> None:
    """At most 30 ms on top of Lightning's own import: best of three, since other work disturbs."""
    code = (
        "import lightning.pytorch, time\n"
        "start = time.perf_counter()\n"
        "import lightning_trt_windows\n"
        "print(time.perf_counter() - start)\n"
    )
    costs = []
    for _ in range(3):
        done = python(code)
        assert done.returncode == 0, done.stderr
        costs.append(float(done.stdout.splitlines()[-1]))
        if costs[-1] < 0.03:
            return
    pytest.fail(f"import lightning_trt_windows took {costs} seconds")


def test_inspect_works_where_there_is_no_torch() -> None:
    """On a colleague's laptop: nothing but Python."""
    code = (
        NO_TORCH.format(heavy=HEAVY)
        + "from lightning_trt_windows.cli import main\nsys.exit(main(['inspect', sys.argv[1], '--check']))"
    )
    done = python(code, str(DATA / "tiny.windows.ep"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "TensorRT-RTX engines for Windows" in done.stdout


def test_torch_is_really_refused_there() -> None:
    """The test above is able to fail."""
    done = python(NO_TORCH.format(heavy=HEAVY) + "import lightning_trt_windows.export.pipeline")
    assert done.returncode == 1
    assert "torch is refused here" in done.stderr


def test_plain_modules_need_no_lightning() -> None:
    """``export_module`` and ``load`` are for any module; only the callback is for Lightning."""
    refused = NO_TORCH.format(heavy=("lightning", "pytorch_lightning"))
    done = python(f"{refused}\nfrom lightning_trt_windows import export_module, export_checkpoint, load")
    assert done.returncode == 0, done.stderr
