"""The documentation as a site: what its first page is, what leads where, and how it looks in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.paths import REPOSITORY

from tools.site import for_the_site

PAGES = ("index.html", "options/index.html", "conformance/index.html", "api/index.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it."""
    pytest.importorskip("mkdocs")
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(place)]
    surroundings = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "REPOSITORY_URL": "https://example.org/a/b"}
    subprocess.run(command, cwd=REPOSITORY, check=True, env=surroundings)
    return place


def test_links_of_the_readme_lead_somewhere_from_the_site() -> None:
    """Pages are pages, other files are on the web or text, anchors and addresses stay."""
    text = "[a](docs/a.md#x) ![p](docs/images/p.png) [e](examples/e.py) [h](#h) [w](https://w.org)"
    assert for_the_site(text, "https://example.org/a/b") == (
        "[a](a.md#x) ![p](images/p.png) [e](https://example.org/a/b/blob/HEAD/examples/e.py) [h](#h) [w](https://w.org)"
    )
    assert for_the_site("[e](examples/e.py)", "") == "e"


def test_the_first_page_is_the_readme(site: Path) -> None:
    """What convinces there stands here, with a link to the repository and to edit pages."""
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "Does it need a GPU?" in page
    assert "images/report.png" in page
    assert "https://example.org/a/b" in page


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that nothing leads to is not read."""
    nav = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"[\w-]+\.md", nav)
    assert sorted(listed) == sorted(page.name for page in (REPOSITORY / "docs").glob("*.md"))
    assert yaml.safe_load("nav:\n" + nav)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_screen(site: Path, tmp_path: Path, width: int) -> None:
    """Of a desk and of a phone: nothing sticks out at the side."""
    chromium = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI wants a Chromium to look at the site with")
        pytest.skip("there is no Chromium on this machine")
    frames = "".join(
        f'<iframe src="{(site / page).as_uri()}" style="width: {width}px; height: 2000px; border: 0"></iframe>'
        for page in PAGES
    )
    measure = (
        "document.title = JSON.stringify([...document.querySelectorAll('iframe')].map("
        "f => [f.contentWindow.innerWidth, f.contentDocument.documentElement.scrollWidth]))"
    )
    around = tmp_path / "frames.html"
    around.write_text(f'<title></title><body onload="{measure}">{frames}', encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,2000", "--dump-dom", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"<title>\[(.*)\]</title>", done.stdout)
    assert found, done.stdout[:500]
    sizes = re.findall(r"\[(\d+),(\d+)\]", found[1])
    assert len(sizes) == len(PAGES)
    for page, (inner, scrolled) in zip(PAGES, sizes):
        assert int(inner) == width, page
        assert int(scrolled) <= width, page
