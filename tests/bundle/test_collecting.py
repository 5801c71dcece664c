"""``collect``: what goes into a bundle, that the same artifacts give the same bytes, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.artifacts import put
from support.outlines import EnginesOnly, Several, WithShort
from support.paths import REPOSITORY
from support.stand_in import export_for_test

import lightning_trt_windows
from lightning_trt_windows import InputSpec, collect
from lightning_trt_windows.artifact.artifact import ArtifactPaths, read_artifact, write_manifest
from lightning_trt_windows.artifact.files import TEMPORARY_PREFIX, sha256_of
from lightning_trt_windows.artifact.manifest import FileRecord
from lightning_trt_windows.bundle.bench_file import read_bench
from lightning_trt_windows.bundle.pins import NUMPY, PYBASE64, PYTHONS, SAFETENSORS, WHEELS, requirements
from lightning_trt_windows.bundle.reading import extract_bundle, inspect_bundle
from lightning_trt_windows.bundle.wheel import package_version
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, OutputError

PACKAGE = "lightning-trt-windows==0.1.0"


def names(bundle: Path) -> list[str]:
    """The files in a bundle."""
    with zipfile.ZipFile(bundle) as archive:
        return archive.namelist()


def text(bundle: Path, name: str) -> str:
    """One of them."""
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name).decode()


class TestContent:
    """What the Windows machine gets."""

    def test_all_that_belongs_to_an_artifact(self, tmp_path: Path) -> None:
        """Its files as they are, what to install, what to run, and a list of everything with its hash."""
        ep = put(tmp_path / "run/checkpoints", golden=b"recorded")
        ep.with_name("tiny.windows.json.sig").write_bytes(b"signed")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip")
        assert set(bundle.files) == {
            "README.md",
            "artifacts/tiny.windows.ep",
            "artifacts/tiny.windows.golden.safetensors",
            "artifacts/tiny.windows.json",
            "artifacts/tiny.windows.json.sig",
            "bundle.json",
            "report.html",
            "requirements-windows.txt",
            "run.py",
            f"wheels/lightning_trt_windows-{package_version()}-py3-none-any.whl",
        }
        assert (bundle.size, bundle.sha256) == (bundle.path.stat().st_size, sha256_of(bundle.path))
        with zipfile.ZipFile(bundle.path) as archive:
            assert archive.testzip() is None
            assert archive.read("artifacts/tiny.windows.ep") == ep.read_bytes()
            listed = json.loads(archive.read("bundle.json"))["files"]
            assert listed.keys() == set(bundle.files) - {"bundle.json"}
            for name, file in listed.items():
                data = archive.read(name)
                assert file == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert {f"safetensors=={SAFETENSORS}", f"pybase64=={PYBASE64}"} < set(
            text(bundle.path, "requirements-windows.txt").splitlines()
        )
        assert "cryptography" in text(bundle.path, "requirements-windows.txt")

    def test_engines_are_raw(self, tmp_path: Path) -> None:
        """Nothing before and nothing after them, and a table of what is bound to them."""
        put(tmp_path / "run")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", engines=True)
        (name,) = (name for name in bundle.files if name.endswith(".engine"))
        manifest = bundle.artifacts[0].artifact.manifest
        with zipfile.ZipFile(bundle.path) as archive:
            data = archive.read(name)
            (described,) = json.loads(archive.read("engines/engines.json"))
            table = archive.read("engines/README.md").decode()
        assert data[:4] == b"vtrt"
        assert hashlib.sha256(data).hexdigest() == manifest.engines[0].sha256
        assert described["engines"][0] | {"file": name} == described["engines"][0]
        assert described["engines"][0]["inputs"] == list(manifest.engines[0].inputs)
        assert described["whole_program_is_one_engine"] is True
        assert described["inputs"][0]["max"] == list(manifest.inputs[0].max)
        assert described["inputs"][0]["bindings"] == [{"engine": 0, "binding": "input_1"}]
        assert described["outputs"][0]["from"] == {"engine": 0, "binding": "output0"}
        assert "The whole program is one engine" in table

    def test_engines_say_which_binding_is_what(self, tmp_path: Path) -> None:
        """An output that is an input, one that comes twice, a constant and an operator in PyTorch are told apart."""
        (tmp_path / "run").mkdir()
        stand_in = export_for_test(Several(), Several.inputs(), tmp_path / "run" / "several.windows.ep")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", engines=True)
        with zipfile.ZipFile(bundle.path) as archive:
            (described,) = json.loads(archive.read("engines/engines.json"))
            table = archive.read("engines/README.md").decode()
        assert stand_in.artifact.manifest.outputs[0].name == "output.0"
        sources = [output["from"] for output in described["outputs"]]
        assert sources[0] == sources[3]
        assert sources[0] == {"engine": 0, "binding": "output.0"}
        assert described["inputs"][0]["bindings"] == [{"engine": 0, "binding": "x"}]
        assert sources[1] == {"input": "x"}
        assert sources[2].keys() == {"constant", "file", "dtype", "shape"}
        assert sources[4] == {"pytorch": "aten.special_airy_ai.default"}
        assert described["inputs"][1]["bindings"] == []
        assert (described["engines_compute_everything"], described["whole_program_is_one_engine"]) == (False, False)
        assert "The engines are parts of the program." in table
        assert "| no engine |" in table

    def test_constants_stand_beside_the_engines(self, tmp_path: Path) -> None:
        """A C++ program has no other way to the value of an output that no engine computes."""
        (tmp_path / "run").mkdir()
        export_for_test(EnginesOnly(), EnginesOnly.inputs(), tmp_path / "run" / "only.windows.ep")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", engines=True)
        with zipfile.ZipFile(bundle.path) as archive:
            (described,) = json.loads(archive.read("engines/engines.json"))
            table = archive.read("engines/README.md").decode()
            (offset,) = (output["from"] for output in described["outputs"] if "constant" in output["from"])
            assert struct.unpack("<4f", archive.read(offset["file"])) == (1.5, 2.5, 3.5, 4.5)
        assert (offset["file"], offset["dtype"]) == ("engines/only.windows.constant_0.bin", "float32")
        assert offset["shape"] == [2, 2]
        assert "the constant in `engines/only.windows.constant_0.bin`: float32, [2, 2]" in table
        assert not inspect_bundle(bundle.path, check=True).issues

    def test_constants_that_are_no_plain_tensors_are_named(self, tmp_path: Path) -> None:
        """What cannot be a file of elements is in the .ep only, and the table says so."""
        (tmp_path / "run").mkdir()
        export_for_test(WithShort(), {"x": InputSpec((2, 4))}, tmp_path / "run" / "short.windows.ep")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", engines=True)
        assert not [name for name in bundle.files if name.endswith(".bin")]
        assert ", which is in the `.ep` only" in text(bundle.path, "engines/README.md")

    def test_the_script_runs(self, tmp_path: Path) -> None:
        """Up to where a GPU is needed: without one it says so, with the code of a machine that will not do."""
        put(tmp_path / "run", versions={"torch": importlib.import_module("torch").__version__})
        extract_bundle(collect(tmp_path / "run", tmp_path / "b.zip").path, tmp_path / "unpacked")
        done = subprocess.run(
            [sys.executable, "run.py", "--calls", "3"],
            cwd=tmp_path / "unpacked",
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "tiny.windows.ep" in done.stdout
        assert "wanted" in done.stderr, done.stderr
        assert done.returncode == 3

    def test_the_script_measures_and_writes_the_figures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a PC with a GPU, but for the engines, for which the graphs that they were built from stand in."""
        (tmp_path / "run").mkdir()
        stand_in = export_for_test(Several(), Several.inputs(), tmp_path / "run" / "several.windows.ep", golden=True)
        extract_bundle(collect(tmp_path / "run", tmp_path / "b.zip").path, tmp_path / "unpacked")
        spec = importlib.util.spec_from_file_location("run_of_a_bundle", tmp_path / "unpacked" / "run.py")
        assert spec is not None and spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        unpacked = tmp_path / "unpacked/artifacts/several.windows.ep"
        there = dataclasses.replace(stand_in, artifact=read_artifact(unpacked))
        monkeypatch.setattr(lightning_trt_windows, "load", lambda path, device, **options: there.load())
        script.run(unpacked, 2, None, write=True)
        figures = read_bench(there.artifact)
        assert figures is not None and set(figures.latency) == {"load"}
        assert sorted(figures.latency["load"]) == [1, 2, 4, 8]

    def test_the_readme_tells_what_the_pc_needs(self, tmp_path: Path) -> None:
        """To somebody who knows neither Lightning nor Python: nothing is left out, nothing left to fill in."""
        put(tmp_path / "run", "best of all")
        shown = text(collect(tmp_path / "run", tmp_path / "b.zip").path, "README.md")
        for needed in (
            "GeForce RTX 30, RTX 40, RTX 50",
            "580 or newer",
            "MSVCP140_ATOMIC_WAIT.dll",
            "VCRUNTIME140_THREADS.dll",
            "winget install --exact --id Python.Python.3.11",
            "py -3.11 -m venv .venv",
            "cd /d C:\\models",
            'doctor "artifacts/best of all.windows.ep"',
            "wheels/",
        ):
            assert needed in shown
        assert "$" not in shown and "engines/" not in shown

    @pytest.mark.linux("checks this repository with ruff")
    def test_the_script_and_the_readme_are_about_a_page(self, tmp_path: Path) -> None:
        """And the script has the style of this repository."""
        put(tmp_path / "run")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip").path
        assert len(text(bundle, "run.py").splitlines()) <= 90
        (tmp_path / "run.py").write_text(text(bundle, "run.py"), encoding="utf-8")
        root = REPOSITORY
        command = [sys.executable, "-m", "ruff", "check", "--config", root / "pyproject.toml", tmp_path / "run.py"]
        assert subprocess.run(command, check=False).returncode == 0
        compile(text(bundle, "run.py"), "run.py", "exec")
        for name in set(names(bundle)) & {"report.html", "run.py", "bundle.json", "requirements-windows.txt"}:
            assert f"`{name}`" in text(bundle, "README.md")

    def test_a_wheel_that_is_given_comes_along(self, tmp_path: Path) -> None:
        """In place of the one of what is installed; pip is told to take that very file."""
        put(tmp_path / "run")
        wheel = tmp_path / "lightning_trt_windows-9.9.9-py3-none-any.whl"
        wheel.write_bytes(b"PK")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", wheel=wheel).path
        assert [name for name in names(bundle) if name.endswith(".whl")] == [f"wheels/{wheel.name}"]
        assert f"./wheels/{wheel.name}" in text(bundle, "requirements-windows.txt").splitlines()
        with pytest.raises(ConfigurationError, match="is not a wheel"):
            collect(tmp_path / "run", tmp_path / "b.zip", wheel=tmp_path / "other.zip")


class TestSelection:
    """Which artifacts are taken."""

    def test_best_is_by_what_was_monitored(self, tmp_path: Path) -> None:
        """The higher end or the lower one, of each directory by itself; the last is the one of the latest step."""
        for version, mode, scores in ((0, "max", (0.5, 0.9, 0.7)), (1, "min", (0.5, 0.9, 0.7))):
            for step, score in enumerate(scores):
                put(tmp_path / f"run/version_{version}", f"step={step}", step=step, score=score, mode=mode)
            put(tmp_path / f"run/version_{version}", "last", step=2)

        def taken(which: str) -> list[str]:
            bundle = collect(tmp_path / "run", tmp_path / "b.zip", which=which)  # type: ignore[arg-type]
            return [place.ep for place in bundle.artifacts]

        assert taken("best") == [
            "artifacts/version_0/step=1.windows.ep",
            "artifacts/version_1/step=0.windows.ep",
        ]
        assert taken("last") == ["artifacts/version_0/last.windows.ep", "artifacts/version_1/last.windows.ep"]
        assert len(taken("all")) == 8
        listed = inspect_bundle(tmp_path / "b.zip").artifacts
        assert [item.roles for item in listed][:4] == [("last",), (), ("best by val_acc",), ()]

    def test_nothing_tells_the_best(self, tmp_path: Path) -> None:
        """Which is said, with what there is instead."""
        put(tmp_path / "run")
        with pytest.raises(ConfigurationError, match=r"no manifest has a score .* Take which='all' or 'last'"):
            collect(tmp_path / "run", tmp_path / "b.zip", which="best")
        with pytest.raises(ConfigurationError, match="which must be"):
            collect(tmp_path / "run", tmp_path / "b.zip", which="newest")  # type: ignore[arg-type]
        assert not (tmp_path / "b.zip").exists()

    def test_a_directory_without_artifacts(self, tmp_path: Path) -> None:
        """Says what was looked for; an export that did not finish is named."""
        with pytest.raises(ConfigurationError, match="is not a directory"):
            collect(tmp_path / "nothing", tmp_path / "b.zip")
        put(tmp_path / "run").with_suffix(".json").unlink()
        with pytest.raises(ConfigurationError, match=r"tiny\.windows\.ep: has no manifest; its export did not finish"):
            collect(tmp_path / "run", tmp_path / "b.zip")

    def test_damaged_artifacts_are_named_all_at_once(self, tmp_path: Path) -> None:
        """With every issue; or left out where that is asked for."""
        put(tmp_path / "run", "good")
        broken = put(tmp_path / "run/a", "bytes")
        data = bytearray(broken.read_bytes())
        data[-400] ^= 1
        broken.write_bytes(data)
        put(tmp_path / "run/b", "gone").unlink()
        put(tmp_path / "run/c", "golden", golden=b"recorded").with_name("golden.windows.golden.safetensors").unlink()
        with pytest.raises(ArtifactError) as caught:
            collect(tmp_path / "run", tmp_path / "b.zip")
        wanted = ["a/bytes.windows.json: its content", "b/gone.windows.json: does not", "c/golden.windows.json: golden"]
        assert [issue[: len(start)] for issue, start in zip(caught.value.issues, wanted)] == wanted
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", skip_damaged=True)
        assert [place.ep for place in bundle.artifacts] == ["artifacts/good.windows.ep"]
        assert len(bundle.left_out) == 3


class TestNames:
    """Names in a bundle, on a machine that ignores case and knows devices."""

    def test_equal_names_of_different_runs(self, tmp_path: Path) -> None:
        """Each keeps its name, in a folder of its own."""
        for run in ("one", "two"):
            for version in ("version_0", "version_1"):
                put(tmp_path / run / "logs" / version / "checkpoints", "last")
        bundle = collect([tmp_path / "one", tmp_path / "two"], tmp_path / "b.zip")
        assert [place.ep for place in bundle.artifacts] == [
            f"artifacts/{run}/logs/{version}/last.windows.ep"
            for run in ("one", "two")
            for version in ("version_0", "version_1")
        ]
        bundle = collect(tmp_path / "one", tmp_path / "b.zip")
        assert bundle.artifacts[0].ep == "artifacts/version_0/last.windows.ep"

    @pytest.mark.linux("makes files that Windows cannot have")
    def test_names_that_differ_in_case_only(self, tmp_path: Path) -> None:
        """Are one file on Windows, so they go apart; so do folders that are devices there."""
        put(tmp_path / "run", "Best")
        put(tmp_path / "run", "best")
        put(tmp_path / "run/aux/x:y", "best")
        bundle = collect(tmp_path / "run", tmp_path / "b.zip", engines=True)
        assert len({name.casefold() for name in bundle.files}) == len(bundle.files)
        assert not any(part.lower() == "aux" or ":" in part for name in bundle.files for part in name.split("/"))
        extract_bundle(bundle.path, tmp_path / "unpacked")
        found = sorted((tmp_path / "unpacked/artifacts").rglob("*.ep"))
        assert len(found) == 3
        for path in found:
            assert lightning_trt_windows.inspect(path, check=True).issues == ()

    def test_the_same_directory_name_twice(self, tmp_path: Path) -> None:
        """Two runs of one name, from different places."""
        put(tmp_path / "a/run", "last")
        put(tmp_path / "b/run", "last")
        bundle = collect([tmp_path / "a/run", tmp_path / "b/run"], tmp_path / "b.zip")
        assert len({place.ep for place in bundle.artifacts}) == 2

    def test_out_is_a_zip(self, tmp_path: Path) -> None:
        """Anything else was meant for something else."""
        put(tmp_path / "run")
        with pytest.raises(ConfigurationError, match=r"a bundle is a zip; name it so: bundle\.tar\.zip"):
            collect(tmp_path / "run", tmp_path / "bundle.tar")


class TestBytes:
    """The file itself."""

    def test_the_same_artifacts_give_the_same_bytes(self, tmp_path: Path) -> None:
        """From another place, at another time, with other permissions, in another order of the directory."""
        for place, order in (("a", ("x", "y")), ("b", ("y", "x"))):
            for name in order:
                ep = put(tmp_path / place / "run" / name, golden=b"recorded")
                if place == "b":
                    os.utime(ep, (1, 1))
                    ep.chmod(0o600)
            collect(tmp_path / place / "run", tmp_path / f"{place}.zip", engines=True)
        assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            for info in archive.infolist():
                assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
                assert (info.flag_bits & 8, info.create_system, info.external_attr >> 16) == (0, 3, 0o100644)

    def test_what_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The old bundle stays, and no temporary file does."""
        ep = put(tmp_path / "run")
        (tmp_path / "out").mkdir()
        target = tmp_path / "out/b.zip"
        collect(tmp_path / "run", target)
        before = target.read_bytes()
        from lightning_trt_windows.bundle import collecting

        def changed(*arguments: object, **options: object) -> str:
            ep.write_bytes(ep.read_bytes()[:-1] + b"x")  # after the check, before the copy
            return "text"

        monkeypatch.setattr(collecting, "readme", changed)
        with pytest.raises(ArtifactError, match="changed while it was being copied; nothing was written"):
            collect(tmp_path / "run", target)
        assert target.read_bytes() == before
        assert [p.name for p in target.parent.iterdir() if p.name.startswith(TEMPORARY_PREFIX)] == []
        with pytest.raises(OutputError, match="does not exist"):
            collect(put(tmp_path / "other").parent, tmp_path / "no/b.zip")

    def test_memory_does_not_grow_with_the_engines(self, tmp_path: Path) -> None:
        """A golden of 300 MB passes through a process that may have little more than Python itself."""
        with (tmp_path / "large").open("wb") as large:
            large.truncate(300_000_000)
        ep = put(tmp_path / "run")
        paths = ArtifactPaths.of(ep)
        (tmp_path / "large").rename(paths.golden)
        manifest = read_artifact(ep).manifest
        golden = FileRecord(file=paths.golden.name, size=300_000_000, sha256=sha256_of(paths.golden))
        write_manifest(paths.manifest, dataclasses.replace(manifest, golden=golden))
        code = (
            "import re, sys; from lightning_trt_windows import collect\n"
            "collect(sys.argv[1], sys.argv[2], engines=True)\n"
            # not getrusage, which counts what the process was before exec
            "print(re.search('VmHWM:\\\\s*(\\\\d+)', open('/proc/self/status').read())[1])"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "b.zip")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (tmp_path / "b.zip").stat().st_size > 300_000_000
        assert int(done.stdout) < 100_000  # kB


class TestRequirements:
    """What is to be installed on Windows."""

    MADE = ("tensorrt_rtx", {"torch": "2.14.1+cu130", "tensorrt-rtx": "1.6.1.120", "python": "3.12.3"})

    def test_exact_versions_of_builds_with_cuda(self) -> None:
        """The build is part of the version, so that PyPI's for CPUs does not match."""
        lines = requirements([self.MADE], package=PACKAGE, goldens=False, signatures=False).splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert pins == [
            "--extra-index-url https://download.pytorch.org/whl/cu130",
            "torch==2.14.1+cu130",
            "tensorrt-rtx-cu13-libs==1.6.1.120",
            "tensorrt-rtx-cu13-bindings==1.6.1.120",
            PACKAGE,
            f"pybase64=={PYBASE64}",
            f"numpy=={NUMPY}",
        ]
        assert any("py -3.12 -m venv" in line for line in lines)
        assert "Nobody looked" not in "\n".join(lines)

    def test_an_export_with_a_build_for_cpus(self) -> None:
        """Runs on one for CUDA."""
        made = ("tensorrt_rtx", {"torch": "2.13.0+cpu", "tensorrt-rtx": "1.5.0.114"})
        assert "torch==2.13.0+cu130" in requirements([made], package=PACKAGE, goldens=False, signatures=False)

    def test_versions_that_nobody_looked_for(self) -> None:
        """Are pinned all the same, and the file says so."""
        made = ("tensorrt_rtx", {"torch": "2.19.0+cu140", "tensorrt-rtx": "1.9.0.1"})
        found = requirements([made], package=PACKAGE, goldens=False, signatures=False)
        assert "# Nobody looked whether there are wheels for Windows: torch 2.19.0, tensorrt-rtx 1.9.0.1." in found
        assert "whl/cu140" in found

    def test_versions_that_no_environment_can_have(self) -> None:
        """Patches of torch may differ, minors may not; TensorRT must be the same."""
        patch = ("tensorrt_rtx", {**self.MADE[1], "torch": "2.14.0+cu130"})
        assert "torch==2.14.1+cu130" in requirements(
            [self.MADE, patch], package=PACKAGE, goldens=False, signatures=False
        )
        for name, version in (("torch", "2.13.0+cu130"), ("tensorrt-rtx", "1.5.0.114")):
            other = ("tensorrt_rtx", {**self.MADE[1], name: version})
            with pytest.raises(ConfigurationError, match=f"the artifacts need {name} .* and one environment has one"):
                requirements([self.MADE, other], package=PACKAGE, goldens=False, signatures=False)

    def test_classic_tensorrt(self) -> None:
        """Its libraries for Windows are not on PyPI."""
        made = ("tensorrt", {**self.MADE[1], "tensorrt": "11.1.0.106"})
        found = requirements([made], package=PACKAGE, goldens=False, signatures=False)
        assert "\n--extra-index-url https://pypi.nvidia.com\n" in found
        assert "\ntensorrt==11.1.0.106\n" in found
        assert "tensorrt-rtx" not in found

    def test_the_table_has_what_is_installed(self) -> None:
        """An export here and now makes a bundle whose wheels somebody looked for."""
        from importlib.metadata import version

        for name in ("torch", "tensorrt-rtx"):
            assert version(name).partition("+")[0] in WHEELS[name]
        assert f"{sys.version_info[0]}.{sys.version_info[1]}" in PYTHONS


class TestCommand:
    """``collect`` in a shell."""

    def test_it_says_what_it_wrote(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """For people, and as JSON."""
        put(tmp_path / "run", score=0.5)
        out = str(tmp_path / "b.zip")
        assert main(["collect", str(tmp_path / "run"), "--out", out]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"wrote {out} (")
        assert lines[1] == "  artifacts/tiny.windows.ep (best by val_acc, last)"
        assert main(["collect", str(tmp_path / "run"), "--out", out, "--which", "best", "--engines", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["artifacts"] == [{"ep": "artifacts/tiny.windows.ep", "roles": ["best by val_acc", "last"]}]
        assert said["sha256"] == sha256_of(out)

    def test_it_fails_with_the_code_of_the_failure(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """7 for what is damaged, 2 for what cannot be."""
        ep = put(tmp_path / "run")
        ep.write_bytes(b"")
        assert main(["collect", str(tmp_path / "run"), "--out", str(tmp_path / "b.zip")]) == 7
        assert main(["collect", str(tmp_path), "--out", str(tmp_path / "b.txt")]) == 2
        assert main(["collect", str(tmp_path / "no"), "--out", str(tmp_path / "b.zip"), "--json"]) == 2
        assert capsys.readouterr().out == ""


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    """Nor does collecting."""
    put(tmp_path / "run")
    code = "import sys; from lightning_trt_windows.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "collect", str(tmp_path / "run"), "--out", str(tmp_path / "b.zip")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
