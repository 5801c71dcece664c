"""What people read when something is wrong with what they have: one test for each likely fault."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from support.lightning_models import Data, Regression, Untraceable, trainer
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_checkpoint, export_module
from lightning_trt_windows.backends import get_backend
from lightning_trt_windows.checkpoints.reader import CheckpointFile
from lightning_trt_windows.errors import (
    CaptureError,
    CheckpointError,
    ConfigurationError,
    EnvironmentMismatchError,
    OutputError,
)

INPUTS = {"x": InputSpec((DimRange(1, 4, 16, name="batch"), 4))}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions that distributions claim to have; change the dict to change what looks installed."""
    real = importlib.metadata.version
    claims: dict[str, str | None] = {}

    def version(name: str) -> str:
        claim = claims.get(name, "")
        if claim is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return claim or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return claims


class TestEnvironment:
    """Packages that are missing, doubled or do not fit."""

    def test_torch_tensorrt_missing(self, installed: dict[str, str | None]) -> None:
        """Says which distribution is wanted and how to install it."""
        installed["torch-tensorrt-rtx"] = None
        with pytest.raises(EnvironmentMismatchError, match=r"torch-tensorrt-rtx, which is not installed.*\[rtx\]"):
            get_backend("auto")

    def test_both_distributions(self, installed: dict[str, str | None]) -> None:
        """Says that they overwrite each other, and how to have one."""
        installed["torch-tensorrt"] = "2.14.0"
        with pytest.raises(EnvironmentMismatchError, match=r"Both .* overwrite each other's files.*pip uninstall"):
            get_backend("tensorrt_rtx")

    def test_the_other_distribution(self, installed: dict[str, str | None]) -> None:
        """Says what is installed instead of what was asked for."""
        with pytest.raises(EnvironmentMismatchError, match=r"needs the distribution torch-tensorrt,.*Installed is"):
            get_backend("tensorrt")

    def test_wrong_torch(self, installed: dict[str, str | None]) -> None:
        """Says which PyTorch the installed Torch-TensorRT was built for."""
        installed["torch"] = "2.9.1"
        with pytest.raises(
            EnvironmentMismatchError, match=r"built for PyTorch 2\.\d+\.\*, installed is PyTorch 2\.9\.1"
        ):
            get_backend("auto")

    def test_cpu_only_torch(self, installed: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
        """Says that the build is wanted, not a GPU, where a release cannot do without; later ones can."""
        monkeypatch.setattr(torch.version, "cuda", None)
        installed["torch"] = installed["torch-tensorrt-rtx"] = "2.12.1"
        with pytest.raises(EnvironmentMismatchError, match=r"CPU-only build.*no GPU is needed, but the build is"):
            get_backend("auto")
        installed["torch"] = installed["torch-tensorrt-rtx"] = "2.13.0"
        assert get_backend("auto").name == "tensorrt_rtx"


class TestModel:
    """Modules that cannot be exported, or only in part."""

    def test_untraceable(self, tmp_path: Path) -> None:
        """Names the line with the data-dependent control flow."""
        with pytest.raises(CaptureError, match=r"Untraceable\.forward at lightning_models\.py:\d+ \(if x\.sum\(\) >"):
            export_module(Untraceable(), INPUTS, tmp_path / "m.windows.ep")

    def test_operator_that_tensorrt_lacks(self, tmp_path: Path) -> None:
        """It stays in PyTorch and is listed in the manifest."""

        class Module(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) + torch.linalg.svdvals(x.unsqueeze(-1))

        artifact = export_module(Module(4, 4), INPUTS, tmp_path / "m.windows.ep")
        assert artifact.manifest.fallback_ops == ("aten._linalg_svd.default",)

    def test_no_parameters(self, tmp_path: Path) -> None:
        """A module without parameters is a model like any other."""

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.softmax(-1)

        assert export_module(Module(), INPUTS, tmp_path / "m.windows.ep").manifest.engines

    def test_unknown_setting(self, tmp_path: Path) -> None:
        """A misspelt setting is refused with those there are."""
        with pytest.raises(ConfigurationError, match="unknown setting precison; known are backend, precision"):
            export_module(Regression(), INPUTS, tmp_path / "m.windows.ep", precison="16")


class TestCheckpoint:
    """Checkpoints that are not what they should be."""

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        """A checkpoint of :class:`Regression`."""
        run = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
        run.fit(Regression(), datamodule=Data())
        run.save_checkpoint(tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    def test_does_not_fit(self, checkpoint: Path) -> None:
        """Weights of another architecture: the layers are named."""

        class Wider(Regression):
            def __init__(self, width: int = 8, lr: float = 0.1) -> None:
                super().__init__(width + 1, lr)

        with pytest.raises(CheckpointError, match=r"(?s)a\.ckpt.*do not fit Wider.*net\.0\.weight"):
            export_checkpoint(checkpoint, Wider, inputs=INPUTS)

    def test_missing(self, tmp_path: Path) -> None:
        """No such file."""
        with pytest.raises(CheckpointError, match=r"there is no checkpoint .*none\.ckpt"):
            export_checkpoint(tmp_path / "none.ckpt", Regression)

    def test_truncated(self, checkpoint: Path) -> None:
        """Half a file."""
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match=r"a\.ckpt \(1000 bytes\) cannot be read as a checkpoint"):
            export_checkpoint(checkpoint, Regression)

    def test_deleted_while_it_is_read(self, tmp_path: Path) -> None:
        """As ``save_top_k`` does: what is wrong with the open file is still said in our own error."""
        path = tmp_path / "a.ckpt"
        path.write_bytes(b"hi\n")
        with CheckpointFile(path) as file:
            assert file.sha256
            path.unlink()
            with pytest.raises(CheckpointError, match=r"a\.ckpt \(3 bytes\) cannot be read as a checkpoint"):
                file.read(trusted=True)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"a\.ckpt is empty: was the disk full"),
            (b"hi\n", r"a\.ckpt \(3 bytes\) cannot be read as a checkpoint: expected a file that .* \(KeyError"),
            (b"PK\x03\x04", r"a\.ckpt \(4 bytes\) cannot be read as a checkpoint"),
        ],
    )
    def test_no_checkpoint_at_all(self, tmp_path: Path, content: bytes, message: str) -> None:
        """An empty file, a text, the start of a zip."""
        (tmp_path / "a.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            export_checkpoint(tmp_path / "a.ckpt", Regression)

    def test_not_lightning(self, tmp_path: Path) -> None:
        """A bare state_dict is not a checkpoint."""
        torch.save({"weight": torch.zeros(1)}, tmp_path / "a.ckpt")
        with pytest.raises(
            CheckpointError, match=r"found a dict with weight. It seems to be a bare state_dict: .*export_module"
        ):
            export_checkpoint(tmp_path / "a.ckpt", Regression)

    def test_code_inside(self, checkpoint: Path) -> None:
        """A checkpoint that would run code is refused, naming what; it is read when trusted."""
        content = torch.load(checkpoint, weights_only=True)
        content["mine"] = Path("a")
        torch.save(content, checkpoint)
        with pytest.raises(CheckpointError, match=r"pathlib\..*trust_checkpoint=True"):
            export_checkpoint(checkpoint, Regression, inputs=INPUTS)
        assert export_checkpoint(checkpoint, Regression, inputs=INPUTS, trust_checkpoint=True).manifest.engines

    def test_plain_module(self, checkpoint: Path) -> None:
        """A class that is no LightningModule is refused with the way to go."""
        with pytest.raises(ConfigurationError, match=r"Linear is not a LightningModule.*export_module"):
            export_checkpoint(checkpoint, nn.Linear)


class TestDestination:
    """Places that cannot be written to."""

    def test_no_such_directory(self, tmp_path: Path) -> None:
        """Says which directory to create."""
        with pytest.raises(OutputError, match=r"the directory .*nowhere does not exist"):
            export_module(Regression(), INPUTS, tmp_path / "nowhere" / "m.windows.ep")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_not_allowed(self, tmp_path: Path) -> None:
        """Says that there is no permission."""
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="no permission to write"):
            export_module(Regression(), INPUTS, tmp_path / "m.windows.ep")

    def test_disk_full(self, tmp_path: Path) -> None:
        """On a real file system of 100 kB: says that there is no space, and leaves nothing behind."""
        script = textwrap.dedent("""
            import sys, torch
            from lightning_trt_windows import DimRange, InputSpec, export_module
            from lightning_trt_windows.errors import OutputError
            inputs = {"input": InputSpec((DimRange(1, 4, 16), 64))}
            try:
                export_module(torch.nn.Linear(64, 512), inputs, sys.argv[1] + "/m.windows.ep")
            except OutputError as error:
                print("REFUSED", error)
        """)
        command = (
            f'mount -t tmpfs -o size=100k none "{tmp_path}" && "{sys.executable}" - "{tmp_path}"; ls -A "{tmp_path}"'
        )
        run = subprocess.run(
            ["unshare", "-rm", "sh", "-c", command], input=script, capture_output=True, text=True, check=False
        )
        if "mount" in run.stderr or "unshare" in run.stderr:
            pytest.skip(f"no private file system can be mounted here: {run.stderr.strip().splitlines()[-1]}")
        assert "REFUSED" in run.stdout, run.stderr
        assert "no space left on the device" in run.stdout
        assert run.stdout.strip().splitlines()[-1].startswith("REFUSED"), "something was left behind"
