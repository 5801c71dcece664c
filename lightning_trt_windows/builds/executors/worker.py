"""The process that builds, one job after the other.

It is started as ``python -m lightning_trt_windows.builds.executors.worker NICENESS``, and knows no code of the user's.
PyTorch and Torch-TensorRT, whose import takes seconds, are imported for the first job and are there for the next ones.

Requests come on its standard input: what to call, where the log goes, and the directory to work in. What it does and
what came of it goes back on what was its standard output. It ends when the process that started it does, so that no
build goes on for a training that was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from typing import IO, Any

from lightning_trt_windows.builds.executors.memory_limit import prefer_for_oom_kill
from lightning_trt_windows.errors import CompileError
from lightning_trt_windows.progress.events import listening
from lightning_trt_windows.progress.upstream_output import forward_lines

__all__ = ["BEGUN", "CALL", "RESULT", "STAGE", "main", "receive", "send"]

CALL = b"C"
"""Kind of a message to the worker: a pickled ``(directory, log, call)``; ``call`` is a pickled function with its
arguments."""
BEGUN = b"B"
"""Kind of a message from the worker: it has taken the call. Without content."""
STAGE = b"S"
"""Kind of a message from the worker: what is being done, as UTF-8, for people to see."""
RESULT = b"R"
"""Kind of a message from the worker: ``(True, value)`` or ``(False, exception)``, pickled."""

_HEADER = struct.Struct(">cQ")
"""Kind of a message, and bytes of its content."""
_PARENT_INTERVAL = 1.0
"""Seconds between two looks at whether the parent process is still there."""


def send(stream: IO[bytes], kind: bytes, content: bytes = b"") -> None:
    """Write a message.

    Raises:
        OSError: The process at the other end is gone.
    """
    stream.write(_HEADER.pack(kind, len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Read a message.

    Returns:
        Its kind and its content; ``None`` where the other end has closed the stream.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    kind, size = _HEADER.unpack(header)
    content = stream.read(size)
    return (kind, content) if len(content) == size else None


def main(niceness: int) -> None:
    """Run the calls that are sent, until the other end closes the stream."""
    faulthandler.enable(all_threads=False)  # the others wait for messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; whoever started us decides
    if hasattr(os, "nice"):  # Windows has none
        with contextlib.suppress(OSError):
            os.nice(niceness)
    prefer_for_oom_kill()
    # what a library prints, and a program that it starts, must not get between the messages
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _redirect(os.devnull, os.O_RDONLY, 0)
    os.dup2(2, 1)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, calls), daemon=True).start()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    while True:
        _run(calls.get(), answers)


def _listen(requests: IO[bytes], calls: queue.SimpleQueue[bytes]) -> None:
    try:
        while (message := receive(requests)) is not None:
            calls.put(message[1])
    finally:  # this end of the pipe closes when the parent ends, however it ends; and unheard there is nothing to do
        os._exit(1)


def _end_with_parent(parent: int) -> None:
    # a process that the parent has forked, such as one that loads data, may keep the pipe open
    while os.getppid() == parent:
        time.sleep(_PARENT_INTERVAL)
    os._exit(1)


def _run(request: bytes, answers: IO[bytes]) -> None:
    directory, log, call = pickle.loads(request)
    send(answers, BEGUN)
    with contextlib.suppress(OSError):
        os.chdir(directory)
    _log_to(log)
    outcome: tuple[bool, Any]
    try:
        function, arguments = pickle.loads(call)
        # what is printed here goes to the log
        with listening(lambda name, of: send(answers, STAGE, name.encode())), forward_lines(_log):
            outcome = True, function(*arguments)
    # whatever it is, the other side is told
    except Exception as error:
        _log(traceback.format_exc())
        outcome = False, error
    answer = _pickled(outcome)
    del outcome
    _tidy_up()
    _log_to(os.devnull)
    send(answers, RESULT, answer)


def _log_to(path: str) -> None:
    """Let both output streams, those of C++ code too, go to the end of the file at ``path``."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    try:
        _redirect(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1)
    except OSError:  # a full disk is the build's own matter
        _redirect(os.devnull, os.O_WRONLY, 1)
    os.dup2(1, 2)


def _redirect(path: str, flags: int, descriptor: int) -> None:
    file = os.open(path, flags, 0o666)
    os.dup2(file, descriptor)
    os.close(file)


def _log(line: str) -> None:
    # not print: what fails here because the disk is full would take the place of the build's own error
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def _tidy_up() -> None:
    """Give back the memory of the build, as far as that is possible."""
    if "torch" in sys.modules:
        import torch

        with contextlib.suppress(Exception):
            torch._dynamo.reset()  # what the compiler has kept of the program
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # it has no types
                torch.cuda.empty_cache()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps it otherwise
        ctypes.CDLL(None).malloc_trim(0)


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
    main(int(sys.argv[1]))
