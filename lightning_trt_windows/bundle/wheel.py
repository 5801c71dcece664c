"""This package as a wheel, made of its installed files: what a bundle brings while no index has it.

The wheel is written by the rules of the format, not built, so that it can be made wherever the package runs: nothing is
downloaded, no build backend is needed, and the same files give the same bytes. Standard library only.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from lightning_trt_windows.bundle.zipped import Member, archive_bytes, bytes_member, text_member

__all__ = ["PUBLISHED", "is_published", "package_version", "package_wheel"]

PUBLISHED: tuple[str, ...] = ()
"""Versions of this package that PyPI has: none yet."""

_NAME = "lightning_trt_windows"
_DISTRIBUTION = "lightning-trt-windows"
_UNKNOWN = "0+unknown"
"""Version of a checkout that is not installed, in the form that pip takes."""


def package_version() -> str:
    """Version of this package; ``0+unknown`` for a checkout that is not installed."""
    found = _installed()
    return found.version if found else _UNKNOWN


def is_published() -> bool:
    """Whether pip finds on PyPI what is installed here: a version that is there, and not from a folder or a file."""
    found = _installed()
    return bool(found and found.version in PUBLISHED and found.read_text("direct_url.json") is None)


def package_wheel(folder: str) -> Member:
    """The wheel, as a file of a bundle.

    Args:
        folder: Where it goes in the bundle.
    """
    name = f"{_NAME}-{package_version()}-py3-none-any.whl"
    return bytes_member(f"{folder}/{name}", archive_bytes(list(_members())))


def _installed() -> Distribution | None:
    try:
        return distribution(_DISTRIBUTION)
    except PackageNotFoundError:
        return None


def _members() -> Iterator[Member]:
    written = [*_package(), *_metadata()]
    yield from written
    name = f"{_info()}/RECORD"
    rows = [f"{member.name},sha256={_digest(member)},{member.size}" for member in written]
    yield text_member(name, "\n".join([*rows, f"{name},,"]) + "\n")


def _package() -> Iterator[Member]:
    """Every file of the package but bytecode and what editors leave; an editable install lists none of them."""
    root = Path(str(files(_NAME)))
    paths = (path for path in root.rglob("*") if path.is_file())
    names = {path.relative_to(root.parent).as_posix(): path for path in paths}
    for name, path in sorted(names.items()):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        if not hidden and not name.endswith((".pyc", "~")):
            yield bytes_member(name, path.read_bytes())


def _metadata() -> Iterator[Member]:
    found = _installed()
    text = (found.read_text("METADATA") if found else None) or (
        f"Metadata-Version: 2.1\nName: {_DISTRIBUTION}\nVersion: {_UNKNOWN}\n"
    )
    # the text below the headers is the project's README, which an editable install has as it once was
    headers = text.partition("\n\n")[0].strip().splitlines()
    kept = [line for line in headers if not line.startswith("Description-Content-Type:")]
    yield text_member(f"{_info()}/METADATA", "\n".join(kept) + "\n")
    wheel = f"Wheel-Version: 1.0\nGenerator: {_DISTRIBUTION} collect\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    yield text_member(f"{_info()}/WHEEL", wheel)
    for name in ("entry_points.txt", "licenses/LICENSE"):
        if found and (content := found.read_text(name)):
            yield text_member(f"{_info()}/{name}", content)


def _info() -> str:
    return f"{_NAME}-{package_version()}.dist-info"


def _digest(member: Member) -> str:
    """The SHA-256 of a member as RECORD has it."""
    return base64.urlsafe_b64encode(bytes.fromhex(member.sha256)).rstrip(b"=").decode()
