"""What stands on the screen when a training with a bar is over, and in a notebook; real ones, each in its process."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support.terminals import seen_in_terminal

from lightning_trt_windows.progress.live import above_live

SCRIPT = Path(__file__).parent / "train_with_bar.py"
SPINNER = re.compile("[\u2800-\u28ff]")


@pytest.mark.parametrize("when", ["train_end", "checkpoint"])
@pytest.mark.parametrize("bar", ["rich", "tqdm"])
class TestATerminal:
    """Of 160 columns and 200 rows."""

    def test_lines_stand_above_bars_and_nothing_is_left_of_ours(self, bar: str, when: str, tmp_path: Path) -> None:
        """Each line for itself and once, no frozen spinner, the totals are right from the start, closing is said."""
        seen = seen_in_terminal([sys.executable, str(SCRIPT), bar, when, str(tmp_path)])
        shown = "\n".join(seen.lines)
        assert seen.code == 0, shown
        ours = [line for line in seen.lines if "WindowsExport: " in line]
        assert all(line.startswith("WindowsExport: ") for line in ours), shown
        exported = [line for line in ours if line.endswith(" ...")]
        # each epoch's and last.ckpt as they are saved, or the best and the last when all is over
        assert len(exported) == (6 if when == "checkpoint" else 2), shown
        made = [name for line in ours if (name := re.search(r"/(\S+)\.windows\.ep \(", line))]
        assert len({match[1] for match in made}) == len(made) == (3 if when == "checkpoint" else 2), shown
        assert not SPINNER.search(shown)
        assert not re.search(r"Windows engines\W+\d", shown)
        assert sum("in PyTorch" in line for line in seen.lines) == 1
        counts = [(int(done), int(total)) for done, total in re.findall(r"Windows engines\W+(\d+)/(\d+)", seen.drawn)]
        assert counts
        assert {total for _, total in counts} == {len(made)}
        assert [done for done, _ in counts] == sorted(done for done, _ in counts)
        assert re.search(r"closing", seen.drawn)


@pytest.mark.parametrize("bar", ["rich", "tqdm"])
def test_a_notebook_has_one_output_for_it(bar: str, tmp_path: Path) -> None:
    """Which ends as the table, however often it was drawn anew; values of cells are tables, too."""
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    start = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); from train_with_bar import train"
    fit = f"{start}\nwindows = train({bar!r}, 'checkpoint', {str(tmp_path)!r})"
    look = "from lightning_trt_windows import inspect\ninspect(windows.artifacts[-1].path)"
    cells = [nbformat.v4.new_code_cell(text) for text in (fit, "windows", "windows.artifacts", look)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    texts = [str(o.get("text") or o.get("data", {}).get("text/plain")) for o in outputs]
    ours = [o for o, text in zip(outputs, texts, strict=True) if "Windows engines" in text]
    assert len(ours) == 1, texts
    assert ours[0].data["text/html"].count("<tr>") == 4  # the heads, and three artifacts
    assert "<progress" not in ours[0].data["text/html"]
    assert sum(text.count("\n") for text in texts) < 60
    for cell in notebook.cells[1:]:
        (result,) = cell.outputs
        assert "<table>" in result.data["text/html"]
        assert len(result.data["text/plain"]) < 1000


class TestALine:
    """Where no training is."""

    def test_a_handler_writes_through_rich_while_it_draws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And has its own stream back afterwards; without rich's display it is left alone."""
        import io

        from rich.console import Console
        from rich.live import Live

        terminal = io.StringIO()
        monkeypatch.setattr(sys, "stderr", terminal)
        logger = logging.Logger("some")
        handler = logging.StreamHandler(terminal)
        logger.addHandler(handler)
        with above_live(logger):
            assert handler.stream is terminal
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        with Live("a bar", console=console, auto_refresh=False):
            logger.warning("beside")
            with above_live(logger):
                logger.warning("above")
        assert handler.stream is terminal
        assert terminal.getvalue() == "beside\n"
        assert "above" in console.file.getvalue()  # type: ignore[attr-defined]

    def test_bars_of_tqdm_are_cleared_meanwhile(self, capsys: pytest.CaptureFixture[str]) -> None:
        """And drawn again below."""
        from tqdm.auto import tqdm

        with tqdm(total=3, file=sys.stdout, desc="training") as bar:
            with above_live():
                print("a line")
            bar.refresh()
        before, _, after = capsys.readouterr().out.partition("a line\n")
        assert re.search(r"training.*\r\s*\r$", before, re.DOTALL)
        assert "training" in after

    def test_a_line_waits_for_the_thread_that_draws(self) -> None:
        """And for no other: a thread that logs meanwhile, whose handler draws, is not waited for by both sides."""
        import threading

        import rich
        from rich.live import Live

        logger = logging.Logger("some")
        handler = logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        console = rich.get_console()
        console._force_terminal, before = True, console._force_terminal
        done = []

        def log() -> None:
            for number in range(200):
                with above_live(logger):
                    logger.warning("line %d", number)
                done.append(number)

        try:
            with Live("a bar", console=console, refresh_per_second=50):
                threads = [threading.Thread(target=log, daemon=True) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(timeout=60)
        finally:
            console._force_terminal = before
        assert len(done) == 800
