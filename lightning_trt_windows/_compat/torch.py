"""Workarounds for PyTorch itself."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = [
    "causal_masks_not_looked_for",
    "cpu_convolution_heuristics_off",
    "lstm_states_are_wrong",
    "partial_graph_not_printed",
    "quiet",
]

CONVOLUTION_NARROWS_RANGES = ("2.14", None)
"""Seen in 2.14, not in 2.11, and not on every processor: the heuristics ask what the processor has. Delete when
``torch._C._select_conv_backend`` no longer looks at the batch size."""

LSTM_STATES_GAIN_A_DIMENSION = (2, 13)
"""Before this version ``torch.export`` gives the states of an LSTM a dimension of 1 that they do not have."""


def lstm_states_are_wrong() -> bool:
    """Whether a captured LSTM returns its states with a dimension too many: refuse models that use them."""
    import torch

    return tuple(int(part) for part in torch.__version__.split(".")[:2]) < LSTM_STATES_GAIN_A_DIMENSION


@contextlib.contextmanager
def cpu_convolution_heuristics_off() -> Iterator[None]:
    """Keep the CPU's choice of a convolution kernel out of the shape guards.

    ``_select_conv_backend`` asks mkldnn and NNPACK whether they like the batch size when a convolution is propagated
    with fake CPU tensors; the answer becomes a guard, and a batch of 1..16 turns into 2..15 or 16 and more. Both must
    be off, and only around our own work: the flags are global and the user's training wants them on.
    """
    import torch

    with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield


@contextlib.contextmanager
def causal_masks_not_looked_for() -> Iterator[None]:
    """Keep ``nn.Transformer`` and its encoder and decoder from looking into a mask to see whether it is causal.

    What they find is a hint beside the mask, which is applied either way; looking depends on the data, so that no
    decoder with a mask can be traced. Every release; delete when ``tests/compat/test_torch.py`` fails.
    """
    from torch.nn.modules import transformer

    real = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = real


@contextlib.contextmanager
def partial_graph_not_printed() -> Iterator[None]:
    """Keep ``torch.export`` from printing the graph it has so far to stderr when it fails: thousands of lines.

    Every release from 2.11 does (``torch/export/_trace.py``, ``partial_fx_graph``). Delete when
    ``tests/compat/test_torch.py`` fails.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Collect upstream's warnings and log records instead of printing them; yields the list they go to."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    collector = Collector(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("torch_tensorrt", "torch")]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.handlers, logger.propagate = [collector], False
        try:
            yield lines
        finally:
            for logger, handlers, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate
            lines.extend(f"{w.category.__name__}: {w.message}" for w in caught)
