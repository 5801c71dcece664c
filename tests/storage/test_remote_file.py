"""Checkpoint directories elsewhere: memory://, file:// and s3://, the latter on a real server of this machine."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from support.paths import DATA, MODELS

from lightning_trt_windows.artifact.artifact import ArtifactPaths, check_artifact
from lightning_trt_windows.artifact.windows_names import illegal_on_windows
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, CheckpointError, ConfigurationError, OutputError
from lightning_trt_windows.storage import remote_file as storage
from lightning_trt_windows.storage.remote_artifact import RemoteArtifact, fetch, fetch_run
from lightning_trt_windows.storage.remote_file import RemoteFile, is_remote, place_of
from lightning_trt_windows.storage.run_index import RunIndex

if sys.platform != "win32":  # where nothing trains or exports
    from lightning.pytorch.callbacks import ModelCheckpoint
    from support.lightning_models import Data, Regression, trainer

    from lightning_trt_windows import WindowsExport, export_checkpoint


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty directory in memory; what fails is tried again at once."""
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0))
    MemoryFileSystem.store.clear()
    yield "memory://run"
    MemoryFileSystem.store.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a new bucket, found by the environment as s3fs does."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    fsspec.filesystem("s3").clear_instance_cache()  # of another test's server
    system.mkdir("models")
    yield "s3://models/run"
    system.rm("models", recursive=True)


def names(directory: str) -> set[str]:
    """Names of the files in ``directory``."""
    return {file.name for file in RemoteFile(directory).children("")}


def each_checkpoint(**options: Any) -> WindowsExport:
    """The callback that is tested; inline, where it makes no difference."""
    return WindowsExport(when="checkpoint", **{"executor": "inline", **options})


def files_of(*checkpoints: str) -> set[str]:
    """What belongs in a directory with these checkpoints, besides the index."""
    return {f"{name}{end}" for name in checkpoints for end in (".ckpt", ".windows.ep", ".windows.json")}


@pytest.mark.linux("trains")
class TestTraining:
    """A Trainer whose ModelCheckpoint writes elsewhere."""

    def test_every_checkpoint(self, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each checkpoint elsewhere has its artifact there, what is dropped goes, and nothing stays on this machine."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        export = each_checkpoint()
        saver = ModelCheckpoint(memory, filename="{epoch}", monitor="val_loss", save_top_k=2, save_last=True)
        run = trainer(tmp_path, saver, export, max_epochs=4)
        run.fit(Regression(), datamodule=Data())
        assert export.failures == []
        kept = {name.removesuffix(".ckpt") for name in names(memory) if name.endswith(".ckpt")}
        assert len(kept) == 3
        assert names(memory) - {"artifacts.json"} == files_of(*kept)
        assert {a.url for a in export.artifacts} == {f"{memory}/{name}.windows.ep" for name in kept}
        for artifact in export.artifacts:
            assert artifact.url is not None
            assert check_artifact(fetch(artifact.url, tmp_path / "fetched")).manifest == artifact.manifest
        assert sorted(p.name for p in tmp_path.iterdir()) == ["fetched"]

    def test_at_the_end(self, tmp_path: Path, memory: str) -> None:
        """The best and the last."""
        export = WindowsExport()
        saver = ModelCheckpoint(memory, filename="{epoch}", save_last=True)
        trainer(tmp_path, saver, export, max_epochs=2).fit(Regression(), datamodule=Data())
        assert export.failures == []
        assert names(memory) - {"artifacts.json"} == files_of("epoch=1", "last")

    def test_on_s3(self, tmp_path: Path, bucket: str) -> None:
        """On S3, built in a process; a run that is resumed builds what is new and leaves what is there."""
        options: dict[str, Any] = {"filename": "{epoch}", "save_top_k": -1, "monitor": "val_loss"}
        export = each_checkpoint(executor="process")
        run = trainer(tmp_path, ModelCheckpoint(bucket, **options), export, max_epochs=1)
        run.fit(Regression(), datamodule=Data())
        assert export.failures == []
        assert names(bucket) - {"artifacts.json"} == files_of("epoch=0")
        before = _changed(bucket, "epoch=0.windows.ep")
        again = each_checkpoint()
        second = trainer(tmp_path, ModelCheckpoint(bucket, **options), again, max_epochs=2)
        second.fit(Regression(), datamodule=Data(), ckpt_path=f"{bucket}/epoch=0.ckpt")
        assert again.failures == []
        assert names(bucket) == files_of("epoch=0", "epoch=1") | {"artifacts.json"}
        assert _changed(bucket, "epoch=0.windows.ep") == before
        assert {a.url for a in again.artifacts} == {f"{bucket}/epoch={n}.windows.ep" for n in range(2)}
        index = RunIndex.read(bucket)
        assert index == RunIndex.of_manifests(bucket)
        assert [entry.checkpoint for entry in index.entries] == ["epoch=0.ckpt", "epoch=1.ckpt"]

    def test_refused(self, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the upload is refused training goes on, the failure says where the artifact is, and none is there."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        put = MemoryFileSystem.put_file

        def refuse(self: Any, source: str, path: str, **kwargs: Any) -> None:
            if path.endswith(".json"):
                raise RuntimeError("503 slow down")
            put(self, source, path, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
        export = each_checkpoint()
        run = trainer(tmp_path, ModelCheckpoint(memory, filename="a"), export, max_epochs=1)
        with pytest.warns(UserWarning, match=r"cannot write memory://run/a\.windows\.json: .*503 slow down"):
            run.fit(Regression(), datamodule=Data())
        assert run.state.finished
        (failure,) = export.failures
        assert str(failure.checkpoint) == f"{memory}/a.ckpt"
        assert isinstance(failure.error, OutputError)
        assert "(3 attempts)" in str(failure.error)
        (kept,) = tmp_path.rglob("a.windows.ep")
        assert str(kept) in str(failure.error)
        check_artifact(kept)
        with pytest.raises(ArtifactError, match="does not exist"):
            RemoteArtifact.of(f"{memory}/a.windows.ep").read()

    def test_what_lightning_makes_of_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A checkpoint saved under file:// has its artifact beside it."""

        class Saving(Regression):
            def on_train_epoch_end(self) -> None:
                self.trainer.save_checkpoint(f"file://{tmp_path}/mine.ckpt")

        export = each_checkpoint()
        trainer(tmp_path, export, max_epochs=1, enable_checkpointing=False).fit(Saving(), datamodule=Data())
        assert [a.path for a in export.artifacts] == [tmp_path / "mine.windows.ep"]
        assert export.artifacts[0].url is None


def _changed(directory: str, name: str) -> Any:
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    return system.info(f"{directory}/{name}")["LastModified"]


@pytest.mark.linux("exports")
class TestWithoutTrainer:
    """The functions and the commands take URLs."""

    def test_export_checkpoint(self, tmp_path: Path, memory: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A checkpoint elsewhere gets its artifact there, or in another directory; the command does the same."""
        saver = ModelCheckpoint(memory, filename="a")
        trainer(tmp_path, saver, max_epochs=1).fit(Regression(), datamodule=Data())
        artifact = export_checkpoint(f"{memory}/a.ckpt", Regression, datamodule=Data())
        assert artifact.url == f"{memory}/a.windows.ep"
        assert names(memory) == files_of("a")
        assert check_artifact(artifact).manifest == check_artifact(fetch(artifact.url)).manifest
        here = export_checkpoint(f"{memory}/a.ckpt", Regression, datamodule=Data(), output=tmp_path)
        assert here.url is None
        assert here.path == tmp_path / "a.windows.ep"
        assert check_artifact(here).manifest.ep == artifact.manifest.ep
        module = f"{MODELS}:Regression"
        data = f"{MODELS}:Data"
        code = main(["export", f"{memory}/a.ckpt", "--module", module, "--datamodule", data, "--output", "memory://b"])
        assert code == 0
        assert "wrote memory://b/a.windows.ep" in capsys.readouterr().out
        assert names("memory://b") == {"a.windows.ep", "a.windows.json"}

    def test_no_checkpoint(self, memory: str) -> None:
        """A checkpoint that is not there, and a protocol that nobody knows."""
        with pytest.raises(CheckpointError, match=r"there is no checkpoint memory://run/a\.ckpt"):
            export_checkpoint(f"{memory}/a.ckpt", Regression)
        with pytest.raises(ConfigurationError, match="Protocol not known: carrier-pigeon"):
            export_checkpoint("carrier-pigeon://a.ckpt", Regression)

    def test_url_that_became_a_path(self) -> None:
        """Pathlib takes a slash from a URL, and that is said."""
        with pytest.raises(ConfigurationError, match="give URLs as text"):
            export_checkpoint(Path("s3://bucket/a.ckpt"), Regression)


class TestFiles:
    """Single files and artifacts."""

    def test_places(self) -> None:
        """What is a URL, and what only looks like one."""
        assert [is_remote(p) for p in ("s3://a/b", "memory://a", "simplecache::s3://a")] == [True] * 3
        assert [is_remote(p) for p in ("/a", "a:b", "C:\\a", "file:///a", "local:///a")] == [False] * 5
        assert place_of("file:///a/b.ckpt") == Path("/a/b.ckpt")
        assert place_of("s3://a/b.ckpt") == RemoteFile("s3://a/b.ckpt")
        assert RemoteFile("s3://a/b/").child("c") == RemoteFile("s3://a/b/c")

    def test_tried_again(self, memory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What fails once is tried again; what is refused for good is not, and half a file is a failure."""
        put, calls = MemoryFileSystem.put_file, []

        def fail_once(self: Any, source: str, path: str, **kwargs: Any) -> None:
            calls.append(path)
            if len(calls) == 1:
                raise ConnectionResetError("by peer")
            put(self, source, path, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, "put_file", fail_once)
        (tmp_path / "a").write_bytes(b"content")
        RemoteFile(f"{memory}/a").upload(tmp_path / "a")
        assert (RemoteFile(f"{memory}/a").read(), len(calls)) == (b"content", 2)

        def refuse(self: Any, source: str, path: str, **kwargs: Any) -> None:
            calls.append(path)
            raise PermissionError("not yours")

        monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
        with pytest.raises(PermissionError, match="not yours"):
            RemoteFile(f"{memory}/a").upload(tmp_path / "a")
        assert len(calls) == 3
        monkeypatch.setattr(MemoryFileSystem, "put_file", lambda self, source, path: self.pipe_file(path, b"cont"))
        with pytest.raises(OSError, match=r"4 bytes have arrived of 7 \(3 attempts\)"):
            RemoteFile(f"{memory}/a").upload(tmp_path / "a")

    def test_fetched(self, memory: str, tmp_path: Path) -> None:
        """A damaged artifact elsewhere is refused, and one that is whole arrives with its manifest."""
        paths = ArtifactPaths.of(DATA / "tiny.windows.ep")
        for path in (paths.ep, paths.manifest):
            RemoteFile(f"{memory}/{path.name}").upload(path)
        url = f"{memory}/{paths.ep.name}"
        arrived = fetch(url, tmp_path / "new" / "place")
        assert arrived == tmp_path / "new" / "place" / paths.ep.name
        assert fetch(arrived) == arrived
        RemoteFile(f"{memory}/deeper/settings.json").write(b"{}")
        assert {p.name for p in (fetch_run("memory://", tmp_path / "all") / "run").iterdir()} == {
            paths.ep.name,
            paths.manifest.name,
        }
        assert RemoteFile("memory://run/*.ep").matching() == [RemoteFile(f"memory:///run/{paths.ep.name}")]
        assert (RemoteFile("memory://run").is_directory(), RemoteFile(url).is_directory()) == (True, False)
        content = bytearray(paths.ep.read_bytes())
        content[len(content) // 2] ^= 1
        RemoteFile(url).write(bytes(content))
        with pytest.raises(ArtifactError, match="its content is not that of the export"):
            fetch(url, tmp_path)
        RemoteFile(url).remove()
        with pytest.raises(ArtifactError, match="does not exist"):
            fetch(url, tmp_path)


def test_folders_elsewhere_lead_nowhere_else(memory: str, tmp_path: Path) -> None:
    """Each artifact goes into the folder that it has below the run, under a name that this machine can have."""
    tiny = ArtifactPaths.of(DATA / "tiny.windows.ep")
    for folder in ("version_0/checkpoints", "a:b", "../up", "con"):
        for path in (tiny.ep, tiny.manifest):
            MemoryFileSystem.store[f"/run/{folder}/{path.name}"] = MemoryFile(None, folder, path.read_bytes())
    fetch_run(memory, tmp_path / "here" / "all")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["all"]
    found = {path.parent.relative_to(tmp_path / "here" / "all") for path in tmp_path.rglob("*.ep")}
    assert Path("version_0/checkpoints") in found and len(found) == 4
    assert all(illegal_on_windows(part) is None for folder in found for part in folder.parts), found


def test_collected_from_elsewhere(memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run elsewhere is collected as one of this machine."""
    tiny = ArtifactPaths.of(DATA / "tiny.windows.ep")
    for path in (tiny.ep, tiny.manifest):
        RemoteFile(f"{memory}/version_0/checkpoints/{path.name}").upload(path)
    assert main(["collect", memory, "--out", str(tmp_path / "bundle.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "bundle.zip") as bundle:
        assert sum(name.endswith("tiny.windows.ep") for name in bundle.namelist()) == 1
    assert main(["collect", "memory://nothing", "--out", str(tmp_path / "none.zip")]) == ArtifactError.exit_code
    assert "there is no artifact in it or below it" in capsys.readouterr().err
