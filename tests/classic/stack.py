"""Classic Torch-TensorRT and TensorRT's Python bindings as NVIDIA publishes them, without TensorRT itself.

TensorRT's libraries are not on PyPI, but its bindings and Torch-TensorRT are. With ``stand_in.c`` in the libraries'
place they import, and show what they really have: that is what the backend ``tensorrt`` is held to. Nothing is built
or run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAIRS", "Stack", "make_stack"]

PAIRS = {"2.11.0": "10.15.1.29", "2.12.1": "10.16.1.11", "2.13.0": "11.0.0.114", "2.14.0": "11.1.0.106"}
"""Torch-TensorRT, and a TensorRT that its metadata asks for."""
STUBS = "tensorrt-stubs==10.13.0.35.1"
_OTHERS = ("torch_tensorrt", "tensorrt")
"""Beginnings of names in site-packages that a stack has its own of."""


@dataclass(frozen=True)
class Stack:
    """One version, unpacked."""

    version: str
    """Of Torch-TensorRT."""
    tensorrt: str
    folder: Path

    @property
    def upstream(self) -> Path:
        """The package ``torch_tensorrt``."""
        return self.folder / "site" / "torch_tensorrt"

    @property
    def libraries(self) -> Path:
        """Where the stand-ins are."""
        return self.folder / "libraries"

    def run(self, script: Path, *arguments: str, given: str = "", torch: bool) -> str:
        """What ``script`` prints, in a Python whose TensorRT is this one; with ``torch`` it has PyTorch and Lightning.

        Raises:
            AssertionError: It failed; its output is the message.
        """
        places = [self.folder / "site", *([self._others()] if torch else []), Path(__file__).parents[2], script.parent]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "LD_LIBRARY_PATH": str(self.libraries),
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [sys.executable, "-S", str(script), *arguments]
        done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{script.name} {self.version}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def _others(self) -> Path:
        """Links to all that is installed here but Torch-TensorRT and TensorRT, which would go first."""
        folder = self.folder / "others"
        if not folder.exists():
            folder.mkdir()
            for path in Path(sysconfig.get_path("purelib")).iterdir():
                if not path.name.startswith(_OTHERS) and path.suffix != ".pth":
                    (folder / path.name).symlink_to(path)
        return folder


def make_stack(version: str, folder: Path) -> Stack:
    """Download and unpack, once; some megabytes."""
    stack = Stack(version, PAIRS[version], folder / version)
    site = stack.folder / "site"
    if not (site / "tensorrt").exists():
        site.mkdir(parents=True, exist_ok=True)
        for requirement in (f"torch-tensorrt=={version}", f"tensorrt-cu13-bindings=={stack.tensorrt}"):
            unpack(requirement, site)
        _compile_stand_ins(stack)
        (site / "tensorrt").mkdir()
        text = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
        (site / "tensorrt" / "__init__.py").write_text(text, encoding="utf-8")
    return stack


def unpack(requirement: str, site: Path) -> None:
    """Download one wheel and unpack it into ``site``."""
    wheels = site.parent / "wheels" / requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", requirement]
    subprocess.run([*command, "-d", str(wheels)], check=True, timeout=600)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(site)


def _compile_stand_ins(stack: Stack) -> None:
    stack.libraries.mkdir(exist_ok=True)
    major = stack.tensorrt.partition(".")[0]
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        library = f"lib{name}.so.{major}"
        source = str(Path(__file__).parent / "stand_in.c") if name == "nvinfer" else os.devnull
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(stack.libraries / library)]
        subprocess.run([*command, "-x", "c", source], check=True)
