"""The process that builds: ``python -m lightning_trt_windows.builds.executors.worker FOLDER``.

It knows no code of the user's.

It unpickles a call from ``FOLDER``, runs it, and pickles what came of it. It ends when the process that started it
does, so that no build goes on for a training that was killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import pickle
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.files import replacing
from lightning_trt_windows.builds.executors.memory_limit import prefer_for_oom_kill
from lightning_trt_windows.errors import CompileError
from lightning_trt_windows.progress.events import listening
from lightning_trt_windows.progress.upstream_output import forward_lines

__all__ = ["CALL", "RESULT", "STAGE", "main"]

CALL = "call.pickle"
"""A function and its arguments."""
RESULT = "result.pickle"
"""``(True, value)`` or ``(False, exception)``. Appears whole."""
STAGE = "stage.txt"
"""What is being done, for people to see."""


def main(folder: Path, niceness: int) -> int:
    """Run the call in ``folder``."""
    faulthandler.enable()
    if hasattr(os, "nice"):  # Windows has none
        with contextlib.suppress(OSError):
            os.nice(niceness)
    prefer_for_oom_kill()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome: tuple[bool, Any]
    try:
        function, arguments = pickle.loads((folder / CALL).read_bytes())
        # what is printed here goes to the log
        with listening(lambda name, of: _tell(folder, name)), forward_lines(functools.partial(print, file=sys.stderr)):
            outcome = True, function(*arguments)
    # whatever it is, the other side is told
    except Exception as error:
        traceback.print_exc()
        outcome = False, error
    with replacing(folder / RESULT) as temporary:
        temporary.write_bytes(_pickled(outcome))
    return 0


def _tell(folder: Path, stage: str) -> None:
    with contextlib.suppress(OSError):  # a full disk is the build's own matter
        (folder / STAGE).write_text(stage, encoding="utf-8")


def _end_with_parent() -> None:
    # the parent writes nothing: its end of the pipe closes when it ends, however it ends
    sys.stdin.buffer.read()
    os._exit(1)


def _pickled(outcome: tuple[bool, Any]) -> bytes:
    try:
        data = pickle.dumps(outcome)
        pickle.loads(data)
    # exceptions of upstream's are often made such that they cannot be made again
    except Exception:
        error = outcome[1]
        return pickle.dumps((False, CompileError(f"{type(error).__name__}: {error}")))
    return data


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
