"""``python -m lightning_trt_windows``."""

from __future__ import annotations

import sys

from lightning_trt_windows.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
