"""What went wrong on Windows once, each kind: output, paths, missing packages, line ends, keys, pipes."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.artifacts import put
from support.paths import DATA
from support.small_module import NET
from support.stand_in import StandIn, export_for_test
from torch import nn

from lightning_trt_windows import DimRange, InputSpec, collect, verify
from lightning_trt_windows._compat.bindings import import_failure
from lightning_trt_windows.artifact import windows_names
from lightning_trt_windows.artifact.artifact import (
    Artifact,
    ArtifactPaths,
    check_artifact,
    read_artifact,
    write_manifest,
)
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.signing import check_signature, make_key, sign
from lightning_trt_windows.bundle.layout import LONGEST
from lightning_trt_windows.bundle.reading import extract_bundle
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError, OutputError
from lightning_trt_windows.runtime import loading
from lightning_trt_windows.runtime.program_reader import damage_as_artifact_error
from lightning_trt_windows.runtime.runtime_cache import RuntimeCache
from lightning_trt_windows.storage.remote_file import place_of

WITHOUT_TORCH = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy", "safetensors"):
            raise ImportError(f"{name} is refused here")
sys.meta_path.insert(0, Refuse())
import importlib.metadata
real = importlib.metadata.version
def version(name):
    if name == "torch":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
from lightning_trt_windows.cli import main
sys.exit(main(sys.argv[1:]))
"""
LOAD = """
from lightning_trt_windows.errors import LightningTrtError
try:
    lightning_trt_windows.load(sys.argv[1])
except LightningTrtError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
ONE_BY_ONE = """
import json
codes = []
for command in json.loads(sys.argv[1]):
    codes.append(main(command))
    print(end="\\f", flush=True)
print(json.dumps(codes))
"""
EACH = WITHOUT_TORCH.replace("sys.exit(main(sys.argv[1:]))", ONE_BY_ONE)
EACH_WITH_TORCH = "import sys; from lightning_trt_windows.cli import main" + ONE_BY_ONE
WITHOUT_LONG_PATHS = """
import builtins, errno, io, os, sys
def limited(call):
    def checked(path, *arguments, **options):
        if isinstance(path, (str, os.PathLike)) and len(os.path.abspath(os.fspath(path))) >= 260:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", os.fspath(path))
        return call(path, *arguments, **options)
    return checked
builtins.open = io.open = limited(io.open)
os.open, os.stat, os.mkdir, os.scandir, os.listdir = map(limited, (os.open, os.stat, os.mkdir, os.scandir, os.listdir))
from lightning_trt_windows.artifact import windows_names
from lightning_trt_windows.cli import main
class System:
    platform = "win32"
windows_names.sys = System
sys.exit(main(sys.argv[1:]))
"""
MAIN = "import sys; from lightning_trt_windows.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """An artifact with goldens."""
    path = tmp_path_factory.mktemp("run") / "m.windows.ep"
    inputs = {"input": InputSpec((DimRange(1, 2, 4, name="batch"), 8))}
    return export_for_test(nn.Linear(8, 4).eval(), inputs, path, golden=True)


@pytest.fixture
def copied(built: StandIn, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    for path in built.artifact.path.parent.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path / built.artifact.path.name


def run(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run ``code`` in a fresh interpreter."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=False, **{"capture_output": True, **options})


def each(commands: list[list[object]], code: str = EACH, **options: Any) -> tuple[list[int], list[bytes], bytes]:
    """Run commands one after the other in one process, as each takes one; without PyTorch, whose import takes seconds.

    Returns:
        The exit code of each and what it printed, and what all of them wrote to standard error.
    """
    done = run(code, json.dumps([[str(word) for word in command] for command in commands]), **options)
    *outputs, codes = done.stdout.split(b"\f")
    return json.loads(codes or b"[]"), outputs, done.stderr


class TestWithoutPyTorch:
    """A PC on which nothing is installed yet."""

    def test_verify_says_what_it_can(self, copied: Path) -> None:
        """Files, hashes and goldens are compared, and why the rest is not is said."""
        done = run(WITHOUT_TORCH, "verify", copied)
        assert done.returncode == 0, done.stderr
        assert b"not checked here: PyTorch is not installed here" in done.stdout, done.stdout

    def test_damaged_goldens_are_found(self, copied: Path) -> None:
        """Which takes no PyTorch."""
        golden = ArtifactPaths.of(copied).golden
        golden.write_bytes(golden.read_bytes()[:-1])
        done = run(WITHOUT_TORCH, "verify", copied)
        assert done.returncode == 7 and b"goldens: " in done.stdout and b"Traceback" not in done.stderr

    def test_goldens_that_are_not_there_are_named(self, copied: Path) -> None:
        """A mistyped ``--golden`` is no success, on a machine that compares nothing too."""
        done = run(WITHOUT_TORCH, "verify", copied, "--golden", copied.with_name("none.safetensors"))
        assert done.returncode == 2 and b"there are no goldens at" in done.stderr and not done.stdout, done

    def test_other_commands(self, copied: Path, tmp_path: Path) -> None:
        """Everything that needs no PyTorch works without."""
        run_directory, key = copied.parent, tmp_path / "k.pem"
        commands: list[list[object]] = [
            ["inspect", "--check", copied],
            ["collect", run_directory, "--out", tmp_path / "b.zip"],
            ["inspect", "--check", tmp_path / "b.zip"],
            ["report", run_directory, "--out", tmp_path / "r.html"],
            ["index", run_directory],
            ["keygen", key],
            ["sign", copied, "--key", key],
            ["verify", copied, "--key", f"{key}.pub"],
        ]
        codes, _, errors = each(commands)
        assert codes == [0] * len(commands) and b"Traceback" not in errors, (codes, errors)
        done = run(WITHOUT_TORCH, "doctor", copied)
        assert done.returncode == 3 and b"PyTorch is not installed" in done.stdout and not done.stderr, done

    def test_what_needs_it_says_so(self, copied: Path, tmp_path: Path) -> None:
        """``load``, ``bench`` and a bundle's script: with the version to install, and no traceback."""
        extract_bundle(collect(copied.parent, tmp_path / "b.zip").path, tmp_path / "unpacked")
        load = WITHOUT_TORCH.replace("sys.exit(main(sys.argv[1:]))", "import lightning_trt_windows") + LOAD
        script = (
            WITHOUT_TORCH.partition("from lightning")[0] + "import runpy\nrunpy.run_path('run.py', run_name='__main__')"
        )
        for code, arguments, options in (
            (WITHOUT_TORCH, ["bench", copied], {}),
            (load, [copied], {}),
            (script, [], {"cwd": tmp_path / "unpacked"}),
        ):
            done = run(code, *arguments, **options)
            assert b"Traceback" not in done.stderr, done.stderr.decode()
            assert b"wanted PyTorch 2." in done.stderr and b"found none: pip install torch==2." in done.stderr, done
            assert done.returncode == 3

    @pytest.mark.skipif(sys.platform != "win32", reason="DLLs")
    def test_a_library_that_needs_another_one(self, tmp_path: Path) -> None:
        """The real failures of Windows: a DLL that is not there, and an extension module that is none."""
        import ctypes
        import importlib

        with pytest.raises(OSError, match="nowhere") as missing:
            ctypes.WinDLL(str(tmp_path / "nowhere.dll"))  # as tensorrt_rtx loads its own
        assert "a DLL is missing: install the Microsoft Visual C++" in import_failure(missing.value)
        handle = ctypes.WinDLL("kernel32", use_last_error=True).LoadLibraryExW(
            str(tmp_path / "nowhere.dll"), None, 0x1100
        )
        assert handle == 0
        as_torch = ctypes.WinError(ctypes.get_last_error())  # as PyTorch raises it
        assert as_torch.winerror == 126 and "a DLL is missing: install" in import_failure(as_torch)
        (tmp_path / "broken_extension.pyd").write_bytes(b"MZ" + bytes(500))
        sys.path.insert(0, str(tmp_path))
        try:
            with pytest.raises(ImportError) as broken:
                importlib.import_module("broken_extension")
        finally:
            sys.path.remove(str(tmp_path))
        assert "install" in import_failure(broken.value)


class TestOutput:
    """Whatever the code page."""

    NAME = "mod\u00e8le-\u6a21\u578b"

    @pytest.mark.parametrize("encoding", ["cp437", "cp932", "cp1252"])
    def test_json_is_ascii(self, tmp_path: Path, encoding: str) -> None:
        """So that it is valid in every one of them, whichever command prints it."""
        put(tmp_path / "run", self.NAME)
        (tmp_path / self.NAME).mkdir()
        file, key = tmp_path / "run" / f"{self.NAME}.windows.ep", tmp_path / f"{self.NAME}.pem"
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        commands: list[list[object]] = [
            ["inspect", tmp_path / "run", "--json"],
            ["inspect", file, "--json"],
            ["verify", file, "--json", "--no-numbers"],
            ["collect", tmp_path / "run", "--out", tmp_path / "b.zip", "--json"],
            ["collect", tmp_path / "run", "--out", tmp_path / "hub", "--layout", "huggingface", "--json"],
            ["report", tmp_path / "run", "--out", tmp_path / f"{self.NAME}.html", "--json"],
            ["index", tmp_path / "run", "--json"],
            ["doctor", file, "--directory", tmp_path / self.NAME, "--json"],
            ["keygen", key, "--json"],
            ["sign", file, "--key", key, "--json"],
        ]
        if not importlib.util.find_spec("huggingface_hub"):  # which a PC has no need of
            commands = [command for command in commands if "huggingface" not in command]
        codes, outputs, errors = each(commands, env=environment)
        assert len(codes) == len(commands), errors
        for command, output in zip(commands, outputs, strict=True):
            assert output.isascii(), command
            assert self.NAME in json.dumps(json.loads(output), ensure_ascii=False), (command, errors)

    @pytest.mark.linux("exports")
    def test_json_of_exports_is_ascii(self, tmp_path: Path) -> None:
        """Of what was made and of what failed, and of the model for ONNX Runtime."""
        from lightning.pytorch import Trainer

        source, checkpoint = tmp_path / "net.py", tmp_path / f"{self.NAME}.ckpt"
        source.write_text(NET, encoding="utf-8")
        scope: dict[str, Any] = {}
        exec(NET, scope)
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.strategy.connect(scope["Net"]())
        trainer.save_checkpoint(checkpoint)
        torch.save({}, tmp_path / f"{self.NAME}-leer.ckpt")
        export = ["export", checkpoint, "--module", f"{source}:Net", "--json"]
        commands: list[list[object]] = [
            [*export, "--input", "x=float32[batch:1..2..4,4]"],
            [*export[:1], tmp_path / f"{self.NAME}-leer.ckpt", *export[2:], "--input", "x=float32[batch:1..2..4,4]"],
            ["onnx", tmp_path / f"{self.NAME}.windows.ep", "--json"],
            ["onnx", tmp_path / f"{self.NAME}.windows.ep", "--out", tmp_path / self.NAME, "--embed", "--json"],
        ]
        environment = {**os.environ, "PYTHONIOENCODING": "cp437", "PYTHONUTF8": "0"}
        codes, outputs, errors = each(commands, EACH_WITH_TORCH, env=environment)
        assert codes == [0, 9, 0, 0], errors.decode("cp437")
        for command, output in zip(commands, outputs, strict=True):
            assert output.isascii(), command
            assert self.NAME in json.dumps(json.loads(output), ensure_ascii=False), (command, errors)
        assert rb"\u6a21" in errors and b"Traceback" not in errors, errors

    def test_json_of_figures_is_ascii(self, built: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of ``bench``, with partitions in the place of engines; without a GPU it says why there are none."""
        for path in built.artifact.path.parent.iterdir():
            shutil.copyfile(path, tmp_path / path.name.replace("m.", f"{self.NAME}.", 1))
        paths = ArtifactPaths.of(tmp_path / f"{self.NAME}.windows.ep")
        manifest = read_artifact(built.artifact.path).manifest
        ep = dataclasses.replace(manifest.ep, file=paths.ep.name)
        write_manifest(paths.manifest, dataclasses.replace(manifest, ep=ep, golden=None))
        environment = {**os.environ, "PYTHONIOENCODING": "cp437", "PYTHONUTF8": "0", "CUDA_VISIBLE_DEVICES": ""}
        done = run(MAIN, "bench", paths.ep, "--json", env=environment)
        assert (done.returncode, done.stdout) == (3, b""), done
        assert rb"\u6a21" in done.stderr and b"Traceback" not in done.stderr, done.stderr
        stand_in = StandIn(read_artifact(paths.ep), built.partitions)
        monkeypatch.setattr(loading, "load", lambda *_, **__: stand_in.load())
        printed = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="cp437"))
        assert main(["bench", str(paths.ep), "--calls", "2", "--batch", "2", "--json"]) == 0
        assert printed.getvalue().isascii()
        assert json.loads(printed.getvalue())["artifact"] == paths.ep.name

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_text_never_fails(self, tmp_path: Path, encoding: str) -> None:
        """Letters that a code page lacks are shown as escapes, on both streams, and by a bundle's script too."""
        put(tmp_path / "run", self.NAME)
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = run(MAIN, "inspect", tmp_path / "run", env=environment)
        assert done.returncode == 0 and rb"\u6a21" in done.stdout
        commands: list[list[object]] = [
            ["verify", tmp_path / "run" / f"{self.NAME}.windows.ep", "--no-numbers"],
            ["collect", tmp_path / "run", "--out", tmp_path / f"{self.NAME}.zip"],
            ["inspect", tmp_path / f"{self.NAME}.zip"],
            ["report", tmp_path / "run", "--out", tmp_path / f"{self.NAME}.html"],
            ["index", tmp_path / "run"],
            ["doctor", tmp_path / "run" / f"{self.NAME}.windows.ep"],
        ]
        codes, _, errors = each(commands, env=environment)
        assert len(codes) == len(commands) and b"Unicode" not in errors and b"Traceback" not in errors, errors
        done = run(MAIN, "inspect", tmp_path / f"{self.NAME}.ep", env=environment)
        assert done.returncode == 7 and rb"\u6a21" in done.stderr and b"Traceback" not in done.stderr
        extract_bundle(collect(tmp_path / "run", tmp_path / "b.zip").path, tmp_path / "unpacked")
        environment["CUDA_VISIBLE_DEVICES"] = ""
        script = [sys.executable, "run.py"]
        started = subprocess.run(script, cwd=tmp_path / "unpacked", env=environment, capture_output=True, check=False)
        assert rb"\u6a21" in started.stdout and b"Unicode" not in started.stderr, started.stderr

    def test_nobody_reads_to_the_end(self, copied: Path) -> None:
        """``inspect FILE | more``, ended early: no traceback."""
        read, write = os.pipe()
        os.close(read)
        done = run(MAIN, "inspect", "--json", copied, capture_output=False, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b"")


class TestPaths:
    """Cases, drives and lengths."""

    @pytest.mark.skipif(sys.platform != "win32", reason="names differ in case elsewhere")
    def test_another_case_is_the_same_artifact(self, copied: Path) -> None:
        """As NTFS has it: goldens are found and belong to it."""
        typed = copied.with_name(copied.name.upper())
        check_artifact(read_artifact(typed))
        assert verify(typed, numbers=False).issues == ()

    @pytest.mark.skipif(sys.platform != "win32", reason="drives are Windows'")
    def test_a_drive_in_a_url(self) -> None:
        """With three slashes, as browsers write it."""
        assert place_of("file:///C:/runs/a.ckpt") == Path("C:/runs/a.ckpt")
        assert place_of("file://C:/runs/a.ckpt") == Path("C:/runs/a.ckpt")
        assert place_of("local:///D:/runs") == Path("D:/runs")

    def test_a_space_in_a_url(self, tmp_path: Path) -> None:
        """Where it is written ``%20`` and there is no file of that name."""
        (tmp_path / "my runs").mkdir()
        assert (
            place_of(f"file://{'/' * (sys.platform == 'win32')}{tmp_path.as_posix()}/my%20runs") == tmp_path / "my runs"
        )

    @pytest.mark.parametrize("length", [20, 142, 300])
    def test_names_in_bundles_fit_below_downloads(self, tmp_path: Path, length: int) -> None:
        """With engines and goldens, from several folders of a run, and unpacked there."""
        stem = ArtifactPaths.beside(f"{'x' * length}.ckpt").ep.name.removesuffix(".windows.ep")
        for folder in ("lightning_logs/version_0/checkpoints", "lightning_logs/version_1/checkpoints"):
            put(tmp_path / "run" / folder, stem, golden=b"recorded")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", engines=True)
        assert max(map(len, bundle.files)) <= LONGEST
        downloads = "C:\\Users\\" + "u" * 20 + "\\Downloads\\" + "b" * 40 + "\\"
        assert max(len(downloads + name) for name in bundle.files) < windows_names.LONGEST_PATH
        assert len(extract_bundle(bundle.path, tmp_path / "out")) == 2

    def test_a_path_that_is_too_long_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Windows answers that it does not exist. Wine has no such limit, so a file that is not there stands for it."""
        monkeypatch.setattr(windows_names.sys, "platform", "win32")
        folder = tmp_path / ("d" * 100) / ("e" * 100)
        with pytest.raises(ArtifactError, match=r"does not exist, or cannot be reached: its path has \d+ characters"):
            read_artifact(folder / f"{'m' * 60}.windows.ep")
        monkeypatch.setattr(windows_names.sys, "platform", sys.platform)

    @pytest.mark.linux("calls of the system are replaced, as Windows answers without long paths")
    def test_every_command_says_that_a_path_is_too_long(self, tmp_path: Path) -> None:
        """One that exists, and that Windows does not find: reading it, and writing beside it."""
        folder = tmp_path / ("d" * 120) / ("e" * 120)
        folder.mkdir(parents=True)
        put(folder, "m", golden=b"recorded")
        file, short = folder / "m.windows.ep", tmp_path / "s"
        put(short, "m")
        for command in (
            ["inspect", file],
            ["verify", file],
            ["doctor", file],
            ["collect", folder, "--out", tmp_path / "b.zip"],
            ["report", short, "--out", folder / "r.html"],
            ["collect", short, "--out", folder / "b.zip"],
        ):
            done = run(WITHOUT_LONG_PATHS, *command)
            assert done.returncode not in (0, 1) and b"Traceback" not in done.stderr, (command, done)
            assert b"without long paths enabled Windows takes 259" in done.stderr, (command, done.stderr)


class TestFiles:
    """Line ends, keys and caches."""

    def test_what_the_script_does_is_said(self, tmp_path: Path) -> None:
        """In the bundle's README, with goldens and without."""
        for name, golden, words in (
            (
                "with",
                b"recorded",
                "versions first, compares its outputs with those recorded at the export, and times it.",
            ),
            ("without", None, "the versions first, and times it."),
        ):
            put(tmp_path / name, "m", golden=golden)
            extract_bundle(collect(tmp_path / name, tmp_path / f"{name}.zip").path, tmp_path / f"{name}-out")
            text = " ".join((tmp_path / f"{name}-out" / "README.md").read_text(encoding="utf-8").split())
            assert words in text, text

    def test_line_ends_are_named(self, tmp_path: Path) -> None:
        """Git made CRLF of a manifest's line ends: the file is sound, and the signature no longer fits."""
        pytest.importorskip("cryptography")
        for name in ("tiny.windows.ep", "tiny.windows.json"):
            shutil.copy(DATA / name, tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            public = make_key(tmp_path / "k.pem")
        sign(tmp_path / "tiny.windows.ep", tmp_path / "k.pem")
        manifest = tmp_path / "tiny.windows.json"
        manifest.write_bytes(manifest.read_bytes().replace(b"\n", b"\r\n"))
        with pytest.raises(ArtifactError, match="line ends of Windows"):
            check_signature(read_artifact(manifest), [public])

    @pytest.mark.skipif(sys.platform != "win32", reason="elsewhere the mode of the file protects it")
    def test_a_private_key_is_warned_of(self, tmp_path: Path) -> None:
        """Windows gives a file the permissions of its folder; a password protects it."""
        with pytest.warns(UserWarning, match=r"whoever may read .* can read the private key"):
            make_key(tmp_path / "k.pem")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make_key(tmp_path / "p.pem", password="secret")

    def test_a_cache_that_cannot_be_read(self, tmp_path: Path) -> None:
        """Is an option that cannot be had, rather than a PermissionError out of a load."""

        class Config:
            def create_runtime_cache(self) -> object:
                return object()

            def set_runtime_cache(self, cache: object) -> None: ...

        with pytest.raises(ConfigurationError, match=r"cache .* cannot be read: it is a directory; name another"):
            RuntimeCache(tmp_path).attach(Config())

    def test_too_little_memory(self, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """PyTorch's own refusal, which is a RuntimeError that reads as damage would, becomes what to do about it."""

        def assembled(artifact: Artifact, *_: object) -> None:
            with damage_as_artifact_error(artifact):
                torch.empty(1 << 45)

        monkeypatch.setattr(loading, "check_environment", lambda *_: ())
        monkeypatch.setattr(loading, "_opener", lambda *_, **__: (SimpleNamespace(device="cpu"), None))
        monkeypatch.setattr(loading, "_assembled", assembled)
        with pytest.raises(EnvironmentMismatchError, match=r"takes more memory than there is here: .*the paging file"):
            loading.load(copied)

    def test_a_file_in_place_of_the_folder(self, tmp_path: Path) -> None:
        """Windows says that the folder does not exist."""
        (tmp_path / "f").touch()
        with pytest.raises(OutputError, match="f is not a directory"), atomic_file(tmp_path / "f" / "m.ep"):
            pass
