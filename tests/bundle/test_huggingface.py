"""The layout of the Hub: what its own library reads of a model card, and what of a user's card stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.artifacts import put

from lightning_trt_windows import inspect
from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.bundle.huggingface import collect_for_hub
from lightning_trt_windows.bundle.model_card import BEGIN, END
from lightning_trt_windows.bundle.wheel import package_version
from lightning_trt_windows.cli import main

hub = pytest.importorskip("huggingface_hub", reason="reads cards with the Hub's own library")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_for_the_hub(tmp_path: Path) -> None:
    """Whole artifacts at the top, a card that the Hub's library reads, and what a program wants to know first."""
    put(tmp_path / "run", "best", score=0.9, golden=b"recorded")
    out = collect_for_hub(tmp_path / "run", tmp_path / "hub", engines=True)
    assert set(out.files) == set(tree(tmp_path / "hub"))
    assert {
        ".gitattributes",
        "README.md",
        "best.windows.ep",
        "best.windows.golden.safetensors",
        "best.windows.json",
        "config.json",
        "engines/engines.json",
        "requirements-windows.txt",
        f"wheels/lightning_trt_windows-{package_version()}-py3-none-any.whl",
    } <= set(out.files)
    assert inspect(tmp_path / "hub/best.windows.ep", check=True).issues == ()
    card = hub.ModelCard.load(tmp_path / "hub/README.md")
    assert card.data.library_name == "lightning-trt-windows"
    assert card.data.tags == ["pytorch-lightning", "windows"]
    assert "val_acc 0.9" in card.content.replace("\\_", "_")
    config = json.loads((tmp_path / "hub/config.json").read_text(encoding="utf-8"))
    (listed,) = config["artifacts"]
    assert listed["sha256"] == read_artifact(tmp_path / "hub/best.windows.ep").manifest.ep.sha256
    assert listed["inputs"] == {"input": {"dtype": "float32", "shape": "[batch 1..8, 4]"}}


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    """Not even where the folder lies within the run: its artifacts are copies."""
    put(tmp_path / "run", "best", score=0.9)
    collect_for_hub(tmp_path / "run", tmp_path / "run/hub")
    before = tree(tmp_path / "run/hub")
    collect_for_hub(tmp_path / "run", tmp_path / "run/hub")
    assert tree(tmp_path / "run/hub") == before


def test_a_card_of_the_user_s_keeps_what_is_hers(tmp_path: Path) -> None:
    """Front matter gets what it lacks; the section replaces the one of before."""
    put(tmp_path / "run", "best")
    card = tmp_path / "hub/README.md"
    card.parent.mkdir()
    card.write_text(
        "---\nlicense: mit\ntags:\n- vision\nlibrary_name: pytorch\n---\n\n# My model\n\nWords.\n\n## After\n\nMore.\n",
        encoding="utf-8",
    )
    collect_for_hub(tmp_path / "run", tmp_path / "hub")
    first = card.read_text(encoding="utf-8")
    found = hub.ModelCard(first)
    assert (found.data.license, found.data.library_name) == ("mit", "pytorch")
    assert set(found.data.tags) == {"vision", "pytorch-lightning", "windows"}
    assert "# My model\n\nWords.\n\n## After\n\nMore.\n" in first
    put(tmp_path / "run", "second")
    card.write_text(first + "\nWritten later.\n", encoding="utf-8")
    collect_for_hub(tmp_path / "run", tmp_path / "hub")
    second = card.read_text(encoding="utf-8")
    assert second.count(BEGIN) == second.count(END) == 1
    assert "second.windows.ep" in second
    assert second.endswith(f"{END}\n\nWritten later.\n")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the layout named, ``--out`` is a folder."""
    put(tmp_path / "run", "best")
    start = ["collect", str(tmp_path / "run"), "--layout", "huggingface"]
    assert main([*start, "--out", str(tmp_path / "hub"), "--json"]) == 0
    assert "best.windows.ep" in json.loads(capsys.readouterr().out)["files"]
    assert main([*start, "--out", str(tmp_path / "hub.zip")]) == 2
    assert main([*start, "--out", str(tmp_path / "hub"), "--wheel", "x.whl"]) == 2
    assert "out is a folder" in capsys.readouterr().err
