"""Raw TensorRT engines for C++ and C#: the bytes that ``deserializeCudaEngine`` takes, and what is bound to them.

Standard library only; an engine is decoded in pieces and never whole in memory.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.manifest import EngineRecord
from lightning_trt_windows.artifact.payload_reader import member_start
from lightning_trt_windows.artifact.windows_names import hash_suffix, legal_form, windows_name
from lightning_trt_windows.bundle.gathering import Gathered
from lightning_trt_windows.bundle.layout import ENGINES, LONGEST
from lightning_trt_windows.bundle.zipped import Member, text_member
from lightning_trt_windows.errors import ArtifactError

__all__ = ["engine_members", "engine_pieces"]

_CHUNK = 1 << 20
"""Characters of base64 decoded at a time: a multiple of 4, so that each piece decodes alone."""


def engine_members(items: Sequence[tuple[Gathered, str]]) -> Iterator[Member]:
    """The engines of artifacts with their folders in the bundle, and the tables of their bindings."""
    described = []
    for item, folder in items:
        artifact = item.artifact
        place = "/".join([ENGINES, *folder.split("/")[1:]])
        stem = artifact.path.name.removesuffix(".ep")
        listed = []
        for number, engine in enumerate(artifact.manifest.engines):
            short = engine.name if engine.name.isascii() and len(engine.name) < 60 else f"engine_{number}"
            name = f"{place}/{_engine_file(f'{stem}.{short}', LONGEST - len(place) - 1)}"
            pieces = functools.partial(engine_pieces, artifact, engine)
            yield Member(name, engine.size, engine.sha256, pieces, f"{artifact.path} ({engine.name})")
            listed.append({"file": name, **_described(engine)})
        described.append(_bindings(artifact, folder, listed))
    yield text_member(f"{ENGINES}/engines.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    yield text_member(f"{ENGINES}/README.md", _table(described))


def _engine_file(stem: str, longest: int) -> str:
    """A name for an engine that Windows allows, of at most ``longest`` characters; no other engine has it."""
    name = windows_name(f"{stem}.engine")
    if len(name) <= longest:
        return name
    ending = f"{hash_suffix(stem)}.engine"
    return legal_form(stem, longest - len(ending)) + ending


def engine_pieces(artifact: Artifact, engine: EngineRecord) -> Iterator[bytes]:
    """The bytes of one engine, nothing before and nothing after them.

    Raises:
        ArtifactError: There is no base64 text where the manifest says.
    """
    with artifact.path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        stream.seek(member_start(stream, archive.getinfo(engine.location.member)) + engine.location.offset)
        left = engine.location.length
        while left > 0:
            text = stream.read(min(left, _CHUNK))
            left -= len(text)
            try:
                piece = base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise ArtifactError(
                    artifact.path, [f"engine {engine.name}: there is no base64 text where the manifest says"]
                ) from error
            if not text:
                raise ArtifactError(artifact.path, [f"engine {engine.name}: is cut short"])
            yield piece


def _described(engine: EngineRecord) -> dict[str, Any]:
    return {
        "engine": engine.name,
        "size": engine.size,
        "sha256": engine.sha256,
        "inputs": list(engine.inputs),
        "outputs": list(engine.outputs),
    }


def _bindings(artifact: Artifact, folder: str, listed: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "artifact": f"{folder}/{artifact.path.name}",
        "backend": manifest.backend.name,
        "versions": dict(manifest.versions),
        "engines": listed,
        "pytorch_between_engines": list(manifest.fallback_ops),
        "inputs": [
            {
                "name": i.name,
                "dtype": i.dtype,
                "min": list(i.min),
                "opt": list(i.opt),
                "max": list(i.max),
                "symbols": list(i.symbols),
                "multiple_of": list(i.multiple_of),
            }
            for i in manifest.inputs
        ],
        "outputs": [{"name": o.name, "dtype": o.dtype, "shape": list(o.shape)} for o in manifest.outputs],
        "whole_program_is_one_engine": _is_one_engine(artifact),
    }


def _is_one_engine(artifact: Artifact) -> bool:
    """Whether nothing runs outside the only engine, as far as the manifest tells."""
    manifest = artifact.manifest
    alone = len(manifest.engines) == 1 and not manifest.fallback_ops
    return alone and (manifest.operators is None or manifest.operators.pytorch == 0)


def _table(described: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Raw engines",
        "",
        "Each `.engine` is what `nvinfer1::IRuntime::deserializeCudaEngine` takes, byte for byte as TensorRT made it.",
        "Its SHA-256 stands in `engines.json` and in the artifact's manifest. An engine runs with the TensorRT version",
        "that made it. `setInputShape` takes sizes within the ranges; axes of one name always have the same size.",
        "",
        "An engine computes what the artifact computes only where the program is one engine. Where operators stay in",
        "PyTorch, the engines are parts, and what happens between them stands in the `.ep`.",
    ]
    for entry in described:
        whole = "The whole program." if entry["whole_program_is_one_engine"] else "A part of the program."
        lines += ["", f"## {_cell(entry['artifact'])}", "", f"{_runtime(entry)}. {whole}"]
        if between := entry["pytorch_between_engines"]:
            lines += ["", f"In PyTorch between the engines: {', '.join(_cell(name) for name in between)}."]
        lines += ["", "| Engine | Bindings in order: inputs | outputs | Bytes |", "|---|---|---|---|"]
        for engine in entry["engines"]:
            inputs, outputs = (", ".join(_cell(name) for name in engine[key]) for key in ("inputs", "outputs"))
            lines.append(f"| {_cell(engine['file'])} | {inputs} | {outputs} | {engine['size']} |")
        lines += ["", "| Input of the program | dtype | min | opt | max | axes |", "|---|---|---|---|---|---|"]
        for i in entry["inputs"]:
            sizes = " | ".join(str(i[key]) for key in ("min", "opt", "max"))
            lines.append(f"| {_cell(i['name'])} | {i['dtype']} | {sizes} | {_axes(i)} |")
        lines += ["", "| Output of the program | dtype | shape |", "|---|---|---|"]
        lines += [f"| {_cell(o['name'])} | {o['dtype']} | {_cell(str(o['shape']))} |" for o in entry["outputs"]]
    return "\n".join(lines) + "\n"


def _runtime(entry: dict[str, Any]) -> str:
    name = "tensorrt-rtx" if entry["backend"] == "tensorrt_rtx" else "tensorrt"
    return f"{'TensorRT-RTX' if name == 'tensorrt-rtx' else 'TensorRT'} {_cell(entry['versions'].get(name, 'unknown'))}"


def _axes(described: dict[str, Any]) -> str:
    steps = described["multiple_of"] or [1] * len(described["symbols"])
    return ", ".join(
        (_cell(symbol) if symbol else "static") + (f" in steps of {step}" if step > 1 and symbol else "")
        for symbol, step in zip(described["symbols"], steps)
    )


def _cell(text: str) -> str:
    """``text`` inside a table of Markdown: as code, which nothing in it can end."""
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"
