"""What a failed build leaves beside the artifact: its log, and a script that repeats it."""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.files import link_or_copy
from lightning_trt_windows.errors import CompileError, LightningTrtError
from lightning_trt_windows.export.job import Job, SavedProgram

__all__ = ["LOG", "died", "fail_lost", "keep"]

LOG = "log.txt"
_LOG_TAIL = 2000
"""Characters of the log that go into the message."""

_REPRODUCE = '''"""Repeats the build that failed, with its messages: python reproduce.py"""

import pickle
from dataclasses import replace
from pathlib import Path

from lightning_trt_windows.export.pipeline import build

here = Path(__file__).resolve().parent
function, (job,) = pickle.loads((here / "call.pickle").read_bytes())
paths = replace(job.paths, directory=here.parent)
weights = job.program.weights and here.parent / job.program.weights.name
program = replace(job.program, path=here / job.program.path.name, weights=weights)
print(build(replace(job, program=program, paths=paths)))
'''


def keep(folder: Path, function: Callable[..., Any], job: Job) -> str:
    """Turn the folder of a failed build into what its user needs to find out why.

    Args:
        folder: Has the log; is renamed to ``ArtifactPaths.failed``.
        function: What was called.
        job: With what.

    Returns:
        A sentence that says where it is, or why there is none. Whatever prevents it, a full disk for example, does not
        take the place of the build's own error.
    """
    kept = job.paths.failed
    try:
        shutil.rmtree(kept, ignore_errors=True)
        if isinstance(job.program, SavedProgram):
            link_or_copy(job.program.path, folder / "program.pt2")
            moved = replace(job, program=replace(job.program, path=Path("program.pt2")), skip_existing=False)
        else:
            moved = replace(job.saved(folder / "program.pt2"), skip_existing=False)
        (folder / "call.pickle").write_bytes(pickle.dumps((function, (moved,))))
        (folder / "reproduce.py").write_text(_REPRODUCE, encoding="utf-8")
        folder.rename(kept)
    except (OSError, LightningTrtError, RuntimeError) as error:  # PyTorch raises RuntimeError where it cannot write
        return f"{kept.name}/ with its log and reproduce.py could not be written: {error}"
    return f"{kept.name}/ has its log, and reproduce.py to repeat it"


def died(how: str, kept: str, log: str) -> str:
    """What to say of a build whose process ended.

    Args:
        how: It ended.
        kept: What ``keep`` said.
        log: All that it wrote.

    Returns:
        A sentence.
    """
    tail = f". Its last words:\n{log[-_LOG_TAIL:]}" if log else ""
    return f"the build process {how}. {kept}{tail}"


def fail_lost(builds: Iterable[Future[Any]], did: str) -> None:
    """Fail builds whose thread has ended before them: who waits for them would wait forever.

    Args:
        builds: Futures that nobody settles any more.
        did: What the thread did for them, in words.
    """
    for build in builds:
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            build.set_exception(
                CompileError(
                    f"the thread that {did} this build has ended before it; what it was ended by is on the standard "
                    "error output of this process"
                )
            )
