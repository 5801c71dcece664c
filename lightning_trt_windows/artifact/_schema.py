"""Dataclasses as the schema of JSON that somebody else may have written.

A *reader* is a function of (value, place). It returns the checked value, or notes an issue at the place and returns a
harmless stand-in, so that one pass finds everything that is wrong; the caller raises where there is an issue.
``reader_of`` makes the reader of a type; ``Annotated[int, reader]`` brings its own.
"""

from __future__ import annotations

import functools
import json
import math
import re
import reprlib
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from lightning_trt_windows.artifact.shapes import DTYPES
from lightning_trt_windows.artifact.windows_names import illegal_on_windows

__all__ = [
    "DEEPEST",
    "LARGEST",
    "SINCE",
    "FileName",
    "FormatVersion",
    "InputDtype",
    "Name",
    "OutputDtype",
    "Place",
    "Reader",
    "Sha256",
    "SizeOrExpression",
    "finite",
    "flag",
    "matching",
    "name",
    "one_of",
    "parse_json",
    "plain",
    "reader_of",
    "repeated",
    "seconds",
    "shown",
    "text",
    "whole_number",
]

LARGEST = 2**63 - 1
"""Sizes and counters fit a signed 64-bit integer, so that a reader in any language can hold them."""
DEEPEST = 32
"""Levels of nesting in free-form values. Nobody writes more, and Python's stack is finite."""

SINCE = "since"
"""Key in the metadata of a dataclass field: the minor version that brought it, which is 0 where there is none. Such a
field has a default, which is what older documents mean."""

_MISSING = object()
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


@dataclass(frozen=True)
class Place:
    """Where in the document we are, and the list of issues that all places of the document share."""

    path: str = ""
    """Path as in ``inputs[0].min``; empty at the top."""
    issues: list[str] = field(default_factory=list)
    lenient: bool = False
    """Whether unknown keys and choices pass, because the document is of a newer minor version."""
    minor: int = LARGEST
    """Minor version of the document, which has no keys that came later; by default the newest."""

    def key(self, key: str) -> Place:
        """The place of one key of the object here."""
        return Place(f"{self.path}.{key}" if self.path else key, self.issues, self.lenient, self.minor)

    def index(self, number: int) -> Place:
        """The place of one item of the list here."""
        return Place(f"{self.path}[{number}]", self.issues, self.lenient, self.minor)

    def note(self, issue: str) -> None:
        """Add an issue, led by the path."""
        self.issues.append(f"{self.path}: {issue}" if self.path else issue)

    def expected(self, what: str, value: object) -> None:
        """Note that ``value`` is not ``what`` it should be."""
        self.note(f"missing, expected {what}" if value is _MISSING else f"expected {what}, got {shown(value)}")


Reader: TypeAlias = Callable[[Any, Place], Any]


def shown(value: object) -> str:
    """``value`` for a message, short whatever it is."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python may refuse to print it
        return f"a number of {value.bit_length()} bits"
    return _repr.repr(value).encode("utf-8", "backslashreplace").decode()


def text(value: Any, place: Place) -> str:
    """Any text that can be written as UTF-8."""
    if not isinstance(value, str) or not _is_unicode(value):
        place.expected("text", value)
        return ""
    return value


def name(value: Any, place: Place) -> str:
    """Text that is not empty and prints on one line."""
    if not isinstance(value, str) or not value or not value.isprintable():
        place.expected("a name", value)
        return ""
    return value


def matching(pattern: str, what: str) -> Reader:
    """Reader of text that matches ``pattern`` from end to end."""

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            place.expected(what, value)
            return ""
        return value

    return read


def whole_number(value: Any, place: Place) -> int:
    """A whole number from 0 to ``LARGEST``."""
    # bool is an int to Python, never a size to us
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        place.expected("a whole number from 0 to 2^63-1", value)
        return 0
    return value


def seconds(value: Any, place: Place) -> float:
    """A duration: finite, not negative."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        place.expected("a duration in seconds", value)
        return 0.0
    return float(value)


def finite(value: Any, place: Place) -> float:
    """A number of either sign, neither infinite nor NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        place.expected("a finite number", value)
        return 0.0
    return float(value)


def flag(value: Any, place: Place) -> bool:
    """``true`` or ``false``."""
    if isinstance(value, bool):
        return value
    place.expected("true or false", value)
    return False


def one_of(choices: Collection[str]) -> Reader:
    """Reader of one of ``choices``. A newer minor version may have added some."""

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str) or (value not in choices and not place.lenient):
            place.expected(f"one of {', '.join(sorted(choices))}", value)
            return ""
        return value

    return read


def json_object(value: Any, place: Place) -> dict[str, Any]:
    """Free-form object with any JSON in it."""
    if not isinstance(value, dict):
        place.expected("an object", value)
        return {}
    _check_free(value, place, DEEPEST)
    return value


@functools.cache
def reader_of(kind: Any) -> Reader:
    """Reader of a type: dataclass, ``tuple[X, ...]``, ``X | None``, ``Literal``, ``Mapping``, scalar, ``Annotated``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        reader: Reader = arguments[1]
        return reader
    if origin in (Union, types.UnionType) and arguments[1:] == (types.NoneType,):
        return _or_null(reader_of(arguments[0]))
    if origin is tuple and arguments[1:] == (...,):
        return _list_of(reader_of(arguments[0]))
    if origin is Literal:
        return one_of(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return json_object if arguments[1] is Any else _object_of(reader_of(arguments[1]))
    if is_dataclass(kind):
        return _record(kind)
    return {str: text, int: whole_number, float: seconds}[kind]


def _or_null(reader: Reader) -> Reader:
    return lambda value, place: None if value is None else reader(value, place)


def _list_of(reader: Reader) -> Reader:
    def read(value: Any, place: Place) -> tuple[Any, ...]:
        # a str is a sequence to Python, never a list to us
        if not isinstance(value, list):
            place.expected("a list", value)
            return ()
        return tuple(reader(item, place.index(i)) for i, item in enumerate(value))

    return read


def _object_of(reader: Reader) -> Reader:
    def read(value: Any, place: Place) -> dict[str, Any]:
        return {key: reader(item, place.key(key)) for key, item in json_object(value, place).items()}

    return read


def _record(kind: Any) -> Reader:
    """Reader of a dataclass: every field is a required key, unless the document is older than the field.

    Its ``issues()``, if any, checks across sound fields.
    """
    hints = get_type_hints(kind, include_extras=True)
    every = {f.name: reader_of(hints[f.name]) for f in fields(kind)}
    since = {f.name: _since(f) for f in fields(kind)}

    def read(value: Any, place: Place) -> Any:
        before = len(place.issues)
        readers = {key: reader for key, reader in every.items() if since[key] <= place.minor}
        if not isinstance(value, dict):
            place.expected("an object", value)
            place = Place(place.path)  # one issue says it all: what is missing from a non-object goes to nobody
            value = {}
        elif not place.lenient:
            for key in sorted(value.keys() - readers.keys(), key=str):
                place.note(f"unknown key {shown(key)}")
        record = kind(**{key: read(value.get(key, _MISSING), place.key(key)) for key, read in readers.items()})
        if len(place.issues) == before and hasattr(record, "issues"):
            for issue in record.issues():
                place.note(issue)
        return record

    return read


def plain(value: Any, minor: int = LARGEST) -> Any:
    """``value`` as JSON has it: dataclasses and mappings become dicts, sequences become lists.

    Fields that came after the minor version ``minor`` are left out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), minor) for f in fields(value) if _since(f) <= minor}
    if isinstance(value, Mapping):
        return {key: plain(item, minor) for key, item in value.items()}
    return [plain(item, minor) for item in value] if isinstance(value, (list, tuple)) else value


def _since(item: Field[Any]) -> int:
    minor: int = item.metadata.get(SINCE, 0)
    return minor


def parse_json(document: str, place: Place) -> Any:
    """Parse strictly: no repeated keys, no NaN, nothing deeper or longer than Python can hold.

    Returns:
        What ``json.loads`` gives; ``None`` where a fault was noted in ``place``.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key in repeated(key for key, _ in pairs):
            place.note(f"key {shown(key)} stands more than once in one object")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(document, object_pairs_hook=unique, parse_constant=refuse)
    except ValueError as error:  # bad syntax, or more digits than Python converts
        place.note(f"not JSON: {error}")
    except RecursionError:
        place.note("not a manifest: nested too deeply")
    return None


def repeated(names: Iterable[str]) -> list[str]:
    """The names that come more than once, sorted."""
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]  # add is None


def _is_unicode(value: str) -> bool:
    """Whether there is no half surrogate pair, which JSON can spell and UTF-8 cannot."""
    return not re.search("[\ud800-\udfff]", value)


def _check_free(value: Any, place: Place, depth: int) -> None:
    """Note whatever under ``value`` JSON does not carry to every reader unchanged."""
    if depth < 0:
        place.note(f"nested more than {DEEPEST} levels deep")
    elif isinstance(value, dict):
        for key, item in value.items():
            if name(key, place):
                _check_free(item, place.key(key), depth - 1)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_free(item, place.index(i), depth - 1)
    elif isinstance(value, str):
        text(value, place)
    elif isinstance(value, int):
        if value.bit_length() > 64:
            place.expected("a number of at most 64 bits", value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            place.expected("a finite number", value)
    elif value is not None:
        place.expected("text, a number, a flag, null, a list or an object", value)


def _bare_name(value: Any, place: Place) -> str:
    file = text(value, place)
    if isinstance(value, str) and file == value and (why := illegal_on_windows(file)):
        place.note(f"expected the name of a file without directory, legal on Windows; {shown(file)} {why}")
    return file


def _size_or_expression(value: Any, place: Place) -> int | str:
    return name(value, place) if isinstance(value, str) else whole_number(value, place)


FormatVersion: TypeAlias = Annotated[str, matching("[0-9]{1,6}[.][0-9]{1,6}", "a version such as '1.0'")]
FileName: TypeAlias = Annotated[str, _bare_name]
Name: TypeAlias = Annotated[str, name]
Sha256: TypeAlias = Annotated[str, matching("[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
InputDtype: TypeAlias = Annotated[str, one_of(DTYPES)]
OutputDtype: TypeAlias = Annotated[str, matching("[a-z][a-z0-9_]*", "a dtype as torch spells it")]
SizeOrExpression: TypeAlias = Annotated[int | str, _size_or_expression]
