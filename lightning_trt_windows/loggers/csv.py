"""CSV: a row per artifact in ``windows_artifacts.csv`` beside ``metrics.csv``. No files, which are on disk anyway."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.loggers.record import LoggedArtifact
from lightning_trt_windows.storage.remote_file import place_of

__all__ = ["FILE_NAME", "Adapter"]

FILE_NAME = "windows_artifacts.csv"


class Adapter:
    """Adapter for ``CSVLogger``. ``metrics.csv`` gets no columns, which would be empty in nearly every row."""

    def log_values(self, logger: Any, record: LoggedArtifact) -> None:
        """Write the table again with one row more, or with the row of this file in place of its former one."""
        place = place_of(os.path.join(logger.log_dir, FILE_NAME))  # noqa: PTH118 -- it may be a URL
        rows = [row for row in _rows(place) if row.get("file") != record.artifact.path.name]
        rows.append({"step": str(record.step), **{key: str(value) for key, value in record.values.items()}})
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as file:
                file.write(data)
        else:
            place.write(data)

    def log_files(self, logger: Any, record: LoggedArtifact) -> None:
        """Nothing."""


def _rows(place: Any) -> list[dict[str, str]]:
    try:
        data = place.read_bytes() if isinstance(place, Path) else place.read()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
