"""Everything this package raises on purpose.

::

    LightningTrtError
    ├─ ConfigurationError (ValueError)      asked for something impossible               exit 2
    ├─ EnvironmentMismatchError             wrong package, version, system or GPU        exit 3
    ├─ ShapeDiscoveryError                  no or contradictory evidence for an input    exit 4
    ├─ CaptureError                         torch.export could not trace the module      exit 5
    ├─ CompileError                         TensorRT built no engine, or a wrong one     exit 6
    ├─ ArtifactError (ValueError)           a file is missing, damaged or not ours       exit 7
    │   └─ UnsupportedFormatError           written by a newer version of this package   exit 8
    ├─ CheckpointError                      a checkpoint is unreadable or does not fit   exit 9
    ├─ OutputError (OSError)                the artifact cannot be written               exit 10
    └─ VerificationError                    it does not compute what the module does     exit 11

Each message says what was wanted, what was found, where, and what to do about it. The exit codes are those of the
``lightning-trt-windows`` command. Upstream's exception, where there is one, is chained as ``__cause__``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "CaptureError",
    "CheckpointError",
    "CompileError",
    "ConfigurationError",
    "EnvironmentMismatchError",
    "LightningTrtError",
    "OutputError",
    "ShapeDiscoveryError",
    "UnsupportedFormatError",
    "VerificationError",
    "did_you_mean",
    "is_out_of_memory",
]


class LightningTrtError(Exception):
    """Base of all errors of this package."""

    exit_code = 1


class ConfigurationError(LightningTrtError, ValueError):
    """The user asked for something that cannot be done; the message names the alternatives."""

    exit_code = 2


class EnvironmentMismatchError(LightningTrtError):
    """A package, version, operating system or GPU is not what is needed."""

    exit_code = 3


class ShapeDiscoveryError(LightningTrtError):
    """No evidence, or contradictory evidence, for the shape or dtype of an input."""

    exit_code = 4


class CaptureError(LightningTrtError):
    """``torch.export`` could not turn the module into an ExportedProgram."""

    exit_code = 5


class CompileError(LightningTrtError):
    """The backend could not turn the ExportedProgram into engines, or the result would be wrong."""

    exit_code = 6


class ArtifactError(LightningTrtError, ValueError):
    """An artifact is missing, damaged or not an artifact at all.

    Args:
        where: File the issues were found in, as the user named it.
        issues: Every issue that was found, not just the first.
    """

    exit_code = 7

    def __init__(self, where: object, issues: Iterable[str]) -> None:
        self.where = str(where)
        self.issues = tuple(issues)
        super().__init__(where, self.issues)

    def __str__(self) -> str:
        if len(self.issues) == 1:
            return f"{self.where}: {self.issues[0]}"
        return f"{self.where}: {len(self.issues)} issues\n" + "\n".join(f"  - {issue}" for issue in self.issues)


class UnsupportedFormatError(ArtifactError):
    """The artifact has a format that this version of the package does not know."""

    exit_code = 8


class CheckpointError(LightningTrtError):
    """A checkpoint cannot be read, or its weights do not fit the module."""

    exit_code = 9


class OutputError(LightningTrtError, OSError):
    """The artifact cannot be written: no space, no permission, no such directory."""

    exit_code = 10


class VerificationError(LightningTrtError):
    """An artifact is whole and does not compute what the module does, or a metric dropped by more than allowed."""

    exit_code = 11


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", *, prefix: str = "") -> str:
    """Suggest what was meant by ``name``, for the end of a message: ``; did you mean 'batch'?``.

    Args:
        name: What was written.
        known: What could have been.
        otherwise: The end of the message where nothing is near, without the semicolon; empty for nothing.
        prefix: Stands before the suggestion, such as ``batch.``.

    Returns:
        The end of the message.
    """
    from difflib import get_close_matches

    if close := get_close_matches(name, list(known), 1):
        return f"; did you mean {prefix + close[0]!r}?"
    return f"; {otherwise}" if otherwise else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was memory that ran out, on the host or on a GPU, which PyTorch says as a ``RuntimeError``.

    Args:
        error: Any exception.

    Returns:
        Whether it is a ``MemoryError``, or says so in PyTorch's words.
    """
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


_NO_MEMORY = re.compile(r"not enough memory|out of memory|can.t allocate memory", re.IGNORECASE)
