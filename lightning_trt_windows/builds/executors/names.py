"""What executors are called on command lines and in YAML. Standard library only."""

from __future__ import annotations

from lightning_trt_windows.errors import ConfigurationError

__all__ = ["EXECUTORS", "check_executor"]

EXECUTORS = {
    "inline": "in this process",
    "process": "in processes of this machine, as many at a time as workers says",
    "dask:ADDRESS": "by the workers of the Dask scheduler at ADDRESS, such as tcp://host:8786",
    "submitit:FOLDER": "by SLURM, where there is none in processes of this machine; logs go to FOLDER",
    "loky:N": "in N processes of this machine",
}
"""What each name means."""


def check_executor(name: str) -> None:
    """Refuse a name that means nothing.

    Raises:
        ConfigurationError: The name is unknown, or lacks its address, folder or number.
    """
    kind, colon, rest = name.partition(":")
    takes = {form.partition(":")[0]: form.partition(":")[2] for form in EXECUTORS}
    if kind not in takes or bool(takes[kind]) != bool(rest) or (colon and not rest):
        raise ConfigurationError(f"executor must be one of {', '.join(EXECUTORS)}, got {name!r}")
    if kind == "loky" and not (rest.isdigit() and int(rest)):
        raise ConfigurationError(f"loky:N: expected a number of processes, got {name!r}")
