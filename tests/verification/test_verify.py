"""``verify``: what it finds wrong, what it lets pass, and what it says where it could not look.

Engines are stood in for by the graphs they were built from (``stand_in``), so that the numbers are those of a real
artifact, and one wrong engine at a time shows that the verdict can fail.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stand_in import StandIn, export_for_test
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module, inspect, verify, verify_metric
from lightning_trt_windows.artifact.artifact import ArtifactPaths, read_artifact, write_manifest
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, VerificationError
from lightning_trt_windows.modules.numbers import compare, tolerance_of
from lightning_trt_windows.runtime.loaded import LoadedModule
from lightning_trt_windows.verification.at_export import failure_of, verified
from lightning_trt_windows.verification.result import Verification
from lightning_trt_windows.verification.verify import record_verification

BATCH = DimRange(1, 4, 16, name="batch")
NAN, INF = math.nan, math.inf


@dataclasses.dataclass
class Found:
    """What the module below returns."""

    scores: Tensor
    best: Tensor
    nothing: Tensor | None = None


class Scorer(nn.Module):
    """Scores, the best of them, and whether it is any good: a float, an integer and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x: Tensor, more: dict[str, Tensor], *, bias: Tensor) -> Any:
        scores = self.layers(x + more["shift"]) + bias
        return Found(scores, scores.argmax(-1)), scores.amax(-1) > 0


INPUTS = {"x": InputSpec((BATCH, 8)), "more": {"shift": InputSpec((BATCH, 8))}, "bias": InputSpec((5,))}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, StandIn]:
    """A module and its artifact with goldens."""
    torch.manual_seed(0)
    module = Scorer().eval()
    path = tmp_path_factory.mktemp("verify") / "m.windows.ep"
    return module, export_for_test(module, INPUTS, path, golden=True)


@pytest.fixture
def copied(scorer: tuple[nn.Module, StandIn], tmp_path: Path) -> StandIn:
    """A copy of the artifact that a test may break."""
    stand_in = scorer[1]
    for path in stand_in.artifact.path.parent.iterdir():
        shutil.copy(path, tmp_path)
    return StandIn(read_artifact(tmp_path / stand_in.artifact.path.name), stand_in.partitions)


def bent(stand_in: StandIn, change: Callable[[Tensor], Tensor]) -> LoadedModule:
    """The artifact with an engine whose floating-point outputs are changed."""

    def wrong(partition: Any) -> Any:
        def run(*inputs: Tensor) -> Any:
            result = partition(*inputs)
            outputs = result if isinstance(result, (tuple, list)) else [result]
            return [change(o) if o.is_floating_point() else o for o in outputs]

        return run

    return StandIn(stand_in.artifact, {k: wrong(v) for k, v in stand_in.partitions.items()}).load()


def described(stand_in: StandIn, **changes: Any) -> None:
    """Write the manifest with other values."""
    manifest = dataclasses.replace(stand_in.artifact.manifest, **changes)
    write_manifest(stand_in.artifact.manifest_path, manifest)


class TestNumbers:
    """Against what was recorded at the export."""

    def test_a_right_engine_passes(self, scorer: tuple[nn.Module, StandIn]) -> None:
        """At every recorded size, with figures for each output."""
        found = verify(scorer[1].artifact.path, loaded=scorer[1].load())
        assert found.verdict == "passed" and found.error() is None
        assert [call.name for call in found.calls] == ["opt", "min", "between", "max"]
        assert [call.sizes["batch"] for call in found.calls] == [4, 1, 10, 16]
        scores, best, any_good = found.calls[0].outputs
        assert (scores.name, best.name, any_good.name) == ("output.0.scores", "output.0.best", "output.1")
        assert scores.relative_norm is not None and scores.relative_norm < 1e-6
        assert scores.cosine == pytest.approx(1) and scores.max_abs is not None
        assert (best.differing, any_good.differing, best.relative_norm) == (0.0, 0.0, None)
        assert "eager PyTorch" in found.computed_by

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda t: t * 1.5, "differs by 5.0e-01 of its norm"),
            (lambda t: t.flip(0), "differs by "),
            (lambda t: torch.where(torch.arange(t.numel()).view_as(t) == 0, NAN, t), "values are not finite"),
            (lambda t: torch.full_like(t, INF), "values are not finite, in what was wanted 0"),
            (lambda t: t.half().float() * 0, "differs by 1.0e"),
        ],
        ids=["scaled", "shuffled", "nan", "inf", "zero"],
    )
    def test_a_wrong_engine_fails(
        self, scorer: tuple[nn.Module, StandIn], change: Callable[[Tensor], Tensor], reason: str
    ) -> None:
        """By a verdict with the output and the sizes, and an error with an exit code of its own."""
        found = verify(scorer[1].artifact.path, loaded=bent(scorer[1], change))
        assert found.verdict == "failed"
        error = found.error()
        assert isinstance(error, VerificationError) and error.exit_code == 11
        assert "output.0.scores" in str(error) and reason in str(error)
        assert "WRONG" in str(found)

    def test_rounding_passes_and_a_stricter_tolerance_refuses_it(self, scorer: tuple[nn.Module, StandIn]) -> None:
        """TensorRT computes float32 with TF32, which is off by some 1e-4."""
        loaded = bent(scorer[1], lambda t: t * (1 + 3e-4))
        path = scorer[1].artifact.path
        assert verify(path, loaded=loaded).verdict == "passed"
        assert verify(path, loaded=loaded, tolerance=1e-5).verdict == "failed"
        assert verify(path, loaded=bent(scorer[1], lambda t: t * 1.2), tolerance=0.5).verdict == "passed"

    def test_what_an_engine_raises_is_a_verdict(self, scorer: tuple[nn.Module, StandIn]) -> None:
        """Nobody wants a traceback of CUDA's instead."""

        def fail(tensor: Tensor) -> Tensor:
            raise RuntimeError("an illegal memory access was encountered")

        found = verify(scorer[1].artifact.path, loaded=bent(scorer[1], fail))
        assert found.verdict == "failed" and "illegal memory access" in str(found.error())

    def test_against_the_module_itself(self, scorer: tuple[nn.Module, StandIn]) -> None:
        """At the goldens' inputs, at one's own; the module comes back as it was."""
        module, stand_in = scorer
        module.train()
        found = verify(stand_in.artifact.path, reference=module, loaded=stand_in.load())
        assert found.passed and len(found.calls) == 4 and len(found.calls[0].outputs) == 3
        assert module.training and module.layers.training
        x = torch.randn(3, 8)
        given = {"x": x, "more": {"shift": x}, "bias": torch.zeros(5)}
        found = verify(stand_in.artifact.path, inputs=given, reference=module, loaded=stand_in.load())
        assert found.passed and [call.sizes for call in found.calls] == [{"batch": 3}]
        other = Scorer().eval()
        assert not verify(stand_in.artifact.path, inputs=given, reference=other, loaded=stand_in.load()).passed

    def test_a_reference_needs_no_goldens(self, tmp_path: Path) -> None:
        """Synthetic inputs within the ranges."""
        module = nn.Linear(8, 4).eval()
        stand_in = export_for_test(module, {"input": InputSpec((BATCH, 8))}, tmp_path / "m.windows.ep")
        found = verify(stand_in.artifact.path, loaded=stand_in.load())
        assert found.verdict == "numbers not checked" and "export with golden=True" in found.not_checked
        found = verify(stand_in.artifact.path, reference=module, loaded=stand_in.load())
        assert found.passed and len(found.calls) == 4

    def test_inputs_without_a_reference_are_refused(self, scorer: tuple[nn.Module, StandIn]) -> None:
        """There would be nothing to compare with."""
        with pytest.raises(ConfigurationError, match="reference=module"):
            verify(scorer[1].artifact.path, inputs=[torch.zeros(1, 8)])


class TestCompare:
    """One output against another."""

    @pytest.mark.parametrize(
        ("found", "wanted", "passed"),
        [
            (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]), True),
            (torch.tensor([NAN, 1.0]), torch.tensor([1.0, NAN]), False),
            (torch.tensor([1.0, INF]), torch.tensor([1.0, INF]), True),
            (torch.tensor([1.0, -INF]), torch.tensor([1.0, INF]), False),
            (torch.tensor([1.0, NAN]), torch.tensor([1.0, INF]), False),
            (torch.zeros(4), torch.zeros(4), True),
            (torch.full((4,), 1e-12), torch.zeros(4), True),
            (torch.full((4,), 1e-3), torch.zeros(4), False),
            (torch.zeros(0, 3), torch.zeros(0, 3), True),
            (torch.zeros(3), torch.zeros(1, 3), False),
            (torch.zeros(3).half(), torch.zeros(3), False),
            (torch.tensor([1 + 1j]), torch.tensor([1 + 1j]), True),
            (torch.tensor([1 + 1j]), torch.tensor([1 - 1j]), False),
            (None, torch.zeros(3), False),
            ("text", torch.zeros(3), False),
            (7, torch.tensor(7), True),
            (8, torch.tensor(7), False),
            (True, torch.tensor(True), True),
        ],
    )
    def test_what_is_the_same(self, found: Any, wanted: Tensor, passed: bool) -> None:
        """NaN is NaN at the same place; shape and dtype count."""
        compared = compare("y", found, wanted, 1e-3)
        assert compared.passed is passed
        assert compared.reason or (passed and (not isinstance(found, Tensor) or bool(found.isfinite().all())))
        json.dumps(compared.to_dict(), allow_nan=False)

    def test_what_is_not_finite_is_not_compared(self) -> None:
        """And the comparison says how much that is: of nothing but NaN nothing is known to be right."""
        wanted = torch.tensor([math.nan, math.inf, 1.0, 2.0])
        some = compare("y", wanted.clone(), wanted, 1e-3)
        assert some.passed
        assert some.reason == "2 of 4 values are NaN or infinite in the module as well, and not compared"
        assert "4 of 4 values are NaN" in compare("y", wanted * math.nan, wanted * math.nan, 1e-3).reason
        assert compare("y", wanted[2:], wanted[2:], 1e-3).reason == ""

    def test_a_choice_may_fall_the_other_way_now_and_then(self) -> None:
        """Of a thousand integers one, of ten none."""
        wanted = torch.arange(1000)
        found = wanted.clone()
        found[5] += 1
        assert compare("y", found, wanted, 1e-3).passed
        assert not compare("y", found[:10], wanted[:10], 1e-3).passed
        assert not compare("y", wanted + 1, wanted, 1e-3).passed

    def test_the_tolerance_follows_dtype_and_amplification(self) -> None:
        """A floor by dtype, the rounding that was foreseen above that, and an end."""
        assert [tolerance_of(kind, None) for kind in ("float32", "float16", "bfloat16")] == [1e-3, 1e-2, 3e-2]
        assert tolerance_of("float32", 1e-2) == pytest.approx(6e-2)
        assert tolerance_of("float32", 5.0) == 0.1


class TestFiles:
    """Both directions, all of it at once, and nothing of a damaged artifact is run."""

    def test_every_file_is_looked_at(self, copied: StandIn) -> None:
        """A changed byte in the program and goldens that are cut short, in one report."""
        paths = ArtifactPaths.of(copied.artifact.path)
        loaded = copied.load()
        data = bytearray(paths.ep.read_bytes())
        data[len(data) // 2] ^= 1
        paths.ep.write_bytes(data)
        paths.golden.write_bytes(paths.golden.read_bytes()[:-1])
        found = verify(paths.ep, loaded=loaded)
        assert len(found.integrity) == 2 and found.verdict == "failed"
        assert found.structure is None and found.environment is None and "structure    not checked" in str(found)
        assert "its content is not that of the export" in found.integrity[0]
        assert found.integrity[1].startswith("goldens: m.windows.golden.safetensors has ")
        assert found.calls == () and found.not_checked == "nothing of a damaged artifact is run"
        assert isinstance(found.error(), ArtifactError)

    @pytest.mark.parametrize(
        ("change", "issue"),
        [
            (lambda m: {"inputs": (dataclasses.replace(m.inputs[0], dtype="float16"), *m.inputs[1:])},
             "input x: is float32 in the program, float16 in the manifest"),
            (lambda m: {"inputs": (m.inputs[1], m.inputs[0], *m.inputs[2:])},
             "input more.shift: is where the program has x"),
            (lambda m: {"outputs": (dataclasses.replace(m.outputs[0], dtype="int8"), *m.outputs[1:])},
             "output output.0.scores: is float32 in the program, int8 in the manifest"),
            (lambda m: {"outputs": m.outputs[:1]},
             "outputs: the program returns 3 values in a structure of 3, the manifest lists 1"),
            (lambda m: {"engines": (dataclasses.replace(m.engines[0], inputs=m.engines[0].inputs[:-1]),)},
             "is called with 3 tensors, the manifest lists 2"),
            (lambda m: {"engines": (dataclasses.replace(m.engines[0], outputs=m.engines[0].outputs[:1]),)},
             "is read, the manifest lists 1 outputs"),
            (lambda m: {"inputs": (*m.inputs[:2], dataclasses.replace(m.inputs[2], min=(4,), opt=(4,), max=(4,)))},
             "input bias: axis 0 is always 5 in the program, 4 to 4 in the manifest"),
        ],
        ids=["dtype", "order", "output", "outputs", "inputs bound", "outputs bound", "size"],
    )  # fmt: skip
    def test_program_and_manifest_fit_together(self, copied: StandIn, change: Any, issue: str) -> None:
        """Hashes say that neither was changed, and not that they belong together."""
        loaded = copied.load()
        described(copied, **change(copied.artifact.manifest))
        found = verify(copied.artifact.path, loaded=loaded)
        assert any(issue in text for text in found.structure or ()), found.structure
        assert found.integrity == () and found.verdict == "failed" and found.calls == ()

    @pytest.mark.parametrize("name", ["Tensorrt_RTX", "torch", "../x", "new"])
    def test_a_backend_that_nobody_knows(self, copied: StandIn, name: str) -> None:
        """Also one that is called nearly like ours, or like another package that is installed."""
        described(copied, backend=dataclasses.replace(copied.artifact.manifest.backend, name=name))
        found = verify(copied.artifact.path)
        assert any("wanted the backend tensorrt_rtx or tensorrt, found" in str(d) for d in found.environment or ())

    def test_engines_that_the_manifest_does_not_list(self, copied: StandIn) -> None:
        """The other direction: what is in the file and nowhere in the manifest."""
        described(copied, engines=())
        found = verify(copied.artifact.path)
        assert any("calls of engines in the archive: 1" in issue for issue in found.integrity)


class TestSaying:
    """Text, JSON and exit codes."""

    def test_without_a_gpu_it_says_that_numbers_were_not_checked(
        self, scorer: tuple[nn.Module, StandIn], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Which is no failure, unless numbers are required."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        path = str(scorer[1].artifact.path)
        assert main(["verify", path]) == 0
        text = capsys.readouterr().out
        assert "numbers not checked" in text and "not checked here: there is no NVIDIA GPU here" in text
        assert main(["verify", path, "--require-numbers"]) == 3
        assert main(["verify", path, "--no-numbers"]) == 0
        assert "they were not asked for" in capsys.readouterr().out

    def test_json_has_it_all(self, scorer: tuple[nn.Module, StandIn], capsys: pytest.CaptureFixture[str]) -> None:
        """For scripts, also where it fails."""
        assert main(["verify", str(scorer[1].artifact.path), "--json", "--no-numbers"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["verdict"] == "numbers not checked" and found["numbers"]["checked"] is False
        found = verify(scorer[1].artifact.path, loaded=bent(scorer[1], lambda t: t * NAN)).to_dict()
        again = json.loads(json.dumps(found, allow_nan=False))
        assert again["numbers"]["calls"][0]["outputs"][0]["relative_norm"] is None

    def test_a_damaged_file_has_its_exit_code(self, copied: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
        """That of a damaged artifact, whatever else would have been found."""
        copied.artifact.path.write_bytes(b"PK")
        assert main(["verify", str(copied.artifact.path)]) == 7
        assert "is not a readable zip archive" in capsys.readouterr().out

    def test_the_terminal_s_cursor_stays_where_it_is(self, copied: StandIn) -> None:
        """Texts in files come from elsewhere."""
        checked = verify(copied.artifact.path, loaded=copied.load())
        call = dataclasses.replace(checked.calls[0], error="\x1b[2J")
        assert "\x1b" not in str(dataclasses.replace(checked, calls=(call,)))

    def test_the_verdict_in_the_manifest(self, copied: StandIn) -> None:
        """Readable by every reader of manifests, and shown by inspect."""
        found = verify(copied.artifact.path, loaded=bent(copied, lambda t: t * 2))
        artifact = record_verification(found)
        assert read_artifact(artifact.path) == artifact
        written = artifact.manifest.verification
        assert written is not None
        assert written["verdict"] == "failed" and written["calls"][0]["outputs"][0]["passed"] is False
        assert re.search("^  call between +failed$", str(inspect(artifact.path)), re.MULTILINE), (
            "one line for each call"
        )
        assert verify(artifact.path, loaded=copied.load()).passed, "the .ep is the same"


class TestAtExport:
    """``verify=`` of the export and of the callback; there may be no GPU here."""

    @pytest.fixture(autouse=True)
    def no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that the outcome is the same everywhere."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    @pytest.mark.linux("exports")
    def test_auto_writes_that_numbers_were_not_checked(self, tmp_path: Path) -> None:
        """And records the goldens that another machine needs for it."""
        artifact = export_module(nn.Linear(8, 4), {"input": InputSpec((BATCH, 8))}, tmp_path / "m.ep", verify="auto")
        written = artifact.manifest.verification
        assert written is not None and written["verdict"] == "numbers not checked"
        assert artifact.manifest.golden is not None
        assert read_artifact(artifact.path) == artifact

    @pytest.mark.linux("exports")
    def test_where_numbers_are_required_their_lack_is_an_error(self, tmp_path: Path) -> None:
        """The artifact stays, and says what was not done."""
        with pytest.raises(VerificationError, match=r"m\.ep was built, and its numbers were not checked: there is no"):
            export_module(nn.Linear(8, 4), {"input": InputSpec((BATCH, 8))}, tmp_path / "m.ep", verify=True)
        assert read_artifact(tmp_path / "m.ep").manifest.verification is not None

    def test_of_a_twin_come_the_numbers_and_of_the_artifact_the_files(
        self, scorer: tuple[nn.Module, StandIn], copied: StandIn
    ) -> None:
        """Where the artifact itself cannot run here: both are checked, and the manifest says whose numbers they are."""
        assert verified(copied.artifact, "auto", twin=scorer[1].artifact).manifest.verification is not None
        copied.artifact.path.write_bytes(copied.artifact.path.read_bytes()[:-1])
        found = verified(copied.artifact, "auto", twin=scorer[1].artifact)
        assert found.path == copied.artifact.path
        written = read_artifact(found.path).manifest.verification
        assert written is not None and (written["kind"], written["verdict"]) == ("twin", "failed")
        assert failure_of(found) is not None and "bytes instead of" in str(failure_of(found))

    @pytest.mark.linux("trains")
    def test_the_callback_reports_it_as_a_failure(self, tmp_path: Path) -> None:
        """Beside the artifact, which is there."""
        from support.lightning_models import Data, Regression, trainer

        from lightning_trt_windows import WindowsExport

        callback = WindowsExport(verify=True)
        with pytest.warns(UserWarning, match="its numbers were not checked"):
            trainer(tmp_path, callback, max_epochs=1, enable_checkpointing=True).fit(Regression(), Data())
        assert len(callback.artifacts) == 1
        (failure,) = callback.failures
        assert isinstance(failure.error, VerificationError) and failure.checkpoint is not None
        with pytest.raises(VerificationError):
            trainer(tmp_path / "b", WindowsExport(verify=True, on_error="raise"), max_epochs=1).fit(
                Regression(), Data()
            )

    @pytest.mark.linux("trains")
    def test_other_values_are_refused(self) -> None:
        """Before a training starts."""
        from lightning_trt_windows import WindowsExport

        with pytest.raises(ConfigurationError, match="verify must be one of False, True, 'auto'"):
            WindowsExport(verify="sometimes")  # type: ignore[arg-type]  # what is tested


class TestMetric:
    """The gate: a metric of the user's may drop by no more than allowed."""

    @staticmethod
    def agreement(model: Callable[..., Any], batches: Any) -> float:
        """Share of samples with a positive sum whose first output is positive."""
        hits = [((model(x)[:, :1] > 0) == (x.sum(1, keepdim=True) > 0)).float().mean() for x in batches]
        return float(torch.stack(hits).mean())

    @pytest.fixture
    def exported(self, tmp_path: Path) -> tuple[nn.Module, StandIn]:
        """A module whose output is the sum."""
        module = nn.Linear(8, 1).eval()
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
        return module, export_for_test(module, {"input": InputSpec((BATCH, 8))}, tmp_path / "m.windows.ep")

    def test_no_drop_passes_and_is_written(self, exported: tuple[nn.Module, StandIn]) -> None:
        """Name, both values and what was allowed."""
        module, stand_in = exported
        module.train()
        batches = [torch.randn(16, 8) for _ in range(4)]
        outcome = verify_metric(stand_in.load(), module, batches, self.agreement, max_drop=0.0)
        assert outcome.passed and outcome.module == outcome.artifact == 1.0 and module.training
        written = read_artifact(stand_in.artifact.path).manifest.verification
        assert written is not None and written["metric"]["name"] == "agreement" and written["metric"]["passed"] is True

    def test_a_drop_is_an_error_and_is_written(self, exported: tuple[nn.Module, StandIn]) -> None:
        """Whichever end is the better one."""
        module, stand_in = exported
        batches = [torch.randn(16, 8) for _ in range(4)]
        with pytest.raises(VerificationError, match=r"agreement of m\.windows\.ep is 0, of the module 1: worse by 1"):
            verify_metric(bent(stand_in, lambda t: -t), module, batches, self.agreement)
        written = read_artifact(stand_in.artifact.path).manifest.verification
        assert written is not None and written["verdict"] == "failed" and written["metric"]["passed"] is False
        outcome = verify_metric(bent(stand_in, lambda t: -t), module, batches, self.agreement, higher_is_better=False)
        assert outcome.passed and outcome.drop == -1

    @pytest.mark.linux("has a LightningDataModule")
    def test_a_datamodule_gives_its_validation_data(self, tmp_path: Path) -> None:
        """Its loader is made as a Trainer makes it."""
        from support.lightning_models import Data, Regression

        module = Regression().eval()
        stand_in = export_for_test(module, {"x": InputSpec((BATCH, 4))}, tmp_path / "m.windows.ep")

        def error(model: Callable[..., Any], batches: Any) -> float:
            return float(sum(nn.functional.mse_loss(model(x), y) for x, y in batches))

        outcome = verify_metric(stand_in.load(), module, Data(), error, higher_is_better=False, max_drop=1e-3)
        assert outcome.passed and outcome.module > 0

    def test_data_that_can_be_read_once_or_are_none(self, exported: tuple[nn.Module, StandIn]) -> None:
        """Both would compare nothing."""
        module, stand_in = exported
        with pytest.raises(ConfigurationError, match="needed twice"):
            verify_metric(stand_in.load(), module, iter([torch.randn(4, 8)]), self.agreement)
        with pytest.raises(ConfigurationError, match="no batches"):
            verify_metric(stand_in.load(), module, [], lambda model, batches: float(len(list(batches))))

    def test_not_a_number_is_no_pass(self, exported: tuple[nn.Module, StandIn]) -> None:
        """A comparison with NaN is never true."""
        module, stand_in = exported
        with pytest.raises(VerificationError):
            verify_metric(stand_in.load(), module, [torch.zeros(4, 8)], lambda *_: NAN)


def test_the_public_name_is_this_function() -> None:
    """And no package of the same name hides it."""
    import lightning_trt_windows
    import lightning_trt_windows.verification

    assert callable(lightning_trt_windows.verify) and isinstance(verify, type(test_the_public_name_is_this_function))
    assert Verification.__module__ == "lightning_trt_windows.verification.result"
