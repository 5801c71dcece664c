"""Collects what came of the entries, and writes the table when all of them have run."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo.models import ZOO
from zoo.table import Row, page

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
ROWS = pytest.StashKey[dict[str, Row]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin a table."""
    config.stash[ROWS] = {}


@pytest.fixture
def zoo_rows(pytestconfig: pytest.Config) -> dict[str, Row]:
    """The rows so far, by name of the entry."""
    return pytestconfig.stash[ROWS]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, if it is whole."""
    rows = session.config.stash[ROWS]
    if rows.keys() == ZOO.keys():
        PAGE.write_text(page([rows[name] for name in ZOO]))
