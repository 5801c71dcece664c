"""The page of ``report``: what stands in it, that nothing in it does anything, and how it looks in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.artifacts import put

from lightning_trt_windows import report
from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.manifest import InputRecord, OperatorCounts, Source
from lightning_trt_windows.bundle.figures import Range, range_figure
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ConfigurationError

NASTY = "</script><script>console.log('owned')</script><img src=x onerror=console.log('owned')>"


class Elements(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with everything that a page can show: ranges, sizes seen, shares, scores, outcomes, and words that bite."""
    sizes = ({"8": 90, "5": 2, "1": 1}, {"224": 93}, {"100": 40, "128": 30, "300": 23})
    source = Source(
        kind="observed", reason=f"calls of forward {NASTY}", dims=("batch", "always", "length"), sizes=sizes
    )
    record = InputRecord(
        name="batch.image",
        dtype="float32",
        min=(1, 224, 96),
        opt=(8, 224, 128),
        max=(8, 224, 256),
        symbols=("batch", None, "length"),
        multiple_of=(1, 1, 32),
        source=source,
    )
    put(
        tmp_path / "run",
        "a-long-name-" + "x" * 80,
        score=0.125,
        inputs=(record,),
        operators=OperatorCounts(tensorrt=61, pytorch=4),
        fallback_ops=("aten.nonzero.default", "aten._linalg_svd.default"),
        verification={
            "verdict": "passed",
            "gpu": "RTX 4090",
            "calls": [
                {
                    "name": "opt",
                    "passed": True,
                    "outputs": [
                        {"name": "output", "passed": True, "relative_norm": 1.5e-4, "allowed": 1e-3, "max_abs": 0.01}
                    ],
                }
            ],
        },
        extra={"title": NASTY, "list": [1, NASTY]},
        notes=(f"A note {NASTY}",),
    )
    put(tmp_path / "run", "last", step=7, verification={"verdict": "failed", "calls": "not a list"})
    return tmp_path / "run"


def test_the_page_has_what_there_is_to_say(run: Path, tmp_path: Path) -> None:
    """Values, and drawings that are described in words too."""
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    text = Elements(page).text
    for part in (
        "[batch 1..8, 224, length 96..256]",
        "batch 1 to 8, tuned for 8 · batch.image axis 0",
        "length 96 to 256 in steps of 32, tuned for 128 · batch.image axis 2",
        "3 sizes seen, 93 times in all; outside the range: 300",
        "61 of 65 (93.8 %)",
        "aten._linalg_svd.default",
        "best by val_acc",
        "val_acc 0.125",
        "capture: ",
        "0.00015",
        "RTX 4090",
        NASTY,
    ):
        assert part in text, part
    assert re.findall(r'class="(good|bad)">(\w+)<', page)[:2] == [("good", "passed"), ("bad", "failed")]
    assert page.count('<line class="seen"') == 5
    assert page.count('<line class="outside"') == 1
    assert report(run, tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_nothing_in_the_page_does_anything(run: Path, tmp_path: Path) -> None:
    """No script, no image, no handler, nothing from elsewhere, whatever stands in a manifest."""
    found = Elements(report(run, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert found.tags.isdisjoint({"script", "img", "iframe", "object", "embed", "form", "base", "audio", "video"})
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "action", "data")
        assert name != "href" or value.startswith(("#", "data:,"))
    assert any(name == "content" and "default-src 'none'" in value for name, value in found.attributes)


def test_every_drawing_and_table_can_be_read_aloud(run: Path, tmp_path: Path) -> None:
    """Each has a name, and ids are there once."""
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)
    assert all("aria-label" in tag for tag in re.findall(r'<[^>]*role="(?:img|region)"[^>]*>', page))
    assert page.count("<table>") == page.count("<caption>")
    assert '<html lang="en">' in page


def test_a_range_of_one_size_is_drawn() -> None:
    """Where nothing varies, and where nothing was seen."""
    figure = range_figure(Range("n", ("x axis 0",), 4, 4, 4, 1, "", {}), 1)
    assert "No sizes were recorded." in figure
    assert "nan" not in figure.lower()


def test_older_artifacts_have_a_page_too(tmp_path: Path) -> None:
    """Of version 1.0, without counts and sizes."""
    ep = put(tmp_path / "run")
    assert read_artifact(ep).manifest.operators is None
    assert "No sizes were recorded." in report(tmp_path / "run", tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes it where it is told to."""
    out = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert out.exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="there is no artifact"):
        report(tmp_path / "empty", out)


def test_several_places(run: Path, tmp_path: Path) -> None:
    """Directories and files, in the order given, named by their directories; a chart where scores can be compared."""
    for step, score in ((3, 0.5), (9, 0.7)):
        put(tmp_path / "other", f"step={step}", step=step, score=score)
    single = tmp_path / "run" / "last.windows.ep"
    out = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "other"), str(single), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    names = re.findall(r'<h2 id="heading-\d+">([^<]+)</h2>', page)
    assert names == ["other/step=3.windows.ep", "other/step=9.windows.ep", "last.windows.ep"]
    assert "val_acc: 0.7  at step 9" in page
    assert report([single], out).read_text(encoding="utf-8").count("<article") == 1
    with pytest.raises(ConfigurationError, match="none was given"):
        report([], out)


class TestInABrowser:
    """Headless Chromium; ``.ci/run`` sees to it that there is one."""

    @pytest.fixture
    def chromium(self) -> str:
        for name in ("chromium", "google-chrome", "chromium-browser"):
            if path := shutil.which(name):
                return path
        if os.environ.get("CI") == "true" and sys.platform != "win32":
            pytest.fail("CI wants a Chromium to look at the page with")
        pytest.skip("there is no Chromium on this machine")

    @staticmethod
    def look(chromium: str, page: Path, width: int, *options: str) -> subprocess.CompletedProcess[str]:
        """Open ``page`` in a window of this width; standard error has what the console says."""
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
        ]
        command += [
            f"--user-data-dir={page.parent / 'profile'}",
            f"--window-size={width},1600",
            *options,
            page.as_uri(),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    @pytest.mark.parametrize("width", [1280, 400])
    def test_it_fits(self, run: Path, tmp_path: Path, chromium: str, width: int) -> None:
        """Nothing sticks out at the side, nothing is clipped, and the console is silent."""
        page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
        # in a frame, which may be narrower than a window
        measure = (
            "const seen = frame.contentWindow, elements = seen.document.querySelectorAll("
            "'body *:not(.scroll *):not(caption)'); document.title = JSON.stringify([seen.innerWidth,"
            " seen.document.documentElement.scrollWidth,"
            " Math.max(...[...elements].map(e => e.getBoundingClientRect().right))])"
        )
        frame = tmp_path / "frame.html"
        frame.write_text(
            f'<title></title><iframe id="frame" srcdoc="{escape(page)}" onload="{measure}" scrolling="no" '
            f'style="width: {width}px; height: 3000px; border: 0"></iframe>',
            encoding="utf-8",
        )
        done = self.look(chromium, frame, 1400, "--dump-dom")
        found = re.search(r"<title>\[([\d.,]+)\]</title>", done.stdout)
        assert found, done.stdout[:500]
        inner, scrolled, right = (float(number) for number in found[1].split(","))
        assert inner == width
        assert scrolled <= width
        assert right <= width
        assert "CONSOLE" not in done.stderr, done.stderr

    def test_what_is_drawn_is_what_the_manifest_says(self, tmp_path: Path, chromium: str) -> None:
        """Shapes and their range to a pixel, the parts of the program in their order, bars as long as they should."""
        shapes = {"8x3x40x40": 9, "8x3x40x80": 4, "4x3x64x48": 1, "2x3x120x56": 1}
        record = InputRecord(
            name="picture",
            dtype="float32",
            min=(1, 3, 24, 32),
            opt=(8, 3, 56, 56),
            max=(8, 3, 104, 96),
            symbols=("batch", None, "height", "width"),
            multiple_of=(1, 1, 8, 8),
            source=Source(kind="observed", reason="", shapes=shapes),
        )
        ep = put(tmp_path / "run", inputs=(record,))
        (tmp_path / "run" / "tiny.ckpt").write_bytes(bytes(3 * ep.stat().st_size))
        page = report([ep], tmp_path / "r.html").read_text(encoding="utf-8")
        measure = (
            "const seen = frame.contentDocument, box = e => { const r = e.getBoundingClientRect();"
            " return [r.left, r.top, r.right, r.bottom].map(x => Math.round(x * 10) / 10) },"
            " all = (what, more) => [...seen.querySelectorAll(what)].map(e => [...box(e), more(e)]),"
            " words = e => e.querySelector('title').textContent;"
            " document.title = JSON.stringify({dots: all('.plane circle', words), frame: all('.plane .frame', e => ''),"
            " band: all('.plane .band', e => ''), strip: all('.strip span', e => e.title + '|' + e.className),"
            " bars: all('.amount', e => e.innerText), lengths: all('.bar', e => '')})"
        )
        frame = tmp_path / "frame.html"
        frame.write_text(
            f'<title></title><iframe id="frame" srcdoc="{escape(page)}" onload="{measure}" scrolling="no" '
            'style="width: 1000px; height: 3000px; border: 0"></iframe>',
            encoding="utf-8",
        )
        found = re.search(r"<title>(.+?)</title>", self.look(chromium, frame, 1400, "--dump-dom").stdout, re.DOTALL)
        assert found
        drawn = json.loads(unescape(found[1]))
        ((left, top, right, bottom, _),) = drawn["frame"]
        # across from the smallest width to the largest, upwards from the smallest height to the largest
        x = lambda width: left + (width - 32) / (96 - 32) * (right - left)  # noqa: E731
        y = lambda height: bottom - (height - 24) / (120 - 24) * (bottom - top)  # noqa: E731
        ((*band, _),) = drawn["band"]
        assert band == pytest.approx([x(32), y(104), x(96), y(24)], abs=1.5)
        dots = {words: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1) for x1, y1, x2, y2, words in drawn["dots"]}
        assert len(dots) == len(shapes)
        for shape, count in shapes.items():
            height, width = map(int, shape.split("x")[2:])
            times = f"{height} \N{MULTIPLICATION SIGN} {width}: seen {count} time{'' if count == 1 else 's'}"
            assert dots[times][:2] == pytest.approx((x(width), y(height)), abs=1.5)
        across = {words: size for words, (_, _, size) in dots.items()}
        sizes = [across[words] for words in sorted(across, key=lambda words: int(words.split()[-2]))]
        assert sizes == sorted(sizes)
        manifest = read_artifact(ep).manifest
        assert [words for *_, words in drawn["strip"]] == [
            f"{engine.name}: {readable_size(engine.size)}|one" for engine in manifest.engines
        ]
        lengths = [x2 - x1 for x1, _, x2, *_ in drawn["lengths"]]
        amounts = [3 * ep.stat().st_size, manifest.ep.size, *(engine.size for engine in manifest.engines)]
        assert [length / lengths[0] for length in lengths] == pytest.approx([a / amounts[0] for a in amounts], abs=0.01)
        for (*_, text), amount in zip(drawn["bars"], amounts, strict=True):
            assert text.endswith(readable_size(amount))

    def test_it_looks_like_something(self, run: Path, tmp_path: Path, chromium: str) -> None:
        """In light and in dark, with the colours of drawings in it, and nothing that bites has bitten."""
        images = pytest.importorskip("PIL.Image")
        page = report(run, tmp_path / "r.html")
        brightness = []
        for name, scheme in (("light", 1), ("dark", 0)):
            picture = tmp_path / f"{name}.png"
            done = self.look(
                chromium, page, 1280, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}"
            )
            assert "CONSOLE" not in done.stderr, done.stderr
            image = images.open(picture).convert("RGB")
            assert image.size == (1280, 1600)
            colours = image.getcolors(1 << 24) or []
            assert len(colours) > 50
            paper = max(colours)[1]
            brightness.append(sum(paper) / 3)
            blue = sum(count for count, (red, green, blue) in colours if blue > red + 60 and blue > green + 20)  # type: ignore[misc]
            assert blue > 3000
        assert brightness[0] > 230
        assert brightness[1] < 60

    def test_a_page_that_says_something_is_found(self, tmp_path: Path, chromium: str) -> None:
        """The check of the console above is able to fail."""
        page = tmp_path / "loud.html"
        page.write_text("<script>console.log('owned')</script>", encoding="utf-8")
        assert "CONSOLE" in self.look(chromium, page, 400, "--dump-dom").stderr
