"""What the documentation shows: the tutorial runs, every other block is at least what it says it is."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from support import commands_page
from support.paths import REPOSITORY

import lightning_trt_windows
from lightning_trt_windows.bundle.reading import extract_bundle
from lightning_trt_windows.cli import make_parser

PAGES = [*(REPOSITORY / "docs").glob("*.md"), *REPOSITORY.glob("*.md")]


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """Every fenced block."""
    for page in sorted(PAGES):
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", text, flags=re.S | re.M):
            body = re.sub(rf"^{found[1]}", "", found[3], flags=re.M)
            yield Block(page.name, text[: found.start()].count("\n") + 1, found[2], body)


BLOCKS = list(blocks())


def of(*languages: str) -> list[object]:
    """The blocks in these languages, each named by its place."""
    return [pytest.param(b, id=f"{b.page}:{b.line}") for b in BLOCKS if b.language in languages]


def test_every_block_says_its_language() -> None:
    """Else nothing here would look at it."""
    known = {"python", "sh", "yaml", "json", "text", "console", "toml"}
    assert [f"{b.page}:{b.line}: {b.language!r}" for b in BLOCKS if b.language not in known] == []


@pytest.mark.parametrize("block", of("python"))
def test_python_calls_what_is_there(block: Block) -> None:
    """It parses; names taken from this package exist, and their calls have arguments that they know."""
    tree = ast.parse(block.text)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_trt_windows"):
            module = __import__(node.module or "", fromlist=["*"])
            names.update({(a.asname or a.name): getattr(module, a.name) for a in node.names})
    for name in lightning_trt_windows.__all__:  # a fragment may leave its imports out
        names.setdefault(name, getattr(lightning_trt_windows, name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and callable(names.get(ast.unparse(node.func))):
            parameters = inspect.signature(names[ast.unparse(node.func)]).parameters
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            unknown = [k.arg for k in node.keywords if k.arg and k.arg not in parameters and not takes_any]
            assert unknown == [], f"{ast.unparse(node.func)} has no argument {unknown}"


@pytest.mark.parametrize("block", of("yaml", "json", "toml"))
def test_data_can_be_read(block: Block) -> None:
    """YAML and JSON parse."""
    if block.language == "yaml":
        assert yaml.safe_load(block.text) is not None
    elif block.language == "json":
        assert json.loads(block.text) is not None
    elif sys.version_info >= (3, 11):
        import tomllib

        assert tomllib.loads(block.text)


@pytest.mark.parametrize("block", of("sh"))
def test_commands_and_options_exist(block: Block) -> None:
    """Ours are parsed by the command's own parser; targets of make and files that Python runs are there."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    extras = set(re.findall(r"^([\w-]+) = \[", (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), flags=re.M))
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        words = [w for w in words if not re.fullmatch(r"[A-Z_]+=\S*", w)] if words[:1] != ["make"] else words
        if words[:3] == ["python", "-m", "lightning_trt_windows"]:
            words = ["lightning-trt-windows", *words[3:]]
        if words[:1] == ["lightning-trt-windows"]:
            arguments = [w for w in words[1:] if w not in ("|", ">", "&&")]
            if "--help" not in arguments:
                make_parser().parse_args(arguments)
        elif words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", makefile, flags=re.M), f"no target {words[1]}"
        elif words[:1] == ["python"] and len(words) > 1 and words[1].startswith(("examples/", "benchmarks/", "tests/")):
            assert (REPOSITORY / words[1]).is_file(), words[1]
        for extra in re.findall(r"lightning-trt-windows\[([\w,-]+)\]", line):
            assert set(extra.split(",")) <= extras, extra


def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    """Its blocks in their order, up to the PC; what is done there is what the bundle says, with files that it has."""
    steps = [b for b in BLOCKS if b.page == "tutorial.md"]
    code = [b.text for b in steps if b.language == "python"]
    assert len(code) == 4
    printed: list[str] = []
    for step in steps:
        if step.text == code[-1]:
            break  # it needs a GPU
        if step.text == code[0]:
            (tmp_path / "train.py").write_text(step.text, encoding="utf-8")
            continue
        commands = ["python step.py"] if step.language == "python" else step.text.splitlines()
        (tmp_path / "step.py").write_text(step.text, encoding="utf-8")
        for command in commands if step.language in ("python", "sh") else ():
            words = shlex.split(command)
            if words[:2] != ["pip", "install"]:
                started = {"python": (), "lightning-trt-windows": ("-m", "lightning_trt_windows")}[words[0]]
                done = subprocess.run(
                    [sys.executable, *started, *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
                printed.append(done.stdout)
    shown = "\n".join(printed)
    assert ("(128, 64, 4)" in shown) and (tmp_path / "report.html").is_file()
    assert "not checked here" in shown and re.search(r"^ *dim1 +8 +12 +20 ", shown, flags=re.M)
    extract_bundle(tmp_path / "bundle.zip", tmp_path / "models")
    readme = (tmp_path / "models" / "README.md").read_text(encoding="utf-8").splitlines()
    python = f"py -{sys.version_info.major}.{sys.version_info.minor}"  # what exported it
    on_the_pc = [
        line.replace("py -3.11", python) for b in steps if b.language == "text" for line in b.text.splitlines()
    ]
    assert len(on_the_pc) == 5 and set(on_the_pc) <= set(readme)
    (loaded,) = re.findall(r'load\("([^"]+)"\)', code[-1])
    assert (tmp_path / "models" / loaded).is_file()
    if not torch.cuda.is_available():
        done = subprocess.run(
            [sys.executable, "run.py"], cwd=tmp_path / "models", capture_output=True, text=True, check=False
        )
        assert done.returncode == 3 and "cannot run here" in done.stderr, done.stderr


def test_troubleshooting_quotes_real_messages() -> None:
    """Each message that the page explains is in the code, word for word."""
    package = Path(lightning_trt_windows.__file__).parent
    sources = " ".join(re.sub(r'"\s*\n\s*f?"', "", p.read_text(encoding="utf-8")) for p in package.rglob("*.py"))
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.+)`$", page, flags=re.M)
    assert len(quoted) >= 15
    for message in quoted:
        for part in filter(None, (p.strip() for p in message.split("…"))):
            assert part in sources, f"{part!r} is not a message of this package any more"


def test_installation_lines_work_in_every_shell() -> None:
    """In cmd, where single quotes are letters and a comment goes to pip, in PowerShell and in sh."""
    sources = [*PAGES, *(REPOSITORY / "lightning_trt_windows").rglob("*.py"), *(REPOSITORY / "examples").rglob("*.py")]
    lines = [
        (source.name, found[1])
        for source in sources
        for found in re.finditer(r"\bpip install\b([^`\n]*)", source.read_text(encoding="utf-8"))
    ]
    assert len(lines) > 20
    # in the code a line stands in a string, whose quotes are not those of the shell
    wrong = [
        (name, line)
        for name, line in lines
        if re.search(r"""'[\w.-]+(\[|[=<>]=)|(?<!["\w.-])[\w.-]+\[\w+\]|\s[\w.-]+[<>]=|\s#\s""", line)
    ]
    assert wrong == []


def test_no_key_of_the_format_stands_twice() -> None:
    """In one table, of which ``docs/format.md`` has one for each object."""
    text = (REPOSITORY / "docs" / "format.md").read_text(encoding="utf-8")
    tables = [re.findall(r"^\| (`[^|]+) \|", table, flags=re.M) for table in re.split(r"\n\n", text)]
    assert sum(map(len, tables)) > 50
    assert [key for keys in tables for key in keys if keys.count(key) > 1] == []


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    """When this fails: python tests/support/commands_page.py."""
    assert commands_page.PAGE.read_text(encoding="utf-8") == commands_page.page()


def test_every_public_name_is_in_the_reference() -> None:
    """Each name of the package stands on the page of the Python reference."""
    named = re.findall(r"^::: (\S+)$", (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.M)
    shown = {name.rpartition(".")[2] for name in named}
    assert set(lightning_trt_windows.__all__) <= shown
