"""What the README promises: its example runs as pasted, its commands and links exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, flags=re.S | re.M)
SHELL = re.findall(r"^```sh\n(.*?)^```", README, flags=re.S | re.M)
DOCUMENTS = [path.name for path in REPOSITORY.glob("*.md")]


def commands(start: str) -> list[str]:
    """Words that follow ``start`` at the beginning of a command in the README's shell blocks."""
    return re.findall(rf"^{re.escape(start)} (\S+)", "\n".join(SHELL), flags=re.M)


def test_training_example_runs_as_pasted(tmp_path: Path) -> None:
    """It leaves the two files it names beside the checkpoint it names."""
    (example,) = (block for block in PYTHON if "trainer.fit" in block)
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    named = set(re.findall(r"`(epoch=\S+?)`", README))
    assert len(named) == 3
    assert named <= made, done.stdout + done.stderr
    assert "epoch=2-step=48.windows.ep" in done.stdout


def test_every_python_block_is_python() -> None:
    """Those that need a Trainer of the reader, or Windows, are parsed at least."""
    assert len(PYTHON) >= 3
    for block in PYTHON:
        ast.parse(block)


@pytest.mark.parametrize("target", sorted({*commands("make"), *re.findall(r"`make (\w+)`", README)}))
def test_every_make_target_exists(target: str) -> None:
    """Each ``make`` command of the README is a target of the Makefile, and ``make help`` speaks of it."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.M)
    assert target == "help" or f'"make {target} ' in makefile


@pytest.mark.parametrize("command", sorted(set(commands("lightning-trt-windows"))))
def test_every_command_exists(command: str) -> None:
    """Each command of the README has a help text, and the options that the README gives it."""
    done = subprocess.run(
        [sys.executable, "-m", "lightning_trt_windows", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for block in SHELL for line in block.splitlines() if f"lightning-trt-windows {command}" in line]
    for option in re.findall(r"(--[a-z-]+)", "\n".join(lines)):
        assert option in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_file_leads_somewhere(document: str) -> None:
    """Relative links in the documents at the top."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (REPOSITORY / document).read_text(encoding="utf-8")):
        assert (REPOSITORY / target).exists(), f"{document} links to {target}"
