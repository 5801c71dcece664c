"""Raw TensorRT engines for C++ and C#: the bytes that ``deserializeCudaEngine`` takes, and what is bound to them.

Constants of the program that an engine is given, or that the program returns, are files of their own. Standard library
only; an engine is decoded in pieces and never whole in memory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.manifest import EngineRecord, Manifest
from lightning_trt_windows.artifact.outline import Origin, Outline, read_constant, read_outline
from lightning_trt_windows.bundle.gathering import Gathered
from lightning_trt_windows.bundle.layout import ENGINES, LONGEST
from lightning_trt_windows.bundle.zipped import Member, bytes_member, text_member
from lightning_trt_windows.errors import ArtifactError

__all__ = ["engine_members", "engine_pieces"]


@dataclass(frozen=True)
class _ConstantFile:
    """Where the value of a constant is in the bundle."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def engine_members(items: Sequence[tuple[Gathered, str]]) -> Iterator[Member]:
    """The engines of artifacts with their folders in the bundle, and the tables of their bindings."""
    described = []
    for item, folder in items:
        artifact = item.artifact
        place = "/".join([ENGINES, *folder.split("/")[1:]])
        listed = []
        for number, engine in enumerate(artifact.manifest.engines):
            name = f"{place}/{artifact.paths.engine(engine.name, number, LONGEST - len(place) - 1).name}"
            pieces = functools.partial(engine_pieces, artifact, engine)
            yield Member(name, engine.size, engine.sha256, pieces, f"{artifact.path} ({engine.name})")
            listed.append({"file": name, **_described(engine)})
        outline = read_outline(artifact)
        files: dict[str, _ConstantFile] = {}
        for member, name, constant in _constants(artifact, outline, place):
            yield member
            files[name] = constant
        described.append(_bindings(artifact, outline, folder, listed, files))
    yield text_member(f"{ENGINES}/engines.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    yield text_member(f"{ENGINES}/README.md", _table(described))


def engine_pieces(artifact: Artifact, engine: EngineRecord) -> Iterator[bytes | bytearray]:
    """Read the bytes of one engine, nothing before and nothing after them.

    Returns:
        The pieces, in order.

    Raises:
        ArtifactError: There is no base64 text where the manifest says.
    """
    with EpFile(artifact.path) as file:
        yield from file.engine_pieces(engine)


def _constants(artifact: Artifact, outline: Outline, place: str) -> Iterator[tuple[Member, str, _ConstantFile]]:
    """The constants that engines are given and that the program returns, as files with nothing but their elements."""
    values = [*(value for call in outline.calls for value in call.inputs), *outline.outputs]
    names = list(dict.fromkeys(value.name for value in values if value.kind == "constant"))
    for number, name in enumerate(names):
        try:
            constant = read_constant(artifact, name)
        except ArtifactError:  # a type that has no plain elements; the tables say that it is only in the .ep
            continue
        file = f"{place}/{artifact.paths.constant(number, LONGEST - len(place) - 1).name}"
        yield bytes_member(file, constant.content), name, _ConstantFile(file, constant.dtype, constant.shape)


def _described(engine: EngineRecord) -> dict[str, Any]:
    return {
        "engine": engine.name,
        "size": engine.size,
        "sha256": engine.sha256,
        "inputs": list(engine.inputs),
        "outputs": list(engine.outputs),
    }


def _bindings(
    artifact: Artifact,
    outline: Outline,
    folder: str,
    listed: list[dict[str, Any]],
    constants: Mapping[str, _ConstantFile],
) -> dict[str, Any]:
    manifest = artifact.manifest
    source = functools.partial(_source, manifest=manifest, constants=constants)
    calls = [
        {
            "engine": call.engine,
            "inputs": [
                {"binding": binding, "from": source(origin)}
                for binding, origin in zip(manifest.engines[call.engine].inputs, call.inputs)
            ],
        }
        for call in outline.calls
    ]
    return {
        "artifact": f"{folder}/{artifact.path.name}",
        "backend": manifest.backend.name,
        "versions": dict(manifest.versions),
        "engines": listed,
        "calls": calls,
        "pytorch_between_engines": sorted({name.removeprefix("torch.ops.") for name in outline.operators}),
        "inputs": [
            {
                "name": record.name,
                "dtype": record.dtype,
                "min": list(record.min),
                "opt": list(record.opt),
                "max": list(record.max),
                "symbols": list(record.symbols),
                "multiple_of": list(record.multiple_of),
                "bindings": [
                    {"engine": call.engine, "binding": binding}
                    for call in outline.calls
                    for origin, binding in zip(call.inputs, manifest.engines[call.engine].inputs)
                    if origin == Origin("input", number)
                ],
            }
            for number, record in enumerate(manifest.inputs)
        ],
        "outputs": [
            {"name": record.name, "dtype": record.dtype, "shape": list(record.shape), "from": source(origin)}
            for record, origin in zip(manifest.outputs, outline.outputs)
        ],
        "engines_compute_everything": outline.engines_only,
        "whole_program_is_one_engine": outline.one_to_one,
    }


def _source(origin: Origin, manifest: Manifest, constants: Mapping[str, _ConstantFile]) -> dict[str, Any]:
    """Where a value comes from, in the names of the manifest."""
    if origin.kind == "input":
        return {"input": manifest.inputs[origin.index].name}
    if origin.kind == "engine":
        return {"engine": origin.index, "binding": manifest.engines[origin.index].outputs[origin.output]}
    if origin.kind == "constant":
        found = constants.get(origin.name)
        return {"constant": origin.name} if found is None else {"constant": origin.name, **asdict(found)}
    if origin.kind == "operator":
        return {"pytorch": origin.name.removeprefix("torch.ops.")}
    return {"literal": None}


def _table(described: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Raw engines",
        "",
        "Each `.engine` is what `nvinfer1::IRuntime::deserializeCudaEngine` takes, byte for byte as TensorRT made it.",
        "Its SHA-256 stands in `engines.json` and in the artifact's manifest. An engine runs with the TensorRT version",
        "that made it. `setInputShape` takes sizes within the ranges; axes of one name always have the same size. All",
        "bindings are in device memory.",
        "",
        "A `.bin` holds the elements of a constant, row by row, little-endian, and nothing else.",
        "",
        "The tables say for each input and output of the program which binding it is. If operators fall back to",
        "PyTorch, the engines are only parts of the program; the `.ep` has what happens between them.",
    ]
    for entry in described:
        lines += ["", f"## {_cell(entry['artifact'])}", "", f"{_runtime(entry)}. {_extent(entry)}"]
        if between := entry["pytorch_between_engines"]:
            lines += ["", f"In PyTorch between the engines: {', '.join(_cell(name) for name in between)}."]
        lines += ["", "| Engine | Number | Bytes |", "|---|---|---|"]
        lines += [f"| {_cell(engine['file'])} | {n} | {engine['size']} |" for n, engine in enumerate(entry["engines"])]
        lines += ["", "| Engine | Input binding | is given |", "|---|---|---|"]
        for call in entry["calls"]:
            lines += [
                f"| {call['engine']} | {_cell(given['binding'])} | {_words(given['from'])} |"
                for given in call["inputs"]
            ]
        lines += [
            "",
            "| Input of the program | dtype | min | opt | max | axes | goes to |",
            "|---|---|---|---|---|---|---|",
        ]
        for i in entry["inputs"]:
            sizes = " | ".join(str(i[key]) for key in ("min", "opt", "max"))
            goes = ", ".join(f"{_cell(b['binding'])} of engine {b['engine']}" for b in i["bindings"]) or "no engine"
            lines.append(f"| {_cell(i['name'])} | {i['dtype']} | {sizes} | {_axes(i)} | {goes} |")
        lines += ["", "| Output of the program | dtype | shape | comes from |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(o['name'])} | {o['dtype']} | {_cell(str(o['shape']))} | {_words(o['from'])} |"
            for o in entry["outputs"]
        ]
    return "\n".join(lines) + "\n"


def _extent(entry: dict[str, Any]) -> str:
    """How much of the program the engines are."""
    if entry["whole_program_is_one_engine"]:
        return "The whole program is one engine: its bindings are the program's inputs and outputs, one to one."
    if entry["engines_compute_everything"]:
        return "Engines compute everything; some inputs or outputs of the program are not one binding each."
    return "The engines are parts of the program."


def _words(source: dict[str, Any]) -> str:
    """A source as a phrase."""
    if "input" in source:
        return f"the program's input {_cell(source['input'])}"
    if "engine" in source:
        return f"{_cell(source['binding'])} of engine {source['engine']}"
    if "constant" in source:
        if "file" not in source:
            return f"the constant {_cell(source['constant'])}, which is in the `.ep` only"
        return f"the constant in {_cell(source['file'])}: {source['dtype']}, {list(source['shape'])}"
    if "pytorch" in source:
        return f"{_cell(source['pytorch'])} in PyTorch"
    return "a plain number"


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
