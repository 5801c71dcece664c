"""The command as people run it: what it prints, where, and its exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import DATA

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.cli import main, make_parser
from lightning_trt_windows.cli.inputs import parse_input
from lightning_trt_windows.errors import ConfigurationError


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the real sample that a test may break."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path / "tiny.windows.ep"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's project as working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is printed to stderr; nothing may be on stdout, and the code is that of wrong usage."""
    assert main(arguments) == ConfigurationError.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    return err


# inspect


def test_inspect_prints_the_report(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To stdout, with code 0."""
    assert main(["inspect", str(tiny)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiny.windows.ep\n  kind ")
    assert err == ""


def test_inspect_prints_json(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which a script can read."""
    assert main(["inspect", str(tiny.with_suffix(".json")), "--json", "--check"]) == 0
    assert json.loads(capsys.readouterr().out)["checked"] is True


def test_inspect_of_a_broken_artifact_fails_and_still_reports(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code is that of a damaged artifact."""
    with tiny.open("r+b") as file:
        file.write(b"x")
    assert main(["inspect", str(tiny)]) == 0  # a glance does not read it all
    assert main(["inspect", str(tiny), "--check"]) == 7
    assert "Issues\n  its content is not that of the export" in capsys.readouterr().out


def test_inspect_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, without a traceback and without Python's words for it."""
    assert main(["inspect", str(tmp_path / "m.ep")]) == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {tmp_path / 'm.json'}: does not exist; neither does m.ep\n"


def test_the_format_of_tomorrow_has_a_code_of_its_own(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a script can say: upgrade."""
    manifest = tiny.with_suffix(".json")
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"1.0"', '"9.0"', 1), encoding="utf-8")
    assert main(["inspect", str(tiny)]) == 8
    assert "upgrade lightning-trt-windows" in capsys.readouterr().err


def test_a_console_without_the_letters_gets_escapes(tiny: Path) -> None:
    """Windows consoles have code pages; a report is no reason to die of one."""
    manifest = tiny.with_suffix(".json")
    text = manifest.read_text(encoding="utf-8").replace('"notes": []', '"notes": ["\u6a21\u578b"]')
    manifest.write_text(text, encoding="utf-8")
    command = [sys.executable, "-X", "utf8=0", "-m", "lightning_trt_windows", "inspect", str(tiny)]
    done = subprocess.run(command, capture_output=True, check=False, env={"PYTHONIOENCODING": "cp1252"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u6a21\u578b" in done.stdout


# usage


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"]])
def test_output_that_nobody_reads_is_no_fault(tiny: Path, command: list[str]) -> None:
    """``inspect FILE | head -0`` ends without a traceback."""
    read, write = os.pipe()
    os.close(read)
    whole = [sys.executable, "-m", "lightning_trt_windows", *command, str(tiny)]
    done = subprocess.run(whole, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bake"], "error: argument COMMAND: there is no 'bake'; choose from export, inspect,"),
        (["exprot"], "error: argument COMMAND: there is no 'exprot'; did you mean 'export'?"),
        (["inspect"], "error: the following arguments are required: FILE"),
        (["inspect", "x", "--chek"], "error: there is no '--chek' here; did you mean '--check'?"),
        (["inspect", "x", "y"], "error: unrecognized arguments: y"),
        (
            ["export", "x.ckpt", "--backend", "tensort"],
            "error: argument --backend: there is no 'tensort'; did you mean",
        ),
        (["export", "--compute-capability", "8.6", "x.ckpt", "--formats"], "error: argument --formats: expected one"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what was probably meant, and where to read on."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith(said)
    assert second.endswith("--help shows what it takes")
    assert not rest


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command with a line."""
    assert main([]) == 2
    out = capsys.readouterr().out
    assert "export" in out
    assert "say what an artifact is" in out


def test_compute_capabilities_leave_the_checkpoint_alone() -> None:
    """Whatever stands behind them."""
    arguments = make_parser().parse_args(
        ["export", "--compute-capability", "8.6,8.9", "--compute-capability=7.5", "x.ckpt", "--module", "a:B"]
    )
    assert (arguments.compute_capability, arguments.checkpoint) == (["8.6", "8.9", "7.5"], ["x.ckpt"])


def test_a_directory_is_verified_whole(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One verdict for each artifact; a damaged one decides the exit code."""
    run = tmp_path / "run"
    for name in ("one", "two"):
        (run / name).mkdir(parents=True)
        for file in tiny.parent.glob("tiny.*"):
            shutil.copy(file, run / name)
    assert main(["verify", str(run), "--no-numbers", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["directory"], len(said["artifacts"])) == ("run", 2)
    (run / "two" / "tiny.windows.ep").write_bytes(b"damaged")
    assert main(["verify", str(run), "--no-numbers"]) == 7


class TestUrls:
    """``memory://`` stands for every file system that fsspec knows: nothing of it is on this machine."""

    @pytest.fixture
    def url(self, tiny: Path) -> Iterator[str]:
        """A directory with the sample, a bundle and another file."""
        system = pytest.importorskip("fsspec").filesystem("memory")
        for name in ("tiny.windows.ep", "tiny.windows.json"):
            system.pipe(f"/run/checkpoints/{name}", (tiny.parent / name).read_bytes())
        assert main(["collect", str(tiny.parent), "--out", str(tiny.parent / "b.zip")]) == 0
        system.pipe("/run/b.zip", (tiny.parent / "b.zip").read_bytes())
        yield "memory://run"
        system.rm("/run", recursive=True)

    def test_inspect(self, url: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """An artifact as it is said of one here, a directory by its URL, a bundle."""
        capsys.readouterr()
        assert main(["inspect", str(tiny)]) == 0
        here = capsys.readouterr().out
        for name in ("tiny.windows.ep", "tiny.windows.json"):
            assert main(["inspect", f"{url}/checkpoints/{name}"]) == 0
            assert capsys.readouterr().out == here
        assert main(["inspect", url]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{url}\n")
        assert "checkpoints/tiny.windows.ep" in out
        assert main(["inspect", f"{url}/b.zip", "--check"]) == 0
        assert "tiny.windows.ep" in capsys.readouterr().out

    def test_verify(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Also all of a directory; a verdict cannot be written into what is only a copy."""
        capsys.readouterr()
        for place in (url, f"{url}/checkpoints/tiny.windows.ep"):
            assert main(["verify", "--no-numbers", "--json", place]) == 0
            assert '"tiny.windows.ep"' in capsys.readouterr().out
        assert "--write writes into the manifest of an artifact on this machine" in failure(
            capsys, "verify", "--write", url
        )

    def test_report(self, url: str, tiny: Path, tmp_path: Path) -> None:
        """Several places, of which some are elsewhere."""
        out = tmp_path / "r.html"
        assert main(["report", url, f"{url}/checkpoints/tiny.windows.ep", str(tiny), "--out", str(out)]) == 0
        assert out.read_text(encoding="utf-8").count("<article") == 3

    def test_what_is_not_there(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A line with the URL, and the code of artifacts; for a protocol that nobody knows, that of wrong usage."""
        capsys.readouterr()
        for command in ("inspect", "verify"):
            for place in ("memory://nowhere", f"{url}/other.windows.ep", f"{url}/other.zip"):
                assert main([command, place]) == 7
                (line,) = capsys.readouterr().err.splitlines()
                assert line.startswith("error: memory://")
                assert line.endswith("does not exist")
            assert "Protocol not known: nosuch" in failure(capsys, command, "nosuch://a/b.windows.ep")


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "."],
        ["inspect", "tiny.windows.ep", "--check"],
        ["verify", "tiny.windows.ep"],
        ["verify", "damaged.windows.ep"],
        ["report", "."],
        ["index", "."],
        ["doctor"],
        ["doctor", "tiny.windows.ep"],
        ["--help"],
        ["export", "--help"],
        ["inspect", "nothing.windows.ep"],
        ["export", "x.ckpt", "--module", "nothing:Net"],
        ["mistyped"],
    ],
    ids=" ".join,
)
def test_nothing_in_a_pipe_has_escape_codes_or_tracebacks(tiny: Path, command: list[str]) -> None:
    """Whatever the environment says of colours; a traceback is there where ``--traceback`` asks for it."""
    shutil.copy(tiny, tiny.with_name("damaged.windows.ep"))
    tiny.with_name("damaged.windows.json").write_text("{", encoding="utf-8")
    colours = dict.fromkeys(("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "TTY_COMPATIBLE"), "1")
    done = subprocess.run(
        [sys.executable, "-m", "lightning_trt_windows", *command],
        capture_output=True, check=False, cwd=tiny.parent, env={**os.environ, **colours}, timeout=200,
    )  # fmt: skip
    for stream in (done.stdout, done.stderr):
        assert b"\x1b" not in stream
        assert b"Traceback" not in stream
    assert done.stdout or done.stderr


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    """One source of truth."""
    from importlib.metadata import version

    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == version("lightning-trt-windows")


# --input


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("x=float32[3,224,224]", "x", InputSpec((3, 224, 224))),
        ("x=float32[1..8..32,3]", "x", InputSpec((DimRange(1, 8, 32), 3))),
        ("ids=int64[batch:1..8..32,seq:16..64..512%16]", "ids",
         InputSpec((DimRange(1, 8, 32, "batch"), DimRange(16, 64, 512, "seq", 16)), "int64")),
        (" x = bool [ 1..2..3 , 4 ] ", "x", InputSpec((DimRange(1, 2, 3), 4), "bool")),
        ("temperature=float32[]", "temperature", InputSpec(())),
        ("batch.image=uint8[3]", "batch.image", InputSpec((3,), "uint8")),
    ],
)  # fmt: skip
def test_inputs_are_written_compactly(text: str, name: str, spec: InputSpec) -> None:
    """All that an InputSpec can say about a shape."""
    assert parse_input(text) == (name, spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "NAME=DTYPE"),
        ("x=[1]", "NAME=DTYPE"),
        ("=float32[1]", "NAME=DTYPE"),
        ("1=float32[1]", "NAME=DTYPE"),
        ("x=float32", "NAME=DTYPE"),
        ("x=float32(1)", "NAME=DTYPE"),
        ("x=float23[1]", "dtype must be one of"),
        ("x=float32[1..8]", "a size is a number or MIN..OPT..MAX, got '1..8'"),
        ("x=float32[1,]", "a size is a number or MIN..OPT..MAX, got ''"),
        ("x=float32[-1]", "a size is a number or MIN..OPT..MAX, got '-1'"),
        ("x=float32[1.5]", "a size is"),
        ("x=float32[8..1..32]", "1 <= min <= opt <= max, got min=8, opt=1"),
        ("x=float32[0..1..2]", "1 <= min"),
        ("x=float32[1..2..4%2]", "min=1 is not a multiple of 2"),
        ("x=float32[" + "9" * 5000 + "]", "a size is"),
        ("x=float32[1..1.." + "9" * 5000 + "]", "a size is"),
    ],
    ids=lambda text: text[:24],
)
def test_a_wrong_input_is_explained(text: str, message: str) -> None:
    """The message repeats the argument."""
    with pytest.raises(ConfigurationError, match=r"^--input") as caught:
        parse_input(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["x=float32[1]", "x=float32[2]"], "'x' is given twice"),
        (["x=float32[1]", "x.y=float32[2]"], "'x' is given as a tensor as well"),
        (["pair.0=float32[1]"], "for lists and tuples call"),
    ],
)
def test_inputs_that_exclude_each_other_are_refused(
    inputs: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is imported."""
    options = [part for text in inputs for part in ("--input", text)]
    assert message in failure(capsys, "export", "x.ckpt", "--module", "nowhere:Net", *options)


# --module


def test_a_class_is_named_with_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways are shown."""
    assert "expected pkg.mod:Class or path/to/file.py:Class" in failure(capsys, "export", "x.ckpt", "--module", "Net")


def test_a_module_that_is_not_there_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the directory that was searched first, and the cause."""
    err = failure(capsys, "export", "x.ckpt", "--module", "nowhere.models:Net")
    assert f"cannot import nowhere.models (looked in {project} first)" in err
    assert "caused by ModuleNotFoundError: No module named 'nowhere'" in err
    assert "Traceback" not in err


def test_the_traceback_is_there_when_asked_for(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all causes."""
    err = failure(capsys, "export", "x.ckpt", "--module", "nowhere.models:Net", "--traceback")
    assert err.startswith("Traceback")
    assert "The above exception was the direct cause" in err


def test_a_file_that_is_not_there_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the user wrote it."""
    assert f"there is no file {Path('src/net.py')}" in failure(capsys, "export", "x.ckpt", "--module", "src/net.py:Net")


def test_a_mistyped_class_is_suggested(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest name in the module."""
    (project / "user_nets.py").write_text("class SmallNet: ...\n", encoding="utf-8")
    err = failure(capsys, "export", "x.ckpt", "--module", "user_nets:SmalNet")
    assert "user_nets has no 'SmalNet'; did you mean 'SmallNet'?" in err


def test_what_is_no_class_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An instance has weights of its own, which are not those in the checkpoint."""
    (project / "user_nets.py").write_text("net = object()\n", encoding="utf-8")
    assert "user_nets.py:net is not a class but object" in failure(
        capsys, "export", "x.ckpt", "--module", "user_nets.py:net"
    )


def test_the_users_own_failure_keeps_its_traceback(project: Path) -> None:
    """Nothing of it is swallowed."""
    (project / "user_nets.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        main(["export", "x.ckpt", "--module", "user_nets.py:Net"])
    assert "user_nets" not in sys.modules


# export

USER_CODE = """
    import lightning.pytorch as L
    import torch

    class Net(L.LightningModule):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(width, 2)

        def forward(self, x):
            return self.layer(x)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module in a folder, and a checkpoint of it as Lightning writes them, which takes a process of seconds."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "src").mkdir()
    (folder / "src" / "user_net.py").write_text(textwrap.dedent(USER_CODE), encoding="utf-8")
    code = """
        import sys; sys.path.insert(0, "src"); sys.dont_write_bytecode = True
        import lightning.pytorch as L
        from user_net import Net
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(Net(4))
        trainer.save_checkpoint("epoch=0.ckpt")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, cwd=folder)
    return folder


@pytest.fixture
def trained(project: Path, template: Path) -> Path:
    """A project with that module and its checkpoint."""
    shutil.copytree(template, project, dirs_exist_ok=True)
    return project


@pytest.mark.linux("exports")
def test_export_makes_an_artifact_that_inspects_whole(trained: Path) -> None:
    """From a checkpoint, a class in a file and a spec, to another directory."""
    (trained / "out").mkdir()
    command = [
        sys.executable,
        "-m",
        "lightning_trt_windows",
        "export",
        "epoch=0.ckpt",
        "--module",
        "src/user_net.py:Net",
    ]
    options = ["--input", "x=float32[batch:1..4..8,4]", "--output", "out"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=trained)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote out/epoch=0.windows.ep (")
    assert "checkpoint   epoch=0.ckpt (epoch 0, step 0)" in done.stdout
    assert main(["inspect", "out/epoch=0.windows.json", "--check"]) == 0


@pytest.mark.linux("exports")
def test_export_of_a_missing_checkpoint_says_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the code of checkpoints."""
    assert main(["export", "epoch=1.ckpt", "--module", "src/user_net.py:Net"]) == 9
    assert "epoch=1.ckpt" in capsys.readouterr().err


@pytest.mark.linux("exports")
@pytest.mark.parametrize("output", ["file", "file/below", "/proc/none/below"])
def test_output_that_cannot_be_made_is_named(trained: Path, capsys: pytest.CaptureFixture[str], output: str) -> None:
    """With the code of output, what stands in the way, and where the artifact would go without it."""
    (trained / "file").write_text("", encoding="utf-8")
    command = ["export", "epoch=0.ckpt", "--module", "src/user_net.py:Net", "--input", "x=float32[1..4..8,4]"]
    assert main([*command, "--output", output]) == 10
    err = capsys.readouterr().err
    assert err.startswith(f"error: the directory {output} for artifacts cannot be made: ")
    assert ("file is a file" in err) == output.startswith("file")
    assert "goes beside its checkpoint" in err


@pytest.mark.linux("exports")
def test_a_checkpoint_that_lightning_cannot_migrate(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a Lightning long ago: its version is named, and the way that the message names works."""
    import torch

    from lightning_trt_windows import InputSpec, export_module

    content = torch.load(trained / "epoch=0.ckpt", weights_only=False)
    torch.save({**content, "pytorch-lightning_version": "0.6.0"}, trained / "old.ckpt")
    command = ["export", "old.ckpt", "--module", "src/user_net.py:Net", "--input", "x=float32[1..4..8,4]"]
    assert main(command) == 9
    err = capsys.readouterr().err
    assert err.startswith("error: old.ckpt was written by Lightning 0.6.0, and the Lightning that is installed cannot")
    assert "call export_module" in err
    sys.path.insert(0, "src")
    import user_net  # type: ignore[import-not-found]

    module = user_net.Net(4)
    module.load_state_dict(torch.load("old.ckpt", weights_only=True)["state_dict"])
    assert export_module(module, {"x": InputSpec((4, 4))}, "old.windows.ep").path.exists()
