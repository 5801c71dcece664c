"""What the entry points cost a Trainer in a script that does not export: the environment variable is unset.

    python benchmarks/bench_trainer.py
    python benchmarks/bench_trainer.py --lightning pytorch_lightning

Trainers are made in turns with this package's entry point and without it, in one process; Lightning searches the
installed distributions on both sides. Printed is time of the processor: the median and the fastest of each side, the
ratio of the medians, and what one call of the entry point takes, which is far below what such a ratio can show.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["main"]

TARGET = 1.02
"""Time of a Trainer with the entry point, at most, relative to one without."""


def seconds(call: Callable[[], Any]) -> float:
    """Time of the processor that one call takes: other load on the machine adds less to it than to wall time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lightning", choices=["lightning.pytorch", "pytorch_lightning"], default="lightning.pytorch")
    parser.add_argument("--repeat", type=int, default=300)
    arguments = parser.parse_args()
    os.environ.pop("LIGHTNING_TRT_WINDOWS", None)
    warnings.simplefilter("ignore")
    pl = importlib.import_module(arguments.lightning)
    logging.disable(logging.INFO)
    fabric = "lightning.fabric" if arguments.lightning == "lightning.pytorch" else "lightning_fabric"
    registry = importlib.import_module(f"{fabric}.utilities.registry")

    def with_it(group: str) -> Any:
        return list(importlib.metadata.entry_points(group=group))

    def without_it(group: str) -> Any:
        return [entry for entry in with_it(group) if not entry.value.startswith("lightning_trt_windows")]

    def trainer() -> Any:
        return pl.Trainer(logger=False, accelerator="cpu")

    (entry,) = set(with_it(f"{arguments.lightning}.callbacks_factory")) - set(
        without_it(f"{arguments.lightning}.callbacks_factory")
    )
    first = seconds(lambda: entry.load()())
    times: dict[Any, list[float]] = {with_it: [], without_it: []}
    for turn in range(2 * arguments.repeat):
        # who goes first changes: collecting garbage falls on every so many Trainers
        side = (with_it, without_it)[(turn + turn // 2) % 2]
        registry.entry_points = side
        times[side].append(seconds(trainer))
    call = seconds(lambda: [entry.load()() for _ in range(10_000)]) / 10_000
    medians = {side: statistics.median(values) for side, values in times.items()}
    ratio = medians[with_it] / medians[without_it]
    print(
        json.dumps(
            {
                "fastest_ms": round(1e3 * min(times[with_it]), 3),
                "fastest_without_ms": round(1e3 * min(times[without_it]), 3),
                "median_ms": round(1e3 * medians[with_it], 3),
                "median_without_ms": round(1e3 * medians[without_it], 3),
                "ratio": round(ratio, 4),
                "first_call_ms": round(1e3 * first, 3),
                "call_us": round(1e6 * call, 1),
                "target": TARGET,
                "reached": ratio <= TARGET,
            }
        )
    )


if __name__ == "__main__":
    main()
