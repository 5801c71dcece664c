"""Where tests find the repository, the frozen files, and the helpers that commands take as files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DATA", "MODELS", "REPOSITORY", "TESTS"]

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent
DATA = TESTS / "data"
"""Artifacts and manifests that stay as they are."""
MODELS = TESTS / "support" / "lightning_models.py"
"""The file that ``--module FILE:Class`` names."""
