"""What a manifest says about why a checkpoint was kept, from the state that ModelCheckpoint leaves in the file."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_trt_windows.checkpoints.reader import CheckpointFile, read_checkpoint, read_weights
from lightning_trt_windows.discovery.ranges import MOST_SIZES, counted
from lightning_trt_windows.errors import CheckpointError


class Scored(L.LightningModule):
    """Logs a score that gets worse, then better, then worse."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.net(batch[0]).mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("error", [-0.5, 2.0, -1.25][self.current_epoch] if not self.trainer.sanity_checking else 9.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> ModelCheckpoint:
    """The callback of a real run that has kept two of three checkpoints, and the last."""
    data = DataLoader(TensorDataset(torch.rand(4, 2)), batch_size=2)
    folder = tmp_path_factory.mktemp("run")
    best = ModelCheckpoint(folder, "{epoch}", monitor="error", mode="min", save_top_k=2, save_last=True)
    trainer = L.Trainer(
        max_epochs=3, callbacks=[best], logger=False, accelerator="cpu", enable_progress_bar=False, barebones=False
    )
    trainer.fit(Scored(), data, data)
    return best


@pytest.mark.parametrize("read", [read_weights, read_checkpoint])
def test_a_checkpoint_has_the_score_it_was_kept_for(kept: ModelCheckpoint, read: object) -> None:
    """Each its own, of either sign; also where nothing of the file's classes is imported."""
    assert len(kept.best_k_models) == 2
    for path, score in kept.best_k_models.items():
        (found,) = read(Path(path)).record().scores  # type: ignore[operator]
        assert (found.monitor, found.mode, found.value) == ("error", "min", score.item())


def test_a_checkpoint_kept_for_another_reason_has_none(kept: ModelCheckpoint) -> None:
    """The last one holds the state of the callback too, and was not kept for its score."""
    assert read_weights(Path(kept.last_model_path)).scores == ()


def test_a_manifest_lists_so_many_sizes_and_both_ends() -> None:
    """The most frequent ones, and what bounds the range."""
    from collections import Counter

    seen = Counter({size: 1000 - size for size in range(1, 501)})
    listed = counted(seen)
    assert len(listed) <= MOST_SIZES
    assert {"1", "2", "500"} <= listed.keys()
    assert "499" not in listed
    assert counted(Counter({4: 20, 1: 2})) == {"4": 20, "1": 2}


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether the values are those of a file, by what the kernel says of this process."""
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= address < end:
            return ".ckpt" in line
    return False


class TestMapped:
    """Weights that stay in the file."""

    def write(self, path: Path, value: float, **options: bool) -> None:
        """A checkpoint of one tensor."""
        state = {"weight": torch.full((300, 300), value)}
        torch.save({"state_dict": state, "epoch": 0, "global_step": 1}, path, **options)

    @pytest.mark.skipif(sys.platform != "linux", reason="names of open files are in /proc")
    def test_stays_in_the_file(self, tmp_path: Path) -> None:
        """The same numbers, hash and record; also when the name is given to another file before they are read."""
        path, other = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
        self.write(path, 1.0)
        self.write(other, 2.0)
        plain = read_weights(path)
        with CheckpointFile(path, is_mapped=True) as file:
            sha256 = file.sha256
            other.replace(path)
            tensor = file.weights.state_dict["weight"]
            assert is_mapped(tensor)
            assert tensor.equal(plain.state_dict["weight"])
            assert file.weights.record() == plain.record()
            assert sha256 == plain.sha256
            file.check_unchanged()
        assert not is_mapped(plain.state_dict["weight"])

    @pytest.mark.skipif(sys.platform != "linux", reason="weights are read elsewhere")
    def test_written_to_meanwhile(self, tmp_path: Path) -> None:
        """What was made of such a file is refused, and where the weights had been read it is not."""
        path = tmp_path / "a.ckpt"
        self.write(path, 1.0)
        with CheckpointFile(path, is_mapped=True) as file, CheckpointFile(path) as read:
            assert file.weights.state_dict["weight"].numel() == read.weights.state_dict["weight"].numel()
            with path.open("r+b") as written:
                written.seek(2000)
                written.write(b"other")
            read.check_unchanged()
            with pytest.raises(CheckpointError, match="written to while it was exported"):
                file.check_unchanged()

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    def test_older_format(self, tmp_path: Path) -> None:
        """It cannot be mapped, and is read."""
        path = tmp_path / "a.ckpt"
        self.write(path, 3.0, _use_new_zipfile_serialization=False)
        with CheckpointFile(path, is_mapped=True) as file:
            assert file.weights.state_dict["weight"].unique().tolist() == [3.0]
            assert not is_mapped(file.weights.state_dict["weight"])
