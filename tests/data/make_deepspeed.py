"""Make ``deepspeed.zip`` beside this file of what ``tests/gpu/deepspeed_run.py DIRECTORY`` has left in DIRECTORY.

Each of the recordings is the last checkpoint of a training with the callback, and the weights that the module had then.
What DeepSpeed copies into each directory besides, its own programs, stays out.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
CASES = ("stage1", "stage3", "stage3_bf16")


def main(directory: Path) -> None:
    """Write the recordings."""
    with zipfile.ZipFile(HERE / "deepspeed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for case in CASES:
            checkpoint = directory / case / "checkpoint-epoch=1.ckpt"
            for path in sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.suffix != ".py"):
                archive.write(path, f"{case}/a.ckpt/{path.relative_to(checkpoint).as_posix()}")
            archive.write(directory / case / "checkpoint-live.pt", f"{case}/live.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
