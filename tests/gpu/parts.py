"""Work split among processes of one GPU machine, each with a file of JSON lines."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["Work", "main"]

_GRACE = 25.0
"""Seconds that an item which was begun may take beyond the time for all."""
Work = Callable[[], list[dict[str, Any]]]
"""Gives the records of one item."""


def main(
    doc: str | None, chosen: Callable[[argparse.Namespace], Iterator[tuple[str, Work]]], suites: tuple[str, ...]
) -> list[dict[str, Any]] | None:
    """Do what ``chosen`` gives in as many processes as asked for.

    Args:
        doc: What ``--help`` says.
        chosen: Names of items, and what does each.
        suites: What ``--suite`` may name.

    Returns:
        All records, where all parts are done; ``None`` in a process that did one part.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--part", help="which part of how many this process does")
    parser.add_argument("--seconds", type=float, default=400, help="after which no item is begun")
    parser.add_argument("--out", type=Path, default=Path("records.jsonl"))
    parser.add_argument("--suite", nargs="*", choices=suites, default=list(suites))
    parser.add_argument("--only", nargs="*", default=[], help="items whose names contain one of these")
    arguments = parser.parse_args()
    if arguments.part is not None:
        _one_part(arguments, chosen)
        return None
    folder = Path(tempfile.mkdtemp())
    files = [folder / f"{part}.jsonl" for part in range(arguments.workers)]
    started = []
    for part, file in enumerate(files):
        own = ["--part", f"{part}/{len(files)}", "--out", str(file)]
        started.append(subprocess.Popen([sys.executable, sys.argv[0], *sys.argv[1:], *own]))
    end = time.monotonic() + arguments.seconds + _GRACE
    for process in started:
        try:
            process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()  # what it has written down counts
    records = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    arguments.out.write_text("".join(json.dumps(record) + "\n" for record in records))
    shutil.rmtree(folder)
    return records


def _one_part(
    arguments: argparse.Namespace, chosen: Callable[[argparse.Namespace], Iterator[tuple[str, Work]]]
) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # what PyTorch was compiled against may not be what is installed; its own kernels serve as well
    torch.backends.cudnn.enabled = False
    part, parts = (int(number) for number in arguments.part.split("/"))
    end = time.monotonic() + arguments.seconds
    with arguments.out.open("a") as out:
        for number, (key, work) in enumerate(chosen(arguments)):
            if number % parts != part or (arguments.only and not any(word in key for word in arguments.only)):
                continue
            if time.monotonic() > end:
                return
            started = time.perf_counter()
            try:
                with torch.no_grad():
                    found = work()
            # a refusal is no matter here; whatever it is, it is written down
            except Exception as error:
                found = [{"failed": " ".join(f"{type(error).__name__}: {error}".split())[:400]}]
            seconds = round(time.perf_counter() - started, 2)
            for record in found:
                print(json.dumps({"key": key, "seconds": seconds, **record}), file=out, flush=True)
