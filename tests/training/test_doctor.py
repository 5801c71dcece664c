"""The doctor: what has to be right on a machine that exports, each in a sentence."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from lightning_trt_windows.cli import main
from lightning_trt_windows.training.doctor import _backend


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where exports work it says so, with versions, and has seen one work."""
    assert main(["doctor", "--directory", str(tmp_path), "--json"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert all(finding["ok"] for finding in findings.values())
    assert "tensorrt_rtx, with torch " in findings["backend"]["text"]
    assert "was compiled" in findings["export"]["text"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named with what to do, the rest is looked at all the same, and the exit code is 3."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "torch-tensorrt-rtx":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["doctor", "--directory", str(tmp_path / "nowhere")]) == 3
    printed = capsys.readouterr().out
    assert "FAIL  backend" in printed
    assert 'pip install "lightning-trt-windows[rtx]"' in printed
    assert "FAIL  directory" in printed
    assert "ok    lightning" in printed


def test_bindings_of_any_name_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-tensorrt 2.14 brings TensorRT as ``tensorrt-cu13``, without a distribution called ``tensorrt``."""
    metadata = tmp_path / "tensorrt_cu13-10.16.1.11.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: tensorrt-cu13\nVersion: 10.16.1.11\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = _backend("auto")
    assert ", tensorrt-cu13 10.16.1.11" in text
    assert f", tensorrt-rtx {importlib.metadata.version('tensorrt-rtx')}" in text
