"""``python -m conformance``: run PyTorch's databases through the compile path and write ``docs/conformance.md``.

Results are kept in a file of JSON lines, one per operator, type and mode: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.running import MODES, numbers_of_tasks, read_records, run
from conformance.table import write_page


def main() -> int:
    """Run, write the page where everything was run, and give back whether something was wrong."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("conformance.jsonl"))
    parser.add_argument("--page", type=Path, help="write the table here")
    parser.add_argument("--sample", action="store_true", help="a fixed part, everyday operators first")
    parser.add_argument("--samples", type=int, default=4, help="of each operator")
    parser.add_argument("--limit", type=int, default=60, help="seconds for one sample")
    parser.add_argument("--suite", nargs="*")
    parser.add_argument("--dtype", nargs="*")
    parser.add_argument("--mode", nargs="*", default=list(MODES))
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--deadline", type=float, help="seconds after which no task is begun")
    parser.add_argument("--task-limit", type=float, default=600, help="seconds for one task, all its samples")
    parser.add_argument("--memory", type=float, default=6, help="GB for one process")
    parser.add_argument("--quiet", action="store_true", help="do not print each sample that is wrong")
    parser.add_argument("--fresh", action="store_true", help="forget what was found before")
    parser.add_argument("--no-run", action="store_true", help="write the page from what was found before")
    parser.add_argument("--only", nargs="*", help="names of operators")
    arguments = parser.parse_args()
    records = list(read_records(arguments.results).values()) if arguments.no_run else run(arguments)
    counts: dict[str, int] = {}
    for record in records:
        for sample in record["samples"]:
            counts[sample["outcome"]] = counts.get(sample["outcome"], 0) + 1
    print(", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items())))
    if arguments.page:
        write_page(arguments.page, records, numbers_of_tasks())
    return int(any(counts.get(outcome) for outcome in ("wrong", "exception")))


if __name__ == "__main__":
    raise SystemExit(main())
