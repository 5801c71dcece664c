"""Executors by name, for command lines and YAML: ``process``, ``dask:ADDRESS``, ``submitit:FOLDER``, ``loky:N``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from lightning_trt_windows.builds.executors.names import check_executor
from lightning_trt_windows.builds.executors.process import BuildProcess, Inline
from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = ["named_executor"]


def named_executor(
    name: str,
    build_deadline: float | None = None,
    build_memory: float | None = None,
    workers: int | None = None,
) -> Executor:
    """The executor called ``name``; whoever asks shuts it down.

    Args:
        name: See ``EXECUTORS``.
        build_deadline: Seconds for one build, with ``process``.
        build_memory: Gigabytes for one build, with ``process``.
        workers: Builds at a time, with ``process``; by default as many as ``default_workers`` says.

    Returns:
        The executor.

    Raises:
        ConfigurationError: The name means nothing.
        EnvironmentMismatchError: What it needs is not installed, or does not answer.
    """
    check_executor(name)
    kind, _, rest = name.partition(":")
    if kind == "process":
        return BuildProcess(build_deadline, build_memory, workers=workers)
    if kind == "inline":
        return Inline()
    make: dict[str, Callable[[str], Executor]] = {"dask": _dask, "submitit": _submitit, "loky": _loky}
    try:
        return make[kind](rest)
    except ImportError as error:
        package, install = _PACKAGES[kind]
        raise EnvironmentMismatchError(f"executor {name!r} needs {package}: pip install {install}") from error


_PACKAGES = {
    "dask": ("distributed", '"lightning-trt-windows[dask]"'),
    "submitit": ("submitit", '"lightning-trt-windows[slurm]"'),
    "loky": ("loky", "loky"),
}
"""What an executor needs, and what brings it."""


class _DaskExecutor(Executor):
    """The executor of a client of our own, which closes with it."""

    tells_running = False
    """Whether futures say that they run."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._executor = client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Number of Dask workers at this moment."""
        return len(self._client.processing())

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self._executor.submit(function, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


def _dask(address: str) -> Executor:
    import distributed

    library: Any = distributed  # it has types in part only
    try:
        return _DaskExecutor(library.Client(address, timeout="20s", set_as_default=False))
    except (OSError, ValueError) as error:
        raise EnvironmentMismatchError(f"no Dask scheduler answers at {address}: {error}") from error


def _submitit(folder: str) -> Executor:
    from lightning_trt_windows.builds.executors.submitit import SubmititExecutor

    return SubmititExecutor(folder)


def _loky(count: str) -> Executor:
    import loky  # type: ignore[import-untyped]

    class LokyExecutor(loky.ProcessPoolExecutor):  # type: ignore[misc]  # it has no types
        """Takes the standard library's way to give up what is not finished."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait, kill_workers=cancel_futures)

    executor = LokyExecutor(int(count))
    executor.workers = int(count)
    made: Executor = executor
    return made
