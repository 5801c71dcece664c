"""What single values of manifests and bundles may be. Standard library only."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from lightning_trt_windows.artifact import _schema as schema
from lightning_trt_windows.artifact._schema import Place
from lightning_trt_windows.artifact.shapes import DTYPES
from lightning_trt_windows.artifact.windows_names import illegal_on_windows

__all__ = ["FileName", "FormatVersion", "InputDtype", "Name", "OutputDtype", "Sha256", "SizeOrExpression"]


def _bare_name(value: Any, place: Place) -> str:
    file = schema.text(value, place)
    if isinstance(value, str) and file == value and (why := illegal_on_windows(file)):
        place.note(f"expected the name of a file without directory, legal on Windows; {schema.shown(file)} {why}")
    return file


def _size_or_expression(value: Any, place: Place) -> int | str:
    return schema.name(value, place) if isinstance(value, str) else schema.whole_number(value, place)


FormatVersion: TypeAlias = Annotated[str, schema.matching("[0-9]{1,6}[.][0-9]{1,6}", "a version such as '1.0'")]
FileName: TypeAlias = Annotated[str, _bare_name]
Name: TypeAlias = Annotated[str, schema.name]
Sha256: TypeAlias = Annotated[str, schema.matching("[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
InputDtype: TypeAlias = Annotated[str, schema.one_of(DTYPES)]
OutputDtype: TypeAlias = Annotated[str, schema.matching("[a-z][a-z0-9_]*", "a dtype as torch spells it")]
SizeOrExpression: TypeAlias = Annotated[int | str, _size_or_expression]
