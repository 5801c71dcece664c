"""pyannote.audio: segmentation of speech; the model makes its own layers when training begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import numpy
import pyannote.audio.core.io
import scipy.io.wavfile
import torch
from pyannote.audio.models.segmentation import PyanNet
from pyannote.audio.tasks import SpeakerDiarization, VoiceActivityDetection
from pyannote.database import registry
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("pyannote.audio==4.0.7",)

SECONDS = 12


class WaveDecoder:
    """Reads what is generated here, in place of torchcodec's decoder, which needs FFmpeg on the machine."""

    def __init__(self, path: Any) -> None:
        rate, samples = scipy.io.wavfile.read(path)
        self.samples = torch.from_numpy(samples.astype("float32") / 32768)[None]
        seconds = len(samples) / rate
        self.metadata = SimpleNamespace(sample_rate=rate, duration_seconds_from_header=seconds, num_channels=1)

    def get_samples_played_in_range(self, start: float, end: float) -> SimpleNamespace:
        """A chunk."""
        rate = self.metadata.sample_rate
        return SimpleNamespace(data=self.samples[:, round(start * rate) : round(end * rate)], sample_rate=rate)


pyannote.audio.core.io.AudioDecoder = WaveDecoder
pyannote.audio.core.io.TORCHCODEC_AVAILABLE = True


def _protocol(folder: Path) -> Any:
    random = numpy.random.default_rng(1)
    for part in ("train", "dev"):
        for number in range(2):
            noise = (random.standard_normal(SECONDS * 16000) * 3000).astype("int16")
            scipy.io.wavfile.write(folder / f"{part}{number}.wav", 16000, noise)
        names = [f"{part}{number}" for number in range(2)]
        (folder / f"{part}.lst").write_text("".join(f"{name}\n" for name in names))
        (folder / f"{part}.uem").write_text("".join(f"{name} 1 0.0 {SECONDS}.0\n" for name in names))
        speech = [f"SPEAKER {name} 1 {at}.0 3.0 <NA> <NA> s{at} <NA> <NA>\n" for name in names for at in (1, 6)]
        (folder / f"{part}.rttm").write_text("".join(speech))
    parts = "".join(
        f"        {subset}:\n          uri: {part}.lst\n"
        f"          annotation: {part}.rttm\n          annotated: {part}.uem\n"
        for subset, part in (("train", "train"), ("development", "dev"))
    )
    (folder / "database.yml").write_text(
        "Databases:\n  Generated: ./{uri}.wav\nProtocols:\n  Generated:\n    SpeakerDiarization:\n      Small:\n"
        "        scope: file\n" + parts
    )
    registry.load_database(folder / "database.yml")
    from pyannote.database import FileFinder

    return registry.get_protocol("Generated.SpeakerDiarization.Small", preprocessors={"audio": FileFinder()})


def _fit(task: Any, callbacks: list[Any], folder: Path) -> nn.Module:
    made = PyanNet(task=task, lstm={"hidden_size": 16}, linear={"hidden_size": 16})
    L.Trainer(**options(callbacks, folder, max_epochs=1, limit_train_batches=2, limit_val_batches=1)).fit(made)
    return made


@model()
def voice_activity(callbacks: list[Any], folder: Path) -> nn.Module:
    """Speech or not, chunks of 2 seconds."""
    return _fit(VoiceActivityDetection(_protocol(folder), batch_size=4, num_workers=0), callbacks, folder)


@model()
def speaker_diarization(callbacks: list[Any], folder: Path) -> nn.Module:
    """Who speaks when, chunks of 10 seconds."""
    task = SpeakerDiarization(_protocol(folder), duration=10.0, batch_size=2, num_workers=0)
    return _fit(task, callbacks, folder)
