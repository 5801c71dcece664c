"""The model card of a folder for the Hugging Face Hub: front matter by the Hub's own library, and our section.

``huggingface_hub`` is imported when a card is written.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.errors import ConfigurationError, EnvironmentMismatchError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["BEGIN", "CARD", "END", "LIBRARY", "card_text", "hub_library", "with_section"]

BEGIN = "<!-- lightning-trt-windows: begin -->"
END = "<!-- lightning-trt-windows: end -->"
"""Around our section of a model card; what stands between them is ours, all else is the user's."""
CARD = "README.md"
"""Name of a card."""
LIBRARY = "lightning-trt-windows"
"""What loads the model, as the Hub asks it."""
_TAGS = ("pytorch-lightning", "windows")
_NEW = "---\n{}\n---\n\n# Model\n"


def hub_library() -> ModuleType:
    """The package ``huggingface_hub``.

    Raises:
        EnvironmentMismatchError: It is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise EnvironmentMismatchError(
            "a folder for the Hugging Face Hub needs the package huggingface_hub, which is not installed: "
            'pip install "lightning-trt-windows[huggingface]"'
        ) from error
    return huggingface_hub


def card_text(
    before: str | None, section: str, *, license: str | None = None, pipeline_tag: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Write a card: what the user wrote, front matter with what the Hub asks for, and our section.

    Args:
        before: The card that is there; ``None`` where there is none.
        section: The section about the artifacts, with its markers.
        license: Of the model, as the Hub names licences (``apache-2.0``); replaces the card's.
        pipeline_tag: What the model does, as the Hub names tasks (``image-classification``); replaces the card's.

    Returns:
        The text, and the keys of the front matter that the Hub asks for and nobody gave.

    Raises:
        ConfigurationError: The front matter cannot be read, or the markers make no sense.
        EnvironmentMismatchError: ``huggingface_hub`` is not installed.
    """
    hub = hub_library()
    text = _NEW if before is None else before
    if not text.lstrip("\ufeff").startswith("---"):
        text = f"---\n{{}}\n---\n\n{text}"  # the library warns where there is no front matter
    try:
        card = hub.ModelCard(text)
    except Exception as error:  # what YAML and the checks of the library's own data classes raise
        raise ConfigurationError(f"the front matter of the model card cannot be read: {error}") from error
    data: Any = card.data
    data.license = license or data.license
    data.pipeline_tag = pipeline_tag or data.pipeline_tag
    data.library_name = data.library_name or LIBRARY
    tags = [data.tags] if isinstance(data.tags, str) else list(data.tags or ())
    data.tags = [*tags, *(tag for tag in _TAGS if tag not in tags)]
    card.text = with_section(card.text, section)
    missing = tuple(key for key in ("license", "pipeline_tag") if not getattr(data, key))
    return str(card), missing


def with_section(card: str, section: str) -> str:
    """``card`` with ``section`` in the place of the one that it has, or at its end.

    Returns:
        The text of the new card.

    Raises:
        ConfigurationError: A marker is there without the other, or they are in the wrong order.
    """
    begin, end = card.find(BEGIN), card.find(END)
    if (begin < 0) != (end < 0) or end < begin or card.count(BEGIN) > 1 or card.count(END) > 1:
        raise ConfigurationError(
            f"the model card has the markers {BEGIN} and {END} not exactly once each, in this order; put them right, "
            "or delete both and the section is added at the end"
        )
    if begin < 0:
        return card.rstrip("\n") + "\n\n" + section if card.strip() else section
    with contextlib.suppress(IndexError):
        if card[end + len(END)] == "\n":
            end += 1
    return card[:begin] + section + card[end + len(END) :]
