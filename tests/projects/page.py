"""The page that a run writes."""
from pathlib import Path
from typing import Any


def write_page(path: Path, records: list[dict[str, Any]]) -> None:
    pass
