"""Whatever stands in ``artifacts.json``, reading it ends in a typed error or in an index that can be used."""

from __future__ import annotations

import copy
import json
import os
import random
from typing import Any

from support.fuzzing import STRANGE, garbled

from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.storage.run_index import IndexEntry, RunIndex, Standing

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "600"))
ENTRY = IndexEntry(
    "a.windows.ep", 123, "a.windows.json", "0" * 64, "a.ckpt", epoch=1, global_step=10, monitor="loss", mode="min",
    score=0.5, best=True,
)  # fmt: skip
LAST = IndexEntry("b.windows.ep", 124, "b.windows.json", "1" * 64, "b.ckpt", epoch=2, global_step=20, last=True)
WHOLE = RunIndex((ENTRY, LAST))


def damaged(chance: random.Random) -> bytes:
    """An index with something else at some places in it."""
    document: Any = copy.deepcopy(WHOLE.to_dict())
    for _ in range(chance.choice((1, 1, 2, 4))):
        target = (
            chance.choice([document, *document["artifacts"]]) if isinstance(document.get("artifacts"), list) else None
        )
        if not isinstance(target, dict) or not target:
            break
        key = chance.choice(sorted(target))
        if chance.random() < 0.2:
            del target[key]
        else:
            target[key] = copy.deepcopy(chance.choice(STRANGE))
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    return garbled(text, chance) if chance.random() < 0.3 else text


def test_every_index_is_read_or_refused() -> None:
    """And one that is read can be changed, judged and written again, which is what a training does with it."""
    read = 0
    for seed in range(EXAMPLES):
        data = damaged(random.Random(seed))
        try:
            index = RunIndex.from_json(data, "artifacts.json")
        except ArtifactError as error:
            assert len(str(error)) < 100_000
            continue
        read += 1
        for changed in (index.without("a.windows.ep"), index.judged({"a.ckpt": Standing(best=True)})):
            assert RunIndex.from_json(json.dumps(changed.to_dict()).encode(), "again").entries == changed.entries
    assert read


def test_a_wrong_type_is_named() -> None:
    """With its place, as in a manifest, and all of them at once."""
    document = WHOLE.to_dict()
    document["artifacts"][0]["global_step"] = "100"
    document["artifacts"][1]["best"] = 1
    try:
        RunIndex.from_json(json.dumps(document).encode(), "artifacts.json")
    except ArtifactError as error:
        assert len(error.issues) == 2
        assert "artifacts[0].global_step" in error.issues[0] and "artifacts[1].best" in error.issues[1]
    else:
        raise AssertionError("a text passed for a number of steps")


def test_a_newer_minor_version_may_have_more_keys() -> None:
    """What this version does not know is ignored."""
    document = {**WHOLE.to_dict(), "format_version": "1.9"}
    document["artifacts"][0]["new"] = True
    assert RunIndex.from_json(json.dumps(document).encode(), "artifacts.json").entries == WHOLE.entries
