"""``python -m conformance``: run PyTorch's databases through the compile path and write ``docs/conformance.md``.

Results are kept in a file of JSON lines, one per operator, type and mode: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
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
from conformance.table import write_page

TYPES = ("float32", "float16", "bfloat16", "int64", "int32", "bool")
MODES = ("static", "first", "last")
TENTH_OF_TASKS = 10
"""Of ten tasks, three are run in one mode each: a tenth of all."""
_MOST_STARTS = 20


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

    for operator in operators():
        if isinstance(operator, BinaryUfuncInfo):
            yield "pairs", operator.name, "pairs", operator


def samples_of(suite: str, dtype: str, item: Any, count: int) -> list[Sample] | None:
    """The samples of one task; ``None`` where its results are random."""
    if suite == "pairs":
        return list(binary_pairs(item))
    kind = getattr(torch, dtype)
    if suite == "assignments":
        return list(slice_assignments(kind))
    return module_samples(item, kind, count) if suite == "modules" else operator_samples(item, kind, count)


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All tasks that are chosen and not done; returns all records."""
    done = _read(arguments.results)
    chosen = []
    part, parts = (int(number) for number in arguments.part.split("/"))
    with arguments.results.open("a") as out:
        for number, (suite, name, dtype, item) in enumerate(tasks()):
            if arguments.only and name not in arguments.only and item is not None and item.name not in arguments.only:
                continue
            if (arguments.suite and suite not in arguments.suite) or (arguments.dtype and dtype not in arguments.dtype):
                continue
            modes = ("static",) if suite == "pairs" else MODES
            for shift, mode in enumerate(modes):
                if mode not in arguments.mode or (arguments.tenth and number % TENTH_OF_TASKS != shift * 3):
                    continue
                if (number // TENTH_OF_TASKS + shift) % parts != part:
                    continue
                key = f"{suite} {name} {dtype} {mode}"
                if key not in done:
                    record = {"key": key, "suite": suite, "name": name, "dtype": dtype, "mode": mode}
                    # should the process die of it, this is what remains
                    died = {"label": name, "outcome": "exception", "reason": "the process died"}
                    print(json.dumps(record | {"samples": [died]}), file=out, flush=True)
                    done[key] = record | _task(suite, dtype, item, mode, arguments)
                    out.write(json.dumps(done[key]) + "\n")
                    out.flush()
                chosen.append(done[key])
                _say(done[key], arguments)
            if number % 20 == 0:
                gc.collect()
    return chosen


def _numbers_of_tasks() -> dict[tuple[str, str, str], int]:
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


def _say(record: dict[str, Any], arguments: argparse.Namespace) -> None:
    for sample in record["samples"]:
        if sample["outcome"] in ("wrong", "exception", "time", "unevaluated"):
            print(record["key"], sample["label"], sample["outcome"], sample.get("reason", ""), flush=True)


def _read(results: Path) -> dict[str, Any]:
    """The records in a file by their keys, the later ones in place of earlier ones."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {record["key"]: record for record in map(json.loads, lines)}


def _in_processes(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run parts beside each other, each with a file of its own, and start one again that died."""
    files = [arguments.results.with_suffix(f".{part}.jsonl") for part in range(arguments.workers)]
    given = [word for word in sys.argv[1:] if word != "--fresh"]
    if arguments.fresh:
        for file in files:
            file.unlink(missing_ok=True)

    def start(part: int) -> subprocess.Popen[bytes]:
        own = ["--workers", "1", "--part", f"{part}/{arguments.workers}", "--results", str(files[part])]
        return subprocess.Popen([sys.executable, "-m", "conformance", *given, *own])

    running = {part: start(part) for part in range(arguments.workers)}
    starts = 0
    while running:
        for part, process in list(running.items()):
            try:
                code = process.wait(1)
            except subprocess.TimeoutExpired:
                continue
            running.pop(part)
            if code not in (0, 1) and starts < _MOST_STARTS:
                starts += 1
                running[part] = start(part)
    return [record for file in files for record in _read(file).values()]


def main() -> int:
    """Run, write the page where everything was run, and give back whether something was wrong."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("conformance.jsonl"))
    parser.add_argument("--page", type=Path, help="write the table here")
    parser.add_argument("--tenth", action="store_true", help="a fixed tenth")
    parser.add_argument("--samples", type=int, default=4, help="of each operator")
    parser.add_argument("--limit", type=int, default=60, help="seconds for one sample")
    parser.add_argument("--suite", nargs="*")
    parser.add_argument("--dtype", nargs="*")
    parser.add_argument("--mode", nargs="*", default=list(MODES))
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--part", default="0/1", help="which part of how many this process does")
    parser.add_argument("--fresh", action="store_true", help="forget what was found before")
    parser.add_argument("--no-run", action="store_true", help="write the page from what was found before")
    parser.add_argument("only", nargs="*", help="names of operators")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    if arguments.no_run:
        records = list(_read(arguments.results).values())
    else:
        records = run(arguments) if arguments.workers < 2 else _in_processes(arguments)
    counts: dict[str, int] = {}
    for record in records:
        for sample in record["samples"]:
            counts[sample["outcome"]] = counts.get(sample["outcome"], 0) + 1
    print(", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items())))
    if arguments.page and arguments.part == "0/1":
        write_page(arguments.page, records, _numbers_of_tasks())
    return int(any(counts.get(outcome) for outcome in ("wrong", "exception")))


if __name__ == "__main__":
    raise SystemExit(main())
