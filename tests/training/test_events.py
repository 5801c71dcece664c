"""Outcomes are told to every listener, whatever the others do."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only
from support.paths import TESTS

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.manifest import CheckpointRecord
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.training.events import Events, Listener
from lightning_trt_windows.training.guard import Guard
from lightning_trt_windows.training.outcomes import Outcomes
from lightning_trt_windows.training.publisher import Publisher


class Hears(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_artifact(self, artifact: Artifact) -> None:
        self.told.append(artifact)

    def on_failure(self, checkpoint: Any, error: Exception) -> None:
        self.told.append((checkpoint, error))

    def on_removed(self, ep: Path, checkpoint: Any) -> None:
        self.told.append((ep, checkpoint))

    def on_finished(self) -> None:
        self.told.append("finished")


class Fails(Listener):
    """Raises whatever it is told."""

    def on_artifact(self, artifact: Artifact) -> None:
        raise MemoryError("full")

    def on_finished(self) -> None:
        raise OSError("gone")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """One that stands in ``tmp_path``."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        (tmp_path / name).write_bytes((TESTS / "data" / name).read_bytes())
    return read_artifact(tmp_path / "tiny.windows.ep")


def test_every_listener_hears(artifact: Artifact, tmp_path: Path) -> None:
    """Those that come after one that fails, too; the failure is one of its own."""
    failures: list[Any] = []
    hears = Hears()
    events = Events(Guard(lambda *failure: failures.append(failure)), [Fails()])
    events.add(hears)
    error = CaptureError("no")
    events.on_artifact(artifact)
    events.on_failure(tmp_path / "a.ckpt", error)
    events.on_removed(artifact.path, tmp_path / "a.ckpt")
    events.on_finished()
    assert hears.told == [artifact, (tmp_path / "a.ckpt", error), (artifact.path, tmp_path / "a.ckpt"), "finished"]
    assert [type(error) for _, error in failures] == [MemoryError, OSError]


@pytest.fixture(autouse=True)
def rank_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a Trainer has been made, without which Lightning tells nobody anything."""
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)


class TestOutcomes:
    """What came of the exports."""

    def test_newest_last(self, artifact: Artifact) -> None:
        """An artifact that is made again takes the place of the older one; one that was deleted is none."""
        outcomes = Outcomes("warn")
        outcomes.begin()
        other = Artifact(artifact.path.with_name("other.windows.ep"), artifact.manifest)
        for made in (artifact, other, artifact):
            outcomes.on_artifact(made)
        assert outcomes.artifacts == [other, artifact]
        outcomes.on_removed(other.path, Path("other.ckpt"))
        assert outcomes.artifacts == [artifact]
        outcomes.begin()
        assert (outcomes.artifacts, outcomes.count) == ([artifact], 0)

    def test_in_the_order_of_their_checkpoints(self, artifact: Artifact) -> None:
        """Builds that run at the same time end in any order: the last artifact is that of the newest checkpoint."""

        def at(step: int | None) -> Artifact:
            record = (
                None if step is None else CheckpointRecord(file="a.ckpt", sha256="0" * 64, epoch=0, global_step=step)
            )
            path = artifact.path.with_name(f"{step}.windows.ep")
            return Artifact(path, replace(artifact.manifest, checkpoint=record))

        outcomes = Outcomes("warn")
        outcomes.begin()
        outcomes.on_artifact(at(50))
        outcomes.begin()  # an earlier run's stay before those of this one
        for step in (20, None, 10, 30):
            outcomes.on_artifact(at(step))
        names = [a.path.name.partition(".")[0] for a in outcomes.artifacts]
        assert names == ["50", "10", "20", "30", "None"]
        assert outcomes.new_artifacts == outcomes.artifacts[1:]

    @pytest.mark.parametrize("on_error", ["warn", "raise"])
    def test_failures(self, on_error: str) -> None:
        """A warning at once, or none, where the callback raises it later."""
        outcomes = Outcomes(on_error)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            outcomes.on_failure(Path("a.ckpt"), CaptureError("no"))
        assert len(outcomes.new_failures) == 1
        assert len(told) == (on_error == "warn")

    def test_warnings_that_are_errors(self, caplog: pytest.LogCaptureFixture) -> None:
        """``python -W error`` is no reason to end a training; what would have been said is logged."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Outcomes("warn").on_failure(Path("a.ckpt"), CaptureError("no"))
        assert "no Windows artifact for a.ckpt" in caplog.text


class TestPublisher:
    """The index of a directory."""

    @pytest.mark.parametrize(
        "content", ["{", json.dumps({"format_version": "1.0", "artifacts": 3})], ids=["cut", "int"]
    )
    def test_an_index_that_is_damaged(self, artifact: Artifact, content: str, tmp_path: Path) -> None:
        """It is made again from the manifests."""
        (tmp_path / "artifacts.json").write_text(content)
        self.publisher().on_artifact(artifact)
        (entry,) = json.loads((tmp_path / "artifacts.json").read_text())["artifacts"]
        assert entry["file"] == "tiny.windows.ep"

    def test_an_index_of_wrong_types(self, artifact: Artifact, tmp_path: Path) -> None:
        """Edited by hand: at most a warning."""
        entry = {"file": "a.windows.ep", "size": 1, "manifest": "a.windows.json", "manifest_sha256": "0"}
        content = {"format_version": "1.0", "artifacts": [{**entry, "global_step": "100"}]}
        (tmp_path / "artifacts.json").write_text(json.dumps(content))
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            self.publisher().on_artifact(artifact)

    def publisher(self) -> Publisher:
        """Of a Trainer without loggers."""
        trainer = SimpleNamespace(checkpoint_callbacks=[], loggers=[], global_step=3)
        return Publisher(trainer, None, lambda action: action())
