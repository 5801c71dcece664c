"""A model card: front matter as the Hub's own library writes it, and what of a user's card stays."""

from __future__ import annotations

import sys

import pytest

from lightning_trt_windows.bundle.model_card import BEGIN, END, card_text, with_section
from lightning_trt_windows.errors import ConfigurationError, EnvironmentMismatchError

hub = pytest.importorskip("huggingface_hub", reason="writes and reads cards with the Hub's own library")
yaml = pytest.importorskip("yaml")  # it comes with that
SECTION = f"{BEGIN}\nOurs.\n{END}\n"


def test_a_new_card() -> None:
    """Says what was given, and what the Hub asks for beyond it."""
    text, missing = card_text(None, SECTION, license="apache-2.0")
    card = hub.ModelCard(text)
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "lightning-trt-windows")
    assert card.data.tags == ["pytorch-lightning", "windows"]
    assert missing == ("pipeline_tag",)
    assert text.endswith(f"\n# Model\n\n{SECTION}")


def test_what_is_given_replaces_what_the_card_says() -> None:
    """And nothing else of it, in its order."""
    before = "---\nlicense: mit\nlanguage:\n- de\npipeline_tag: other\n---\nText\n"
    text, missing = card_text(before, SECTION, license="apache-2.0", pipeline_tag="image-classification")
    matter = yaml.safe_load(text.split("---")[1])
    assert list(matter)[:3] == ["license", "language", "pipeline_tag"]
    assert (matter["license"], matter["language"], matter["pipeline_tag"]) == (
        "apache-2.0",
        ["de"],
        "image-classification",
    )
    assert missing == ()


@pytest.mark.parametrize("matter", ["tags: [vision]\n", "tags:\n  - vision\n", "tags: vision\n", "", "license: mit\n"])
def test_front_matter_in_any_style_gets_what_it_lacks(matter: str) -> None:
    """Lists on one line, indented, a single word, or none at all; a second time nothing changes."""
    text, _ = card_text(f"---\n{matter}---\nText\n", SECTION)
    data = hub.ModelCard(text).data
    assert data.library_name == "lightning-trt-windows"
    assert data.tags == [*(["vision"] if "vision" in matter else []), "pytorch-lightning", "windows"]
    assert card_text(text, SECTION)[0] == text


def test_a_card_without_front_matter_keeps_its_text() -> None:
    """Which begins with a heading, or a rule that is no front matter."""
    text, _ = card_text("# Mine\n\nWords.\n", SECTION)
    assert text.endswith(f"---\n\n# Mine\n\nWords.\n\n{SECTION}")


@pytest.mark.parametrize("matter", ["- a\n", "a: [\n", "eval_results: 3\n"])
def test_front_matter_that_cannot_be_read_is_named(matter: str) -> None:
    """Nothing is guessed, and nothing of the user's is written over."""
    with pytest.raises(ConfigurationError, match="the front matter of the model card cannot be read"):
        card_text(f"---\n{matter}---\nText\n", SECTION)


@pytest.mark.parametrize("card", [f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}{END}{BEGIN}{END}"])
def test_markers_that_make_no_sense(card: str) -> None:
    """Nothing is guessed: a guess could delete what the user wrote."""
    with pytest.raises(ConfigurationError, match="not exactly once each"):
        with_section(card, "section")


def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that has it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EnvironmentMismatchError, match=r"pip install \"lightning-trt-windows\[huggingface\]\""):
        card_text(None, SECTION)
