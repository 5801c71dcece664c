"""The manifest: what stands in the ``.windows.json`` beside an ``.ep``. Standard library only.

``docs/format.md`` is the specification. The dataclasses are the schema: JSON keys are field names, in this order. All
are required, from the minor version on that brought them (``SINCE``). Constructors check nothing;
``Manifest.from_json`` and ``Manifest.to_json`` check everything, so that what this package would refuse to read
it also refuses to write.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias, cast

from lightning_trt_windows.artifact import _schema as schema
from lightning_trt_windows.artifact._schema import (
    FileName,
    FormatVersion,
    InputDtype,
    Name,
    OutputDtype,
    Place,
    Sha256,
    SizeOrExpression,
)
from lightning_trt_windows.errors import ArtifactError, UnsupportedFormatError

__all__ = [
    "FORMAT_VERSION",
    "TWIN",
    "BackendRecord",
    "CheckRecord",
    "CheckedSizes",
    "CheckpointRecord",
    "EngineRecord",
    "FileRecord",
    "InputRecord",
    "LeftToPyTorch",
    "Manifest",
    "OperatorCounts",
    "OutputRecord",
    "PayloadLocation",
    "Score",
    "Source",
    "SourceKind",
    "Target",
    "Timings",
]

TWIN = "twin"
"""Key in ``backend.options``: the engines are for the Linux machine that built them, to be compared there."""

FORMAT_VERSION = "1.3"
"""MAJOR.MINOR of the format, apart from the version of the package. A new minor only adds keys and choices."""
_MINOR = int(FORMAT_VERSION.partition(".")[2])


SourceKind: TypeAlias = Literal["argument", "datamodule", "observed", "example"]
Target: TypeAlias = Literal["portable", "same_capability", "ampere_and_newer"]


class _Record:
    """A dataclass that becomes JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Dicts, lists and scalars, with the keys in the order of the fields."""
        return cast("dict[str, Any]", schema.plain(self))


@dataclass(frozen=True, kw_only=True)
class Score(_Record):
    """What a checkpoint was kept for: the value of a metric that ModelCheckpoint monitored."""

    monitor: Name
    mode: Literal["min", "max"]
    """Which end is the better one."""
    value: Annotated[float, schema.finite]


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord(_Record):
    """The checkpoint whose weights the artifact holds."""

    file: FileName
    """Without directory, and legal on Windows even where the checkpoint's own name is not. Nothing opens it."""
    sha256: Sha256
    """SHA-256 of the whole file: 64 lower-case hexadecimal digits, as all hashes here."""
    epoch: int | None
    """Counted from 0, as Lightning does."""
    global_step: int | None
    """Optimizer steps taken."""
    scores: tuple[Score, ...] = field(default=(), metadata={schema.SINCE: 1})
    """One per ModelCheckpoint that monitored something when it saved this checkpoint."""


@dataclass(frozen=True, kw_only=True)
class FileRecord(_Record):
    """A file beside the manifest."""

    file: FileName
    """Without directory."""
    size: int
    """Bytes."""
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class Source(_Record):
    """Origin of the shape of an input, for people."""

    kind: SourceKind
    reason: str
    """One sentence."""
    dims: tuple[str, ...] = ()
    """One sentence per axis, or none at all."""
    sizes: tuple[Mapping[str, int], ...] = field(default=(), hash=False, metadata={schema.SINCE: 1})
    """Sizes that were seen of each axis, as decimal numbers, and how often; empty where none were."""
    shapes: Mapping[str, int] = field(default_factory=dict, hash=False, metadata={schema.SINCE: 3})
    """Whole shapes that were seen, such as ``4x3x480x640``, and how often; empty where none were."""

    def issues(self) -> Iterator[str]:
        """What does not fit together."""
        wrong = (size for sizes in self.sizes for size in sizes if not re.fullmatch("[0-9]{1,19}", size))
        yield from (f"sizes: {schema.shown(size)} is not a size" for size in wrong)
        unread = (shape for shape in self.shapes if not re.fullmatch("[0-9]{1,19}(x[0-9]{1,19})*", shape))
        yield from (f"shapes: {schema.shown(shape)} is not a shape" for shape in unread)


@dataclass(frozen=True, kw_only=True)
class InputRecord(_Record):
    """One tensor that the program takes."""

    name: Name
    """Dotted path from the argument: ``x``, ``batch.image``, ``pair.0``."""
    dtype: InputDtype
    min: tuple[int, ...]
    """Smallest size of each axis, inclusive."""
    opt: tuple[int, ...]
    """Size of each axis that the engines are tuned for."""
    max: tuple[int, ...]
    """Largest size of each axis, inclusive."""
    symbols: tuple[Name | None, ...]
    """Name of each axis. Equal names always have equal sizes; ``None`` is a static axis."""
    multiple_of: tuple[int, ...] = field(default=(), metadata={schema.SINCE: 1})
    """Number that the size of each axis is a multiple of; 1 is any size. Empty where it was not recorded."""
    source: Source

    def issues(self) -> Iterator[str]:
        """What does not fit together."""
        source = (self.source.dims or self.min, self.source.sizes or self.min)
        per_axis = (self.opt, self.max, self.symbols, self.multiple_of or self.min, *source)
        if any(len(values) != len(self.min) for values in per_axis):
            yield "min, opt, max, symbols, multiple_of and source's lists must have one entry per axis, all of them"
            return
        for shape in self.source.shapes:
            if shape.count("x") + 1 != len(self.min):
                yield f"source.shapes: {schema.shown(shape)} has another number of axes than min"
        for axis, (low, opt, high, symbol) in enumerate(zip(self.min, self.opt, self.max, self.symbols)):
            if not low <= opt <= high:
                yield f"axis {axis}: expected min <= opt <= max, got {low}, {opt}, {high}"
            elif symbol is None and low != high:
                yield f"axis {axis}: is static (its symbol is null), but ranges from {low} to {high}"
        for axis, step in enumerate(self.multiple_of):
            sizes = self.min[axis], self.opt[axis], self.max[axis]
            if not step or any(size % step for size in sizes):
                found = ", ".join(map(str, sizes))
                yield f"axis {axis}: expected multiples of multiple_of, which is {step}, got {found}"


@dataclass(frozen=True, kw_only=True)
class OutputRecord(_Record):
    """One tensor that the program returns."""

    name: Name
    """Dotted path into what ``forward`` returns."""
    dtype: OutputDtype
    shape: tuple[SizeOrExpression, ...]
    """Size of each axis, or an expression over the symbols of the inputs."""


@dataclass(frozen=True, kw_only=True)
class PayloadLocation(_Record):
    """Where in the ``.ep`` the base64 text of an engine stands."""

    member: Name
    """Name of the zip member, which is stored uncompressed."""
    offset: int
    """Position of the first character, in bytes from the start of the member."""
    length: int
    """Length of the text, in bytes."""


@dataclass(frozen=True, kw_only=True)
class EngineRecord(_Record):
    """One serialized TensorRT engine."""

    name: Name
    size: int
    """Bytes of the engine itself, before base64."""
    sha256: Sha256
    """SHA-256 of those bytes."""
    inputs: tuple[Name, ...]
    """Binding names, in the order in which the program passes tensors."""
    outputs: tuple[Name, ...]
    """Binding names, in the order in which the program takes tensors back."""
    location: PayloadLocation

    def issues(self) -> Iterator[str]:
        """What does not fit together."""
        length = (self.size + 2) // 3 * 4
        if self.location.length != length:
            yield f"{self.size} bytes are {length} characters of base64, location.length says {self.location.length}"
        for binding in schema.repeated(self.inputs + self.outputs):
            yield f"binding {binding!r} is listed twice"


@dataclass(frozen=True, kw_only=True)
class OperatorCounts(_Record):
    """How many operators of the lowered program run in engines, and in PyTorch between them; those on sizes aside."""

    tensorrt: int
    pytorch: int


@dataclass(frozen=True, kw_only=True)
class BackendRecord(_Record):
    """What compiled the engines, and for which GPUs."""

    name: Name
    compute_capabilities: tuple[Name, ...]
    """GPU generations such as ``8.6``, and ``newer`` for GPUs that do not exist yet; empty where unknown."""
    options: Mapping[str, Any] = field(hash=False)
    """Settings that were in force."""
    target: Target = field(default="portable", metadata={schema.SINCE: 1})
    """Whether the GPU must be that of the machine that built: ``same_capability`` is its generation,
    ``ampere_and_newer`` any from 8.0 on, ``portable`` those in ``compute_capabilities``. From 1.1 on."""


@dataclass(frozen=True, kw_only=True)
class Timings(_Record):
    """What the export took, in seconds."""

    capture: float
    compile: float
    write: float


@dataclass(frozen=True, kw_only=True)
class CheckedSizes(_Record):
    """One set of inputs at which the numbers were compared."""

    name: Name
    """``min``, ``opt``, ``max`` or ``between``."""
    sizes: Mapping[str, int] = field(hash=False)
    """Size of each dimension, by its name."""
    lowered: Annotated[float, schema.finite]
    """Largest relative norm of the difference between the lowered graph and the captured program."""
    engines: Annotated[float, schema.finite]
    """Largest relative norm of the difference between an engine's network and what PyTorch gives."""


@dataclass(frozen=True, kw_only=True)
class LeftToPyTorch(_Record):
    """An operator that TensorRT would have computed wrongly."""

    operator: Name
    line: str
    """Line of the model; empty where it is not known."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class CheckRecord(_Record):
    """What was compared, on the CPU, before the engines were built."""

    mode: Literal["auto", "full"]
    compared: tuple[CheckedSizes, ...]
    not_checked: tuple[str, ...]
    """Sentences: what was left out, and why."""
    left_to_pytorch: tuple[LeftToPyTorch, ...]

    def __str__(self) -> str:
        if not self.compared:
            return f"not compared: {'; '.join(self.not_checked) or 'there was nothing to compare'}"
        worst = max(max(sizes.lowered, sizes.engines) for sizes in self.compared)
        names = ", ".join(sizes.name for sizes in self.compared)
        left_out = f"; left out: {'; '.join(self.not_checked)}" if self.not_checked else ""
        return f"compared with the module at the sizes {names}, largest relative error {worst:.1e}{left_out}"


@dataclass(frozen=True, kw_only=True)
class Manifest(_Record):
    """All there is to know about an artifact without opening the ``.ep``."""

    format_version: FormatVersion = FORMAT_VERSION
    status: Literal["complete"] = "complete"
    checkpoint: CheckpointRecord | None
    """``None`` where a module was exported that came from no checkpoint."""
    ep: FileRecord
    golden: FileRecord | None = field(default=None, metadata={schema.SINCE: 1})
    """Inputs and outputs that were recorded at the export; ``None`` where none were."""
    onnx: tuple[FileRecord, ...] = field(default=(), metadata={schema.SINCE: 2})
    """The model for ONNX Runtime, and then the engines that it names; empty where none was made."""
    inputs: tuple[InputRecord, ...]
    """Inputs in the order in which the program takes them."""
    outputs: tuple[OutputRecord, ...]
    engines: tuple[EngineRecord, ...]
    fallback_ops: tuple[Name, ...]
    """Fallback: operators that run in PyTorch between the engines."""
    operators: OperatorCounts | None = field(default=None, metadata={schema.SINCE: 1})
    """``None`` where they were not counted."""
    backend: BackendRecord
    versions: Mapping[str, str] = field(hash=False)
    """Version of each distribution that took part. The ``.ep`` loads with the same minor version of torch."""
    timings: Timings
    check: CheckRecord | None = field(default=None, metadata={schema.SINCE: 2})
    """What was compared before the engines were built; ``None`` where nothing was."""
    verification: Mapping[str, Any] | None = field(default=None, hash=False)
    """Outcome of comparing the artifact with the module, where that was done."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Whatever the user attached."""
    notes: tuple[str, ...] = ()
    """Sentences: what was decided or given up during the export."""

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """All files that it lists, the ``.ep`` first."""
        return (self.ep, *([self.golden] if self.golden else []), *self.onnx)

    def to_dict(self) -> dict[str, Any]:
        """As ``_Record`` does, with the keys that its version has."""
        minor = self.format_version.partition(".")[2]
        return cast("dict[str, Any]", schema.plain(self, int(minor) if minor.isdecimal() else schema.LARGEST))

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Read and check; ``where`` names the file in messages.

        Returns:
            The manifest.

        Raises:
            ArtifactError: All that is wrong, each issue with its key path.
            UnsupportedFormatError: The major format version is another.
        """
        place = Place()
        data = schema.parse_json(text, place)
        if place.issues:
            raise ArtifactError(where, place.issues)
        return cls.from_dict(data, where)

    @classmethod
    def from_dict(cls, data: object, where: str) -> Manifest:
        """Like ``from_json``, from what ``json.loads`` gives.

        Returns:
            The manifest.

        Raises:
            ArtifactError: The values are not those of a manifest; the error lists every fault.
        """
        minor = _minor(data, where)
        place = Place(lenient=minor > _MINOR, minor=minor)
        manifest = schema.reader_of(cast("Any", cls))(data, place)
        if place.issues:
            raise ArtifactError(where, place.issues)
        return cast("Manifest", manifest)

    def to_json(self) -> str:
        """The text of the file, to be encoded as UTF-8; always of the version ``FORMAT_VERSION``.

        Returns:
            The JSON text.

        Raises:
            ArtifactError: The values make no manifest that could be read back.
        """
        try:
            data = replace(self, format_version=FORMAT_VERSION).to_dict()
        except RecursionError as error:  # a value of the user's that contains itself
            raise ArtifactError(self.ep.file, ["options, verification or extra is nested without end"]) from error
        Manifest.from_dict(data, self.ep.file)
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def issues(self) -> Iterator[str]:
        """What does not fit together."""
        named = {
            "inputs": [record.name for record in self.inputs],
            "outputs": [record.name for record in self.outputs],
            "engines": [record.name for record in self.engines],
        }
        for key, names in named.items():
            yield from (f"{key}: {name!r} is listed twice" for name in schema.repeated(names))
        ranges: dict[str, tuple[str, tuple[int, int, int]]] = {}
        for record in self.inputs:
            for axis, (low, opt, high, symbol) in enumerate(zip(record.min, record.opt, record.max, record.symbols)):
                here = f"axis {axis} of {record.name}", (low, opt, high)
                there = ranges.setdefault(symbol, here) if symbol else here
                if here[1] != there[1]:
                    yield f"inputs: symbol {symbol!r} is {there[1]} in {there[0]} but {here[1]} in {here[0]}"


def _minor(data: object, where: str) -> int:
    """The minor version to read by. Another major version is refused before anything else is looked at."""
    version = data.get("format_version") if isinstance(data, dict) else None
    found = re.fullmatch("([0-9]{1,6})[.]([0-9]{1,6})", version) if isinstance(version, str) else None
    major, minor = (int(part) for part in FORMAT_VERSION.split("."))
    if not found:
        return minor  # the reader of the field says so
    if int(found[1]) != major:
        advice = "upgrade lightning-trt-windows" if int(found[1]) > major else "export the checkpoint again"
        raise UnsupportedFormatError(
            where, [f"its format version is {version}, this lightning-trt-windows reads {major}.x: {advice}"]
        )
    if int(found[2]) > minor:
        warnings.warn(
            f"{where}: its format version {version} is newer than {FORMAT_VERSION}, what is new in it is ignored; "
            "upgrade lightning-trt-windows to see it",
            stacklevel=3,
        )
    return int(found[2])
