"""The table of refused options in ``docs/options.md``; run as a program, it writes it there."""

from __future__ import annotations

from pathlib import Path

from lightning_trt_windows.backends.tensorrt_rtx import REFUSED

__all__ = ["BEGIN", "END", "PAGE", "refused_table", "with_table"]

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
BEGIN = "<!-- written by tests/options_page.py from backends/tensorrt_rtx.py -->\n"
END = "<!-- end -->\n"


def refused_table() -> str:
    """One row for each reason, with the options it refuses."""
    reasons: dict[str, list[str]] = {}
    for option, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(f"`{option}`")
    rows = (f"| {', '.join(options)} | {reason} |" for reason, options in reasons.items())
    return "\n".join(("| Option | Refused because |", "| --- | --- |", *rows, ""))


def with_table(page: str) -> str:
    """``page`` with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + refused_table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
