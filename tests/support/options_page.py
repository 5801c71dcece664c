"""The table of refused options in ``docs/options.md``; run as a program, it writes it there."""

from __future__ import annotations

from pathlib import Path

from lightning_trt_windows.backends import tensorrt, tensorrt_rtx

__all__ = ["BEGIN", "END", "PAGE", "REFUSED", "refused_table", "with_table"]

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
BEGIN = "<!-- written by tests/support/options_page.py from backends/tensorrt_rtx.py and backends/tensorrt.py -->\n"
END = "<!-- end -->\n"
REFUSED = {"tensorrt_rtx": tensorrt_rtx.REFUSED, "tensorrt": tensorrt.REFUSED}


def refused_table() -> str:
    """One row for each pair of reasons, with the options they refuse."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for option in dict.fromkeys(option for refused in REFUSED.values() for option in refused):
        rtx, classic = (refused.get(option, "takes it") for refused in REFUSED.values())
        reasons.setdefault((rtx, "the same" if classic == rtx else classic), []).append(f"`{option}`")
    rows = (f"| {', '.join(options)} | {rtx} | {classic} |" for (rtx, classic), options in reasons.items())
    return "\n".join(("| Option | `tensorrt_rtx` | `tensorrt` |", "| --- | --- | --- |", *rows, ""))


def with_table(page: str) -> str:
    """``page`` with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + refused_table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
