"""Artifacts with something wrong in them, one for each seed: bytes, archives, graphs, manifests, goldens, signatures.

Where a hash would end everything at once, the manifest is made to match, so that what lies behind the hash is met too.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths

__all__ = ["STRANGE", "Sample", "garbled", "mutated", "sample_of"]

GRAPH = "archive/models/model.json"
STRANGE_TEXTS = (
    "", "\0", "..", "../x", "/", "C:\\x", "CON", "a/b", "\ud800", "x" * 5000, "[" * 3000, "{" * 40, "nan", "@engine:0@",
    "@engine:1@", "torch.ops.aten.add.Tensor", "torch.ops.aten.from_file.default", "_operator.getitem", "__class__",
    "torch.os.system", "as_tensor", "builtins.list", "collections.namedtuple", "1e999", "-1", "\x1b[2J",
)  # fmt: skip
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**62, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e308, [], {}, [[]],
    [None], {"": None}, {"as_int": 2**62}, {"as_int": -1}, {"as_name": "x"}, {"as_tensor": {"name": "x"}},
    {"as_ints": [2**62] * 9}, {"as_expr": {"expr_str": "s0", "hint": None}}, *STRANGE_TEXTS,
)  # fmt: skip
STRANGE_BYTES = (
    b"\0",
    b"\xff" * 4,
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"{",
    b'"',
    b"=",
    b"\x80",
)


@dataclasses.dataclass(frozen=True, repr=False)
class Sample:
    """The files of an honest artifact, taken apart."""

    manifest: dict[str, Any]
    members: dict[str, bytes]
    """Without the graph."""
    graph: Any
    """The graph as JSON, with ``"@payload0@"`` and so on where engines are."""
    payloads: tuple[bytes, ...]
    """The engines' texts."""
    golden: bytes
    stem: str


def sample_of(artifact: Artifact) -> Sample:
    """Take ``artifact`` apart; of its engines only the heads stay, so that thousands of copies take seconds."""
    with zipfile.ZipFile(artifact.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.pop("archive/data/sample_inputs/model.pt", None)
    text, payloads = members.pop(GRAPH), []
    for number, engine in reversed(list(enumerate(artifact.manifest.engines))):  # the last one first: offsets stay
        begin, end = engine.location.offset, engine.location.offset + engine.location.length
        payloads.insert(0, text[begin : begin + 512])
        text = text[:begin] + _token(number).encode() + text[end:]
    golden = ArtifactPaths.of(artifact.path).golden.read_bytes()
    return Sample(artifact.manifest.to_dict(), members, json.loads(text), tuple(payloads), golden, artifact.path.stem)


def _token(number: int) -> str:
    return f"@payload{number}@"


def mutated(sample: Sample, seed: int, folder: Path) -> Path:
    """Write an artifact with some mutations into ``folder``; the same for the same seed."""
    rng = random.Random(seed)
    manifest, graph = copy.deepcopy(sample.manifest), copy.deepcopy(sample.graph)
    members = dict(sample.members)
    golden = sample.golden
    kinds = rng.choices(
        ("graph", "configs", "members", "bytes", "manifest", "text", "golden"), k=rng.choice((1, 1, 2, 3))
    )
    for _ in range(rng.choice((1, 1, 2, 4)) if "graph" in kinds else 0):
        graph = _changed(graph, rng)
    for name in members if "configs" in kinds else ():
        if name.endswith(".json") and rng.random() < 0.7:
            members[name] = json.dumps(_changed(json.loads(members[name]), rng)).encode("utf-8", "surrogatepass")
    if "members" in kinds:
        members = _other_members(members, rng)
    data = _archive(members, graph, sample.payloads, manifest, rng)
    if "bytes" in kinds:
        data = garbled(data, rng)
    if "golden" in kinds:
        golden = garbled(golden, rng)
    if rng.random() < 0.9:  # else the hash is wrong, as of a file that was damaged on its way
        manifest["ep"].update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        manifest["golden"].update(size=len(golden), sha256=hashlib.sha256(golden).hexdigest())
    if "manifest" in kinds:
        manifest = _changed(manifest, rng)
    text = json.dumps(manifest).encode("utf-8", "surrogatepass")
    if "text" in kinds:
        text = garbled(text, rng)
    path = folder / f"{sample.stem}.ep"
    path.write_bytes(data)
    path.with_suffix(".json").write_bytes(text)
    path.with_name(f"{sample.stem}.golden.safetensors").write_bytes(golden)
    path.with_name(f"{sample.stem}.json.sig").write_bytes(
        garbled(b'{"algorithm": "Ed25519", "key": "", "signature": ""}', rng)
    )
    return path


def _archive(
    members: dict[str, bytes], graph: Any, payloads: Sequence[bytes], manifest: dict[str, Any], rng: random.Random
) -> bytes:
    """The archive, and in ``manifest`` where the engines are and what they are."""
    text = json.dumps(graph).encode("utf-8", "surrogatepass")
    for number, (payload, engine) in enumerate(zip(payloads, manifest["engines"], strict=True)):
        token = _token(number).encode()
        offset = max(text.find(token), 0)
        text = text.replace(token, payload, 1)
        plan = base64.b64decode(payload)
        engine.update(size=len(plan), sha256=hashlib.sha256(plan).hexdigest())
        engine["location"].update(member=GRAPH, offset=offset, length=len(payload))
    buffer = io.BytesIO()
    compression = zipfile.ZIP_DEFLATED if rng.random() < 0.03 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in {**members, GRAPH: text}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _other_members(members: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    changed = dict(members)
    name = rng.choice(list(changed))
    what = rng.randrange(4)
    if what == 0:
        del changed[name]
    elif what == 1:
        changed[name] = garbled(changed[name], rng)
    elif what == 2:
        changed[
            rng.choice(
                ("archive/x", "archive/../x", "x", "/x", "archive/models/model.json/", "archive/data/weights/weight_9")
            )
        ] = b"x"
    else:
        changed[name] = rng.choice(list(changed.values()))
    return changed


def _changed(value: Any, rng: random.Random) -> Any:
    """``value`` with something else at one place in it."""
    places = _places(value)
    if not places:
        return rng.choice(STRANGE)
    container, key = rng.choice(places)
    actions: tuple[Callable[[], Any], ...] = (
        lambda: container.__setitem__(key, copy.deepcopy(rng.choice(STRANGE))),
        lambda: container.__setitem__(key, copy.deepcopy(_at(rng.choice(places)))),
        lambda: container.__setitem__(key, _bent(container[key], rng)),
        lambda: container.__delitem__(key),
        lambda: container.__setitem__(key, [container[key]] * rng.choice((0, 2, 50))),
    )
    rng.choice(actions)()
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        item = pending.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            pending.append(item[key])
    return found


def _at(place: tuple[Any, Any]) -> Any:
    return place[0][place[1]]


def _bent(value: Any, rng: random.Random) -> Any:
    """A value near the one that was there."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 2**16, -value - 1, value, 2**62))
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(STRANGE_TEXTS)[:20] + value[at + rng.randrange(3) :]
    return value


def garbled(data: bytes, rng: random.Random) -> bytes:
    """``data`` with some of its bytes flipped, cut, repeated or replaced."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(result) + 1) if rng.random() < 0.7 else max(0, len(result) - rng.randrange(200))
        what = rng.randrange(6)
        if what == 0 and at < len(result):
            result[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del result[at : at + rng.choice((1, 4, 100, 10**6))]
        elif what == 2:
            result[at:at] = rng.choice(STRANGE_BYTES)
        elif what == 3:
            result[at : at + 4] = rng.choice((0, 1, 0xFFFFFFFF, 0x7FFFFFFF, rng.getrandbits(32))).to_bytes(4, "little")
        elif what == 4:
            result[at:at] = result[rng.randrange(len(result) + 1) :][: rng.choice((2, 30, 500))]
        else:
            result[at : at + 8] = rng.getrandbits(64).to_bytes(8, "little")
    return bytes(result)
