"""What MkDocs does beside its own work: the first page of the site is the README. ``mkdocs.yml`` names this file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

__all__ = ["for_the_site", "on_page_markdown"]

_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """MkDocs' hook, called for every page with its text; gives the text that is shown."""
    if page.file.src_uri != "index.md":
        return markdown
    readme = Path(config["config_file_path"]).with_name("README.md").read_text(encoding="utf-8")
    return for_the_site(readme, os.environ.get("REPOSITORY_URL", ""))


def for_the_site(readme: str, repository: str) -> str:
    """The README with links as they are from the first page of the site.

    Args:
        readme: Its text, with links from the root of the repository.
        repository: Address of the repository on the web; without it, links to files that are no page become text.

    Returns:
        The text.
    """

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if target.startswith(("https://", "#")):
            return found[0]
        if target.startswith("docs/"):
            return f"{text}({target.removeprefix('docs/')})"
        if repository:
            return f"{text}({repository}/blob/HEAD/{target})"
        return text.strip("[]")

    return _LINK.sub(link, readme)
