"""Files that another program has open: waited for, and then said so; on Windows, where that matters."""

from __future__ import annotations

import mmap
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.artifacts import put
from support.paths import DATA

from lightning_trt_windows import collect
from lightning_trt_windows.artifact import open_elsewhere
from lightning_trt_windows.artifact.artifact import ArtifactPaths, check_artifact, read_artifact, remove_manifest
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.golden_files import golden_issues
from lightning_trt_windows.artifact.open_elsewhere import is_open_elsewhere, patiently, reason_of
from lightning_trt_windows.bundle.reading import extract_bundle
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, OutputError
from lightning_trt_windows.runtime.runtime_cache import RuntimeCache

on_windows = pytest.mark.skipif(sys.platform != "win32", reason="elsewhere a file that is open can be replaced")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a moment only, where the wait is to fail."""
    monkeypatch.setattr(open_elsewhere, "SECONDS", 0.2)


@contextmanager
def held(path: Path, *, seconds: float | None = None) -> Iterator[None]:
    """Keep ``path`` open for everybody else, as an exclusive program does: for the block, or for some seconds of it."""
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]  # Windows has it
    kernel.CreateFileW.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.CreateFileW(str(path), 0x80000000, 0, None, 3, 0, None))
    assert handle.value not in (None, ctypes.c_void_p(-1).value)
    closing = threading.Timer(seconds or 0, lambda: kernel.CloseHandle(handle))
    if seconds is not None:
        closing.start()
    try:
        yield
    finally:
        if seconds is None:
            kernel.CloseHandle(handle)
        else:
            closing.join()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the real sample."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path / "tiny.windows.ep"


class Config:
    """What TensorRT-RTX's runtime cache is attached to, as far as reading the file goes."""

    def create_runtime_cache(self) -> object:
        """A new one."""
        return object()


@on_windows
class TestOnWindows:
    """The real system says no."""

    def test_a_file_that_is_let_go_is_replaced(self, tmp_path: Path) -> None:
        """After the scanner has looked at it."""
        path = tmp_path / "m.ep"
        path.write_bytes(b"old")
        with held(path, seconds=0.4), atomic_file(path) as file:
            file.write(b"new")
        assert path.read_bytes() == b"new"

    @pytest.mark.usefixtures("hurried")
    def test_one_that_stays_open_is_named(self, tmp_path: Path) -> None:
        """With what to do, and nothing is left beside it."""
        path = tmp_path / "m.ep"
        path.write_bytes(b"old")
        with (
            held(path),
            pytest.raises(OutputError, match=r"open in another program.*close it"),
            atomic_file(path) as file,
        ):
            file.write(b"new")
        assert [p.name for p in tmp_path.iterdir()] == ["m.ep"] and path.read_bytes() == b"old"

    @pytest.mark.usefixtures("hurried")
    def test_an_ordinary_reader_is_enough(self, tmp_path: Path) -> None:
        """A second Python that has it open, or has it mapped."""
        path = tmp_path / "m.ep"
        path.write_bytes(b"old")
        with path.open("rb"), pytest.raises(OutputError, match="open in another program"), atomic_file(path) as file:
            file.write(b"new")
        stream = path.open("rb")
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        stream.close()
        with mapped, pytest.raises(OutputError, match="open in another program"), atomic_file(path) as file:
            file.write(b"new")

    def test_reading_waits_too(self, tiny: Path) -> None:
        """Both files of an artifact."""
        for path in (tiny, tiny.with_suffix(".json")):
            with held(path, seconds=0.4):
                check_artifact(read_artifact(tiny))

    @pytest.mark.usefixtures("hurried")
    def test_what_cannot_be_read_is_named(self, tiny: Path) -> None:
        """And that is no damage."""
        for path in (tiny, tiny.with_suffix(".json")):
            with held(path), pytest.raises(ArtifactError, match="cannot be read: it is open in another program"):
                check_artifact(read_artifact(tiny))

    @pytest.mark.usefixtures("hurried")
    def test_whatever_else_is_read(self, tmp_path: Path) -> None:
        """Goldens, what goes into a bundle, a bundle itself, and TensorRT-RTX's kernels."""
        put(tmp_path / "run", "m", golden=b"recorded")
        paths = ArtifactPaths.of(tmp_path / "run" / "m.windows.ep")
        with held(paths.golden):
            assert any("open in another program" in issue for issue in golden_issues(read_artifact(paths.ep)))
        with held(paths.ep), pytest.raises((ArtifactError, OutputError), match="open in another program"):
            collect(tmp_path / "run", tmp_path / "b.zip")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip").path
        with held(bundle), pytest.raises(ArtifactError, match="open in another program"):
            extract_bundle(bundle, tmp_path / "out")
        with held(bundle), pytest.raises(OutputError, match="open in another program"):
            collect(tmp_path / "run", bundle)
        kernels = tmp_path / "kernels.bin"
        kernels.write_bytes(b"kernels")
        with held(kernels), pytest.raises(ConfigurationError, match="open in another program"):
            RuntimeCache(kernels).attach(Config())

    @pytest.mark.usefixtures("hurried")
    def test_a_manifest_that_cannot_go(self, tiny: Path) -> None:
        """Before an export writes over its ``.ep``."""
        with held(tiny.with_suffix(".json")), pytest.raises(OutputError, match="open in another program"):
            remove_manifest(ArtifactPaths.of(tiny))


def test_other_failures_are_not_waited_for(tmp_path: Path) -> None:
    """A folder in the way stays in the way."""
    (tmp_path / "m.ep").mkdir()
    start = time.monotonic()
    with pytest.raises(OutputError, match="is a directory"), atomic_file(tmp_path / "m.ep"):
        pass
    assert time.monotonic() - start < open_elsewhere.SECONDS / 2


@pytest.mark.linux("the other systems")
def test_nothing_is_tried_twice_elsewhere(tmp_path: Path) -> None:
    """A lack of permission is one there."""
    calls = []

    def denied() -> None:
        calls.append(1)
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m").touch()
    with pytest.raises(PermissionError) as caught:
        patiently(denied, tmp_path / "m", replaces=True)
    assert len(calls) == 1 and not is_open_elsewhere(caught.value, tmp_path / "m", replaces=True)
    assert reason_of(caught.value, tmp_path / "m") == "Permission denied"
