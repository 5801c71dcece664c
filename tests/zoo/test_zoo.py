"""Every model of the zoo becomes an artifact that computes what the model does, or there is a good reason.

Engines need a GPU to run. Here the archive is loaded as Windows would load it, and in place of its engines the networks
that they were built from are evaluated; ``tests/gpu/test_zoo_rehearsal.py`` runs the engines themselves.
"""

from __future__ import annotations

import math
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluating import networks_kept, networks_to_call
from support.stand_in import StandIn
from zoo.entry import Entry
from zoo.exporting import SIZES, Exported, allowed, call, difference, export
from zoo.models import ZOO
from zoo.structures import Prediction
from zoo.table import Row

from lightning_trt_windows.errors import LightningTrtError

MOST_BYTES = 2 << 20
ENTRIES = [pytest.param(e, id=e.name, marks=() if e.fast else pytest.mark.zoo) for e in ZOO.values()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_zoo(entry: Entry, tmp_path: Path, zoo_rows: dict[str, Row]) -> None:
    """Shapes from the data, a real compile, the archive against eager at min, opt, max and between."""
    started = time.perf_counter()
    row = zoo_rows[entry.name] = Row(entry)
    try:
        with networks_kept() as networks:
            exported = export(entry, tmp_path)
    except LightningTrtError as error:
        row.reason = f"{type(error).__name__}: {error}"
        row.seconds = time.perf_counter() - started
        if entry.refused is None:
            raise
        assert entry.refused in str(error)
        return
    row.exported(exported)
    assert entry.refused is None, f"there was to be no artifact: {entry.refused}"
    loaded = StandIn(exported.artifact, networks_to_call(networks)).load()
    row.errors = {size: compare(loaded, exported, size) for size in SIZES}
    loads_with_torch(exported)


def compare(run: Any, exported: Exported, size: str) -> float:
    """The difference to eager for one size."""
    entry = exported.entry
    args, kwargs = call(exported, size)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        wanted = getattr(exported.module, entry.method)(*args, **kwargs)
        found = run(*args, **kwargs)
    error = difference(found, wanted)
    assert error <= (entry.tolerance or allowed(wanted)), f"{size}: {error:.1e} from eager"
    return error


def loads_with_torch(exported: Exported) -> None:
    """The archive is one of ``torch.export``; large ones take it minutes, and are no different."""
    if exported.artifact.manifest.ep.size > MOST_BYTES:
        return
    with zipfile.ZipFile(exported.artifact.path) as archive:
        for_a_gpu = any("/data/" in name and name.endswith(("weight_0", "tensor_0")) for name in archive.namelist())
    if torch.cuda.is_available() or not for_a_gpu:
        torch.export.load(exported.artifact.path)


def test_a_wrong_number_is_seen() -> None:
    """Deep inside, in any kind of container; and so are other classes, dtypes and shapes."""
    one = torch.ones(2, 3)
    right = {"a": [Prediction(one, one * 2)], "n": 3}
    assert difference(right, right) == 0.0
    off = difference({"a": [Prediction(one, one * 2.1)], "n": 3}, right)
    assert off == pytest.approx(0.05)
    assert difference(torch.full((2, 3), torch.nan), one) == math.inf
    others = (
        {"a": [Prediction(one, one * 2)], "n": 4},
        {"a": [(one, one * 2, None)], "n": 3},
        {"a": [Prediction(one, one.double() * 2)], "n": 3},
        {"a": [Prediction(one, one[:1] * 2)], "n": 3},
    )
    for other in others:
        with pytest.raises(AssertionError):
            difference(other, right)


def test_enough_of_them() -> None:
    """At least 60 architectures, of which hardly any needs its shapes written down or may fail."""
    by_hand = [entry for entry in ZOO.values() if entry.inputs is not None]
    refused = [entry for entry in ZOO.values() if entry.refused is not None]
    assert len(ZOO) >= 60 and len(by_hand) <= 0.05 * len(ZOO), by_hand
    assert len(refused) <= 0.1 * len(ZOO)
