"""``python -m projects``: train models of public projects with the plain callback and write ``docs/projects.md``.

Each project has an environment of its own, which sees the packages that are installed here through a ``.pth``, so that
PyTorch is not installed again, and which is deleted when the project is done. Results are kept in a file of JSON lines,
one for each model: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from projects.model import models_in, requirements_in
from projects.page import write_page

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HARNESS = ("model", "page", "trial")
LIMIT = 1200
"""Seconds for all trainings of a model."""
SHARED = ("torch", "torchvision", "lightning", "pytorch-lightning", "torch-tensorrt-rtx")
"""What no project may have another version of."""

_WRITING = threading.Lock()


def projects() -> dict[str, Path]:
    """The files of projects by their names."""
    files = sorted(file for file in HERE.glob("*.py") if not file.stem.startswith("_") and file.stem not in HARNESS)
    return {file.stem: file for file in files}


def environment(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Make an environment that overlays this one; returns its Python."""
    venv.create(folder, clear=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    here = Path(sysconfig.get_path("purelib"))
    (site / "zz_overlay.pth").write_text(f"{here}\n")
    python = folder / "bin" / "python"
    if requirements:
        shared = folder / "constraints.txt"
        shared.write_text("".join(f"{name}=={_version(name)}\n" for name in SHARED if _version(name)))
        command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(shared), *requirements]
        subprocess.run(command, check=True)
    return python


def _version(name: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def run_project(name: str, file: Path, done: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Run those models of a project that have no result yet."""
    wanted = [model for model in models_in(file) if not arguments.model or model in arguments.model]
    left = {model: _missing(done.get(f"{name}.{model}"), arguments.when) for model in wanted}
    left = {model: whens for model, whens in left.items() if whens}
    if not left:
        return
    folder = arguments.environments / name
    requirements = requirements_in(file)
    python = folder / "bin" / "python"
    try:
        if not (arguments.keep and python.exists()):
            print(f"{name}: installing {' '.join(requirements) or 'nothing'}", flush=True)
            python = environment(folder, requirements)
        versions = _versions(python, requirements)
        for model, whens in left.items():
            before = done.get(f"{name}.{model}", {}).get("runs", {})
            record = {"key": f"{name}.{model}", "project": name, "model": model, "versions": versions}
            record |= _trial(python, name, model, whens, arguments)
            if "runs" in record:
                record["runs"] = before | record["runs"]
            with _WRITING, arguments.results.open("a", encoding="utf-8") as out:
                out.write(json.dumps(record) + "\n")
            done[record["key"]] = record
            _say(record)
    except subprocess.CalledProcessError as error:
        print(f"{name}: could not be installed: {error}", flush=True)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _missing(record: dict[str, Any] | None, wanted: list[str]) -> list[str]:
    """Values of ``when`` that a model has not been trained with."""
    return [when for when in wanted if record is None or when not in record.get("runs", {})]


def _versions(python: Path, requirements: tuple[str, ...]) -> dict[str, str]:
    names = [requirement.partition("==")[0].partition("[")[0] for requirement in requirements]
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    out = subprocess.run([str(python), "-c", code, *names], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(out))


def _trial(python: Path, project: str, model: str, whens: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Train in a process of its own; what it printed stays in a log beside the results."""
    arguments.logs.mkdir(parents=True, exist_ok=True)
    log = arguments.logs / f"{project}.{model}.log"
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory(dir=arguments.environments) as folder, log.open("w+", encoding="utf-8") as out:
        command = [str(python), "-m", "projects.trial", project, model, str(Path(folder) / "runs"), *whens]
        try:
            process = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, env=variables, cwd=folder, timeout=arguments.limit
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not finished after {arguments.limit} seconds"}
        out.seek(0)
        for line in reversed(out.read().splitlines()):
            with contextlib.suppress(json.JSONDecodeError):
                found = json.loads(line)
                if isinstance(found, dict) and "steps" in found:
                    return found
    return {"error": f"the process ended with {process.returncode}"}


def _say(record: dict[str, Any]) -> None:
    runs = record.get("runs", {})
    words = [record["error"]] if "error" in record else []
    for name, run in runs.items():
        what = run["error"] or (f"{run['artifacts']} artifacts" if run["artifacts"] else "; ".join(run["failures"]))
        words.append(f"{name}: {what or 'nothing'}{'' if run['equal'] else ' (OTHER WEIGHTS)'} in {run['seconds']} s")
    print(f"{record['key']}: {'; '.join(words)}", flush=True)


def _read(results: Path) -> dict[str, Any]:
    """The records in a file by their keys, the later ones in place of earlier ones."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return {record["key"]: record for record in map(json.loads, lines)}


def main() -> int:
    """Run what is chosen and not done, write the page, and give back whether a training was harmed."""
    parser = argparse.ArgumentParser(prog="projects", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("projects.jsonl"))
    parser.add_argument("--environments", type=Path, default=Path(".projects"), help="folder for environments and runs")
    parser.add_argument("--logs", type=Path, default=Path(".projects/logs"))
    parser.add_argument("--page", type=Path, help="write the table here")
    parser.add_argument("--workers", type=int, default=1, help="projects at a time")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds for one model")
    parser.add_argument("--keep", action="store_true", help="leave environments behind, and take those that are there")
    parser.add_argument("--fresh", action="store_true", help="run again what has a result")
    parser.add_argument("--when", nargs="*", default=["train_end", "checkpoint"], help="values of the callback's when")
    parser.add_argument("--model", nargs="*", help="names of models")
    parser.add_argument("--no-run", action="store_true", help="write the page from what was found before")
    parser.add_argument("only", nargs="*", help="names of projects")
    arguments = parser.parse_args()
    for name in ("environments", "logs", "results"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    there = projects()
    if unknown := set(arguments.only) - set(there):
        parser.error(f"no such projects: {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    done = _read(arguments.results)
    chosen = {name: file for name, file in there.items() if not arguments.only or name in arguments.only}
    if not arguments.no_run:
        arguments.environments.mkdir(parents=True, exist_ok=True)
        known = {} if arguments.fresh else dict(done)
        with ThreadPoolExecutor(arguments.workers) as pool:
            list(pool.map(lambda item: run_project(*item, known, arguments), chosen.items()))
        done |= known
    keys = [f"{name}.{model}" for name, file in there.items() for model in models_in(file)]
    records = [done[key] for key in keys if key in done]
    if arguments.page:
        write_page(arguments.page, records, keys)
    return int(any(run["error"] or not run["equal"] for r in records for run in r.get("runs", {}).values()))


if __name__ == "__main__":
    sys.exit(main())
