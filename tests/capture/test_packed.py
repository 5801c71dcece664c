"""Packed sequences: no trace knows their sizes; the refusal says what to do instead, which works."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.simulation import partitions_kept
from support.stand_in import StandIn
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.errors import CaptureError

STEPS, BATCH = DimRange(2, 6, 11, name="steps"), DimRange(1, 3, 5, name="batch")
INPUTS = {"x": InputSpec((BATCH, STEPS, 4)), "lengths": InputSpec((BATCH,), dtype="int64")}


class Packs(nn.Module):
    """Both directions, of which the second one needs to know where a sequence ends."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.LSTM(4, 5, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.net(packed)[0], batch_first=True)[0]


class PacksInTraining(Packs):
    """As the refusal says."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self.net(x)[0]
        return super().forward(x, lengths)


def test_the_refusal_names_the_line_and_a_way_on(tmp_path: Path) -> None:
    """Where it is packed, and what to write."""
    wanted = r"test_packed\.py:\d+ \(packed = pack_padded_sequence.*if not torch\.compiler\.is_exporting\(\)"
    with pytest.raises(CaptureError, match=wanted):
        export_module(Packs().eval(), INPUTS, tmp_path / "m.windows.ep")


def test_the_way_on_gives_the_same_numbers(tmp_path: Path) -> None:
    """Sequences of one length at a time, each as it comes out of the batch that was packed."""
    torch.manual_seed(0)
    module, x, lengths = PacksInTraining().eval(), torch.randn(3, 9, 4), torch.tensor([9, 2, 5])
    with partitions_kept() as partitions:
        artifact = export_module(module, INPUTS, tmp_path / "m.windows.ep")
    assert (len(artifact.manifest.engines), artifact.manifest.fallback_ops) == (1, ())
    loaded = StandIn(artifact, partitions).load()
    with torch.no_grad():
        wanted = module(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        found = loaded(x[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(found[0], wanted[row, :length])
