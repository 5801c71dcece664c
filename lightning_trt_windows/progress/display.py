"""What people see while artifacts are made: a line with stage and time, and a table when all is done.

The line looks as the Trainer's own progress bar does: rich, tqdm, or nothing where that is switched off. In a file or a
pipe neither draws anything; a command that exports many checkpoints writes a line there every now and then. In a
notebook it is one output, which is drawn anew and ends as the table.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any, Protocol, TextIO

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.description import Description, Section
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.notebook import as_html
from lightning_trt_windows.progress.events import listening

__all__ = [
    "Display",
    "Lines",
    "NotebookDisplay",
    "Progress",
    "RichDisplay",
    "Silent",
    "TqdmDisplay",
    "display_like",
    "first_words",
    "in_notebook",
    "summary_row",
    "table",
]

_TITLE = "Windows engines"
_LONGEST_REASON = 100
"""Characters of a failure in the table; all of it stands in the warning and in ``failures``."""
HEADER = ("checkpoint", "size", "engines", "in PyTorch", "seconds")
"""Columns of the table; ``in PyTorch`` counts operators that run between engines."""


class Display(Protocol):
    """Something that shows how far things are."""

    def show(self, done: int, total: int, doing: str) -> None:
        """Show it, from now on; starts the display where there is none yet, with the time since the first start."""

    def close(self) -> None:
        """Take the display away; it can be shown again."""

    def summary(self, rows: Sequence[Sequence[str]], failed: Sequence[str]) -> None:
        """Print a table of what was made, and a line for each failure."""


class Silent:
    """Shows nothing."""

    def show(self, done: int, total: int, doing: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def summary(self, rows: Sequence[Sequence[str]], failed: Sequence[str]) -> None:
        """Nothing."""


class Lines:
    """A line every now and then, for logs: how many are done, and how long the others will take at this rate.

    Args:
        stream: Where to; by default standard error.
        interval: Seconds between two lines, and until the first one.
        clock: Seconds that go by.
    """

    def __init__(
        self, stream: TextIO | None = None, interval: float = 20.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._began = self._last = clock()

    def show(self, done: int, total: int, doing: str) -> None:
        """See ``Display``."""
        now = self._clock()
        if now - self._last < self._interval:
            return
        self._last = now
        left = ""
        if done and done < total:
            left = f", about {_duration((now - self._began) / done * (total - done))} left"
        print(
            f"{done} of {total} done{left}{f'; {doing}' if doing else ''}", file=self._stream or sys.stderr, flush=True
        )

    def close(self) -> None:
        """Nothing."""

    def summary(self, rows: Sequence[Sequence[str]], failed: Sequence[str]) -> None:
        """Nothing."""


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if not minutes:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


class RichDisplay:
    """A line of rich's, and its tables.

    Args:
        console: A ``rich.console.Console``; by default the one that Lightning uses too.
    """

    def __init__(self, console: Any = None) -> None:
        import rich

        self.console = console or rich.get_console()
        self._progress: Any = None
        self._task: Any = None
        self._started: float | None = None

    def show(self, done: int, total: int, doing: str) -> None:
        """See ``Display``."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if self._progress is None:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
            doing_column = TextColumn("{task.fields[doing]}", markup=False)
            self._progress = Progress(*columns, TimeElapsedColumn(), doing_column, console=self.console, transient=True)
            self._task = self._progress.add_task(_TITLE, total=total, doing=doing)
            self._started = self._started or self._progress.get_time()
            self._progress.tasks[0].start_time = self._started
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total, doing=doing)

    def close(self) -> None:
        """See ``Display``."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def summary(self, rows: Sequence[Sequence[str]], failed: Sequence[str]) -> None:
        """See ``Display``."""
        from rich.table import Table
        from rich.text import Text

        if rows:
            drawn = Table(title=_TITLE, title_justify="left")
            for index, name in enumerate(HEADER):
                drawn.add_column(name, justify="right" if index else "left", overflow="fold")
            for row in rows:
                drawn.add_row(*map(Text, row))  # names may hold brackets, which are markup to rich
            self.console.print(drawn)
        for line in failed:
            self.console.print(Text(line, style="red"))


class TqdmDisplay:
    """A line of tqdm's. Tables are plain text."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._closed = threading.Event()
        self._started: float | None = None

    def show(self, done: int, total: int, doing: str) -> None:
        """See ``Display``."""
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        if self._bar is None:
            form = "{desc}: {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
            # where Lightning's bars go
            self._bar = tqdm(
                total=total, desc=_TITLE, leave=False, bar_format=form, file=sys.stdout, dynamic_ncols=True
            )
            self._started = self._bar.start_t = self._started or self._bar.start_t
            self._closed = threading.Event()
            threading.Thread(target=self._keep_time, args=(self._bar, self._closed), daemon=True).start()
        self._bar.total, self._bar.n = total, done
        self._bar.set_postfix_str(doing)  # and draws it

    @staticmethod
    def _keep_time(bar: Any, closed: threading.Event) -> None:
        while not closed.wait(1):
            bar.refresh()

    def close(self) -> None:
        """See ``Display``."""
        self._closed.set()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def summary(self, rows: Sequence[Sequence[str]], failed: Sequence[str]) -> None:
        """See ``Display``."""
        from tqdm.auto import tqdm

        tqdm.write("\n".join([*([table(HEADER, rows)] if rows else []), *failed]), file=sys.stdout)
        sys.stdout.flush()


class NotebookDisplay:
    """One output of a notebook, with or without ipywidgets."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = ""

    def show(self, done: int, total: int, doing: str) -> None:
        """See ``Display``."""
        text = f"{_TITLE}: {done}/{total}" + (f", {doing}" if doing else "")
        if text != self._shown:
            self._shown = text
            self._draw(text, f"<progress value='{done}' max='{total}'></progress> {escape(text)}")

    def close(self) -> None:
        """See ``Display``."""
        if self._shown:
            self._shown = ""
            self._draw("", "")

    def summary(self, rows: Sequence[Sequence[str]], failed: Sequence[str]) -> None:
        """See ``Display``."""
        made = [Section("", tuple(map(tuple, rows)), heads=HEADER, numbers=(1, 2, 3, 4))] if rows else []
        missing = [Section("Failures", tuple((line,) for line in failed), bad=True)] if failed else []
        text = "\n".join([_TITLE, *([table(HEADER, rows)] if rows else []), *failed])
        self._draw(text, as_html(Description(_TITLE, (*made, *missing))))

    def _draw(self, text: str, html: str) -> None:
        import IPython.display

        display: Any = IPython.display.display
        bundle = {"text/plain": text, "text/html": html}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose outputs are drawn elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def display_like(trainer: Any) -> Display:
    """A display in the style of the Trainer's progress bar; silent where it has none, or is not the first process."""
    bar = trainer.progress_bar_callback
    if bar is None or not trainer.is_global_zero or not getattr(bar, "is_enabled", True):
        return Silent()
    names = {cls.__name__ for cls in type(bar).__mro__}
    if names & {"RichProgressBar", "TQDMProgressBar"} and in_notebook():
        return NotebookDisplay()
    if "RichProgressBar" in names:
        # rich before 14.1 draws one thing at a time, and the training's line is done with
        if getattr(bar, "progress", None) is not None:
            bar.progress.stop()
        return RichDisplay()
    return TqdmDisplay() if "TQDMProgressBar" in names else Silent()


class Progress:
    """Counts what is done and shows it.

    Args:
        display: Where it is shown.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self._done = self._total = 0
        self._doing = ""

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the stages that are heard of in here, and take the display away at the end."""
        with listening(self._stage):
            try:
                yield
            finally:
                self.display.close()

    def update(self, done: int, total: int, doing: str = "") -> None:
        """So much is done of so much, and this is being done."""
        self._done, self._total = done, total
        self._doing = doing or self._doing
        self.display.show(self._done, self._total, self._doing)

    def _stage(self, name: str, of: str) -> None:
        if of:
            self.update(self._done, max(self._total, self._done + 1), f"{of}: {name}")
        elif self._total:  # it is about all of them, and they are done
            self.update(self._done, self._total, name)


def summary_row(artifact: Artifact) -> tuple[str, ...]:
    """A row of ``HEADER``."""
    made, took = artifact.manifest, artifact.manifest.timings
    source = made.checkpoint.file if made.checkpoint else artifact.path.name
    left = made.operators.pytorch if made.operators else len(made.fallback_ops)
    seconds = took.capture + took.compile + took.write
    return source, readable_size(artifact.size), str(len(made.engines)), str(left), f"{seconds:.1f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of plain text; all but the first to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def first_words(text: str) -> str:
    """As much of a message as goes on a line."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    return first if len(first) <= _LONGEST_REASON else f"{first[: _LONGEST_REASON - 3]}..."
