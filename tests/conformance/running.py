"""Which tasks there are, and running them: alone in this process, or in several."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conformance.cases import outcomes
from conformance.samples import (
    Sample,
    binary_pairs,
    module_samples,
    modules,
    operator_samples,
    operators,
    slice_assignments,
)
from conformance.workers import in_processes

TYPES = ("float32", "float16", "bfloat16", "int64", "int32", "bool")
MODES = ("static", "first", "last")
EVERYDAY = (
    "add", "mul", "sub", "div.no_rounding_mode", "matmul", "nn.functional.linear", "nn.functional.conv2d",
    "nn.functional.relu", "nn.functional.gelu", "nn.functional.layer_norm", "nn.functional.batch_norm",
    "nn.functional.scaled_dot_product_attention", "nn.functional.interpolate.bilinear", "nn.functional.embedding",
    "softmax", "log_softmax", "sum", "mean", "var", "cat", "stack", "where", "gather", "index_select", "index_put",
    "cumsum", "topk", "sort", "argmax", "clamp", "masked_fill", "split", "chunk", "permute", "reshape", "expand",
    "slice", "select", "squeeze", "unsqueeze", "flatten", "pow", "exp", "log", "sqrt", "rsqrt", "sigmoid", "tanh",
    "einsum", "bmm", "floor_divide", "remainder", "eq", "nn.Linear", "nn.Conv2d", "nn.BatchNorm2d", "nn.LSTM",
    "nn.GRU", "nn.MultiheadAttention", "nn.TransformerEncoderLayer", "nn.AdaptiveAvgPool2d", "nn.MaxPool2d",
    "slices",
)  # fmt: skip
"""What most models are made of: the sample has each in float32 in one mode, and first."""
_SHARE = 70
"""Of all other tasks, the sample has one of so many, the same ones in every run."""


def tasks() -> Iterator[tuple[str, str, str, Any]]:
    """Suite, name, type and what makes the samples; the everyday types first."""
    for dtype in TYPES:
        for operator in operators():
            name = operator.name + (f".{operator.variant_test_name}" if operator.variant_test_name else "")
            if getattr(torch, dtype) in operator.dtypes:
                yield "operators", name, dtype, operator
        if dtype.startswith(("float", "bfloat")):
            for module in modules():
                yield "modules", module.name, dtype, module
        yield "assignments", "slices", dtype, None
    from torch.testing._internal.opinfo.core import BinaryUfuncInfo

    # variants of one operator, as div with its roundings, have the same pairs
    for name, operator in {o.name: o for o in operators() if isinstance(o, BinaryUfuncInfo)}.items():
        yield "pairs", name, "pairs", operator


def samples_of(suite: str, dtype: str, item: Any, count: int) -> list[Sample] | None:
    """The samples of one task; ``None`` where its results are random."""
    if suite == "pairs":
        return list(binary_pairs(item))
    kind = getattr(torch, dtype)
    if suite == "assignments":
        return list(slice_assignments(kind))
    return module_samples(item, kind, count) if suite == "modules" else operator_samples(item, kind, count)


@dataclass
class Task:
    """One operator, module or group of forms, in one type and with one kind of sizes."""

    suite: str
    name: str
    dtype: str
    mode: str
    item: Any

    @property
    def key(self) -> str:
        """Under which its record is kept."""
        return f"{self.suite} {self.name} {self.dtype} {self.mode}"


def chosen_tasks(arguments: argparse.Namespace) -> list[Task]:
    """All tasks that were asked for, the long ones first."""
    found = []
    for suite, name, dtype, item in tasks():
        if arguments.only and not {name, getattr(item, "name", name)} & set(arguments.only):
            continue
        if (arguments.suite and suite not in arguments.suite) or (arguments.dtype and dtype not in arguments.dtype):
            continue
        for mode in ("static",) if suite == "pairs" else MODES:
            if mode in arguments.mode:
                found.append(Task(suite, name, dtype, mode, item))
    if arguments.sample:
        # assignments take longest by far
        return sorted(filter(in_sample, found), key=lambda task: (not is_everyday(task), task.suite != "assignments"))
    long = {"assignments": 0, "pairs": 1, "modules": 2, "operators": 3}
    return sorted(found, key=lambda task: (long[task.suite], task.suite == "operators" and task.name not in _LONG))


def is_everyday(task: Task) -> bool:
    """Whether most models have it, in this type."""
    return task.dtype == "float32" and task.name in EVERYDAY


def in_sample(task: Task) -> bool:
    """Whether the sample has it: one mode of what is everyday, a fixed share of the rest."""
    if is_everyday(task):
        return MODES[_hash(task.name) % len(MODES)] == task.mode
    return _hash(task.key) % _SHARE == 0 and task.suite in ("operators", "modules")


def _hash(text: str) -> int:
    """The same in every process, and on every machine."""
    return zlib.crc32(text.encode())


_LONG = {"stft", "istft", "nn.functional.grid_sample", "nn.functional.interpolate", "gradient", "native_batch_norm"}
"""Operators whose samples take a while."""


def prepared(arguments: argparse.Namespace) -> Callable[[int], dict[str, Any]]:
    """A function that does one of the chosen tasks, in this process, by its number."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    chosen = chosen_tasks(arguments)

    def work(number: int) -> dict[str, Any]:
        task = chosen[number]
        found = _task(task.suite, task.dtype, task.item, task.mode, arguments)
        if number % 20 == 0:
            gc.collect()
        return found

    return work


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All tasks that are chosen and not done; returns all records."""
    started = time.monotonic()
    done = {} if arguments.fresh else read_records(arguments.results)
    chosen = chosen_tasks(arguments)
    left = [number for number, task in enumerate(chosen) if task.key not in done]
    print(f"{len(left)} of {len(chosen)} tasks", flush=True)

    def in_this_process() -> Iterator[tuple[int, Any, str]]:
        work = prepared(arguments)
        for number in left:
            if arguments.deadline is None or time.monotonic() < started + arguments.deadline:
                yield number, work(number), ""

    if arguments.workers > 1:
        results = in_processes(
            left,
            prepared,
            arguments,
            workers=arguments.workers,
            limit=arguments.task_limit,
            memory=int(arguments.memory * 2**30),
            deadline=None if arguments.deadline is None else started + arguments.deadline,
        )
    else:
        results = in_this_process()
    with arguments.results.open("w" if arguments.fresh else "a") as out:
        for count, (number, found, problem) in enumerate(results, 1):
            task = chosen[number]
            if problem:
                outcome = "time" if problem.startswith("took longer") else "exception"
                found = {"samples": [{"label": task.name, "outcome": outcome, "reason": problem}]}
            record = {"key": task.key, "suite": task.suite, "name": task.name, "dtype": task.dtype, "mode": task.mode}
            done[task.key] = record | found
            out.write(json.dumps(done[task.key]) + "\n")
            out.flush()
            if not arguments.quiet:
                _say(done[task.key])
            if count % 250 == 0:
                print(f"{count} of {len(left)} after {time.monotonic() - started:.0f} s", flush=True)
    missing = [task.key for task in chosen if task.key not in done]
    if missing:
        print(f"{len(missing)} tasks were not reached")
    return [done[task.key] for task in chosen if task.key in done]


def numbers_of_tasks() -> dict[tuple[str, str, str], int]:
    """By suite, type and sizes, how many tasks there are."""
    found: dict[tuple[str, str, str], int] = {}
    for suite, _, dtype, _ in tasks():
        for mode in ("static",) if suite == "pairs" else MODES:
            found[suite, dtype, mode] = found.get((suite, dtype, mode), 0) + 1
    return found


def _task(suite: str, dtype: str, item: Any, mode: str, arguments: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        samples = samples_of(suite, dtype, item, arguments.samples)
    # a database that has no samples for this type says so by raising
    except Exception as error:
        return {"random": False, "samples": [], "note": f"{type(error).__name__}: {error}"[:200]}
    records = [] if samples is None else _groups(samples, mode, arguments.limit)
    seconds = round(time.perf_counter() - started, 2)
    return {"random": samples is None, "samples": records, "seconds": seconds}


def _groups(samples: list[Sample], mode: str, limit: int, size: int = 12) -> list[dict[str, Any]]:
    parts = (samples[start : start + size] for start in range(0, len(samples), size))
    return [record for part in parts for record in outcomes(part, mode, limit=limit)]


def _say(record: dict[str, Any]) -> None:
    for sample in record["samples"]:
        if sample["outcome"] in ("wrong", "exception", "time", "unevaluated"):
            print(record["key"], sample["label"], sample["outcome"], sample.get("reason", ""), flush=True)


def read_records(results: Path) -> dict[str, Any]:
    """The records in a file by their keys, the later ones in place of earlier ones."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {record["key"]: record for record in map(json.loads, lines)}
