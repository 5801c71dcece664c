"""What ``inspect`` says about whole and about broken artifacts."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from support.paths import DATA

import lightning_trt_windows
from lightning_trt_windows.artifact.artifact import Artifact, read_artifact, write_manifest
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.inspection import inspect
from lightning_trt_windows.artifact.manifest import CheckpointRecord, InputRecord, Manifest, OutputRecord, Source
from lightning_trt_windows.errors import ArtifactError


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    """A copy of the real sample that a test may break."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    return read_artifact(tmp_path / "tiny.windows.ep")


def described(artifact: Artifact, **changes: object) -> Artifact:
    """The artifact with another manifest, also on disk."""
    manifest = dataclasses.replace(artifact.manifest, **changes)  # type: ignore[arg-type]
    write_manifest(artifact.manifest_path, manifest)
    return Artifact(artifact.path, manifest)


def rewritten(artifact: Artifact, data: bytes) -> Artifact:
    """The artifact with other bytes, whose hash the manifest has."""
    artifact.path.write_bytes(data)
    record = dataclasses.replace(artifact.manifest.ep, size=len(data), sha256=sha256_of(artifact.path))
    return described(artifact, ep=record)


def section(report: str, title: str) -> list[str]:
    """Lines of one section of the report."""
    blocks = (block.splitlines() for block in report.split("\n\n"))
    return next(lines[1:] for lines in blocks if lines[0] == title)


def test_the_report_says_what_a_user_asks(tiny: Artifact) -> None:
    """Every line of it, for the sample with all there is to say."""
    full = Manifest.from_json((DATA / "manifest_v1.json").read_text(encoding="utf-8"), "m")
    described(
        tiny,
        checkpoint=full.checkpoint,
        fallback_ops=full.fallback_ops,
        verification=full.verification,
        notes=full.notes,
        versions={"torch": "2.14.1+cu130", "torch-tensorrt-rtx": "2.14.0"},
    )
    report = str(inspect(tiny.path, check=True))
    assert report.splitlines()[:6] == [
        "tiny.windows.ep",
        "  kind         TensorRT-RTX engines for Windows",
        "  checkpoint   epoch=3-step=99.ckpt (epoch 3, step 99)",
        *report.splitlines()[3:4],
        "  GPUs         compute capability 8.0, 8.6 (RTX 30), 8.9 (RTX 40), 12.0 (RTX 50), 12.1, newer",
        "  needs        torch 2.14, torch-tensorrt-rtx 2.14, TensorRT-RTX 1.6.1",
    ]
    assert section(report, "Ranges") == ["         min  opt  max", "  batch    1    4    8  input axis 0"]
    assert section(report, "Outputs") == ["  output  float32  [batch, 2]"]
    assert section(report, "Fallback to PyTorch") == ["  aten.nonzero.default"]
    assert section(report, "Built with") == ["  torch               2.14.1+cu130", "  torch-tensorrt-rtx  2.14.0"]
    assert section(report, "Verification") == ["  relative_error  0.0003", "  batches         [1, 8]"]
    assert section(report, "Issues") == ["  none"]


def test_a_dimension_of_several_inputs_is_listed_once(tiny: Artifact) -> None:
    """With all its axes, and columns that line up."""
    source = Source(kind="datamodule", reason="first batch of val_dataloader")
    inputs = tuple(
        InputRecord(
            name=name,
            dtype=dtype,
            min=(1, 64),
            opt=(8, 224),
            max=(32, 1024),
            symbols=("batch", "length"),
            source=source,
        )
        for name, dtype in (("batch.input_ids", "int64"), ("mask", "bool"))
    )
    described(tiny, inputs=inputs, outputs=(OutputRecord(name="0", dtype="float32", shape=("2*batch", 5)),))
    report = str(inspect(tiny.path))
    assert section(report, "Inputs") == [
        "  batch.input_ids  int64  [batch, length]  datamodule: first batch of val_dataloader",
        "  mask             bool   [batch, length]  datamodule: first batch of val_dataloader",
    ]
    assert section(report, "Ranges") == [
        "          min  opt   max",
        "  batch     1    8    32  batch.input_ids axis 0, mask axis 0",
        "  length   64  224  1024  batch.input_ids axis 1, mask axis 1",
    ]


def test_without_ranges_there_is_no_table_of_ranges(tiny: Artifact) -> None:
    """Static models have none."""
    (record,) = tiny.manifest.inputs
    described(tiny, inputs=(dataclasses.replace(record, min=(4, 4), max=(4, 4), symbols=(None, None)),))
    report = str(inspect(tiny.path))
    assert "Ranges" not in report
    assert "  input  float32  [4, 4]" in report


def test_either_file_can_be_inspected(tiny: Artifact) -> None:
    """And the public name is this function."""
    assert inspect(tiny.path) == inspect(str(tiny.manifest_path))
    assert lightning_trt_windows.inspect is inspect


def test_a_glance_says_that_it_was_one(tiny: Artifact) -> None:
    """Nothing was compared, so nothing is claimed."""
    data = bytearray(tiny.path.read_bytes())
    (engine,) = tiny.manifest.engines
    data[100_000] ^= 1
    tiny.path.write_bytes(data)
    glance = inspect(tiny.path)
    assert glance.issues == ()
    assert section(str(glance), "Issues") == ["  none at a glance; --check compares every byte"]
    (issue,) = inspect(tiny.path, check=True).issues
    assert issue.startswith("its content is not that of the export")
    assert engine.name in glance.headers


def test_json_has_it_all(tiny: Artifact) -> None:
    """For scripts: the manifest as in its file, members, headers and issues."""
    found = json.loads(json.dumps(inspect(tiny.path, check=True).to_dict()))
    assert found["manifest"] == json.loads(tiny.manifest_path.read_text(encoding="utf-8"))
    assert found["members"][tiny.manifest.engines[0].location.member] > tiny.manifest.engines[0].location.length
    header = found["engine_headers"][tiny.manifest.engines[0].name]
    assert header["size"] == tiny.manifest.engines[0].size
    assert header["compute_capabilities"][-1] == "newer"
    assert (found["checked"], found["issues"], found["file"]) == (True, [], "tiny.windows.ep")


def test_a_missing_ep_is_an_issue_and_the_rest_is_told(tiny: Artifact) -> None:
    """The manifest alone says much."""
    tiny.path.unlink()
    found = inspect(tiny.manifest_path)
    assert found.issues == ("does not exist; copy it together with its manifest",)
    assert "input  float32" in str(found)


def test_a_truncated_ep_is_an_issue(tiny: Artifact) -> None:
    """Seen without hashing."""
    tiny.path.write_bytes(tiny.path.read_bytes()[:-1])
    found = inspect(tiny.path)
    assert [issue.split(":")[0] for issue in found.issues] == [
        f"has {tiny.size - 1} bytes instead of {tiny.size}",
        "is not a readable zip archive, which an .ep is",
    ]


def test_a_payload_that_is_elsewhere_is_an_issue(tiny: Artifact) -> None:
    """A few bytes off, it is no base64, or no engine."""
    (engine,) = tiny.manifest.engines
    start = dataclasses.replace(
        engine, location=dataclasses.replace(engine.location, offset=engine.location.offset - 4)
    )
    described(tiny, engines=(start,))
    (issue,) = inspect(tiny.path).issues
    assert issue.startswith(f"engine {engine.name}: its text is not base64")
    inside = dataclasses.replace(
        engine, location=dataclasses.replace(engine.location, offset=engine.location.offset + 4)
    )
    described(tiny, engines=(inside,))
    assert inspect(tiny.path).issues == (f"engine {engine.name}: does not begin as TensorRT-RTX engines do",)


def test_an_engine_of_another_size_is_an_issue(tiny: Artifact) -> None:
    """The engine itself says how large it is."""
    (engine,) = tiny.manifest.engines
    less = dataclasses.replace(
        engine, size=engine.size - 3, location=dataclasses.replace(engine.location, length=engine.location.length - 4)
    )
    described(tiny, engines=(less,))
    (issue,) = inspect(tiny.path).issues
    assert issue == f"engine {engine.name}: its header says {engine.size} bytes, the manifest {engine.size - 3}"


def test_each_engine_is_compared_with_its_own_hash(tiny: Artifact) -> None:
    """A writer that hashed the wrong bytes is found, although the file is as it wrote it."""
    (engine,) = tiny.manifest.engines
    described(tiny, engines=(dataclasses.replace(engine, sha256="0" * 64),))
    assert inspect(tiny.path).issues == ()
    (issue,) = inspect(tiny.path, check=True).issues
    assert issue == f"engine {engine.name}: its bytes are not those whose SHA-256 the manifest has"


def test_an_engine_that_the_manifest_does_not_list_is_an_issue(tiny: Artifact) -> None:
    """Present but unlisted is as wrong as listed but missing."""
    described(tiny, engines=())
    assert inspect(tiny.path, check=True).issues == ("engines in the manifest: 0, calls of engines in the archive: 1",)


def test_the_engine_can_be_read_with_a_zip_library_alone(tiny: Artifact) -> None:
    """As docs/format.md tells people to."""
    (engine,) = tiny.manifest.engines
    with zipfile.ZipFile(tiny.path) as archive:
        text = archive.read(engine.location.member)
    payload = base64.b64decode(text[engine.location.offset : engine.location.offset + engine.location.length])
    assert len(payload) == engine.size
    assert hashlib.sha256(payload).hexdigest() == engine.sha256
    assert json.loads(text)  # and the member is JSON around it


def test_bytes_before_the_archive_do_not_confuse_it(tiny: Artifact) -> None:
    """Zip readers skip them; offsets in the file move, offsets in members do not."""
    rewritten(tiny, b"MZ" * 50 + tiny.path.read_bytes())
    assert inspect(tiny.path, check=True).issues == ()


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "a\rb", "\u202eabc", "\x07"], ids=ascii)
def test_no_text_of_a_manifest_moves_the_cursor(tiny: Artifact, text: str) -> None:
    """A terminal only sees what can be printed."""
    described(tiny, notes=(text,), versions={"torch": text}, extra={"k": text})
    report = str(inspect(tiny.path))
    assert all(line.isprintable() for line in report.split("\n"))
    assert len(section(report, "Notes")) == 1


def test_a_checkpoint_without_counters_has_none(tiny: Artifact) -> None:
    """Nothing is made up."""
    described(tiny, checkpoint=CheckpointRecord(file="w.ckpt", sha256="0" * 64, epoch=None, global_step=7))
    assert "checkpoint   w.ckpt (step 7)" in str(inspect(tiny.path))


def test_what_is_no_artifact_raises(tmp_path: Path) -> None:
    """There is nothing to tell."""
    with pytest.raises(ArtifactError, match="does not exist"):
        inspect(tmp_path / "m.ep")
