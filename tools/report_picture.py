"""``python -m tools.report_picture RUN OUT.png``: the report of a run as a picture, for the README.

Draws it with a Chromium that is installed; ``make picture`` trains the example with images of any size first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from lightning_trt_windows import report

WIDTH, HEIGHT = 1000, 1040


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(prog="report_picture", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    chromium = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        parser.error("there is no chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = report(arguments.run, Path(folder) / "report.html", which="best")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        command += [f"--screenshot={arguments.out.resolve()}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
