"""What notebooks show of an artifact, of the callback and of its list."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.paths import DATA

from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.description import Description, Section
from lightning_trt_windows.artifact.inspection import inspect
from lightning_trt_windows.artifact.notebook import as_html

TINY = DATA / "tiny.windows.ep"


class Read(HTMLParser):
    """Tags, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"style"}
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_sections_are_tables_and_nothing_in_them_is_active() -> None:
    """Titles, heads and cells, each escaped; characters that move a cursor are spelt out."""
    nasty = "<script>alert('x')</script>\x1b[2J"
    section = Section(nasty, ((nasty, "1"), ("b", "2")), heads=("name", nasty), numbers=(1,))
    read = Read(as_html(Description(nasty, (section, Section("", (("c",),))))))
    assert set(read.tags) == {"b", "table", "caption", "tr", "th", "td"}
    assert (read.tags.count("table"), read.tags.count("tr"), read.tags.count("td")) == (2, 4, 5)
    assert read.words.count("<script>alert('x')</script>\\x1b[2J") == 4


def test_an_inspection_shows_what_it_prints() -> None:
    """The same words as in the text."""
    found = inspect(TINY)
    read = Read(found._repr_html_())
    assert read.words[0] == "tiny.windows.ep"
    text = str(found)
    assert all(word in text for word in read.words)
    assert "Inputs" in read.words
    assert repr(found) == f"<Inspection of {found.artifact}: no issues; print() shows all of it>"


@pytest.mark.linux("the callback is Lightning's")
def test_the_callback_and_its_list() -> None:
    """A row for each artifact and each failure; nothing yet is said as well."""
    from lightning_trt_windows import WindowsExport
    from lightning_trt_windows.builds.queue import Failure

    export = WindowsExport()
    assert export._repr_html_() == "<b>WindowsExport: no artifacts yet</b>"
    assert repr(export) == "<WindowsExport, when='train_end': 0 artifacts, 0 failures>"
    assert (repr(export.artifacts), export.artifacts._repr_html_()) == ("[]", "no artifacts")  # type: ignore[attr-defined]
    artifact = read_artifact(TINY)
    export._outcomes.artifacts += [artifact, replace(artifact)]
    export._outcomes.failures.append(Failure(Path("a<b>.ckpt"), ValueError("not this one")))
    assert repr(export.artifacts) == f"{artifact}\n{artifact}"
    read = Read(export._repr_html_())
    assert read.tags.count("tr") == 4
    assert "a<b>.ckpt" in read.words
    assert any("not this one" in word for word in read.words)
