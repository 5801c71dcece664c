"""Trainings with DeepSpeed and the callback: without ZeRO, stages 1 to 3, offloading, 16 bits; each in processes apart.

``python tests/gpu/deepspeed_run.py DIRECTORY [CASE ...] [--timeout SECONDS]`` trains each case without the callback,
with its defaults and with ``when="checkpoint"``, compares the weights, and exports the same checkpoints once more in
another process, whose engines must be the same. It prints one line of JSON for each case as it ends. Cases are the keys
of ``CASES``; without any all are run. A case that takes longer than the timeout (90 s) is ended with its processes.

With one or two GPUs each process has one, and they talk through NCCL. Without a GPU two processes train on the
processor, and a DeepSpeedStrategy that does not insist on GPUs takes the place of Lightning's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support.deepspeed_training import Parts, strategy_class
from support.lightning_models import Data, trainer

ON_CPU = not torch.cuda.is_available()
DEVICES = 2 if ON_CPU else min(2, torch.cuda.device_count())
_TO_CPU: dict[str, Any] = {"device": "cpu"}
CASES: dict[str, dict[str, Any]] = {
    "stage1": {"stage": 1},
    "stage2": {"stage": 2},
    "stage3": {"stage": 3},
    "stage3_late": {"stage": 3, "made": "late"},
    "stage3_bf16": {"stage": 3, "precision": "bf16-mixed", "made": "early"},
    "stage3_bf16_late": {"stage": 3, "precision": "bf16-true", "made": "late"},
    "stage2_bf16": {"stage": 2, "precision": "bf16-true"},
    "stage1_fp16": {"stage": 1, "precision": "16-mixed"},
    "stage2_offload": {"stage": 2, "offload_optimizer": _TO_CPU},
    "stage3_offload": {"stage": 3, "offload_optimizer": _TO_CPU, "offload_param": _TO_CPU},
    "off": {"stage": 0},
}
WHEN = (None, "train_end", "checkpoint")
EPOCHS = 2


def strategy_of(case: dict[str, Any]) -> Any:
    """The strategy of a case, with PyTorch's optimizers when offloading too: nothing has to be compiled."""
    cls = strategy_class(on_cpu=ON_CPU)
    backend = "gloo" if ON_CPU else "nccl"
    if not case["stage"]:
        return cls(zero_optimization=False, process_group_backend=backend)
    zero = {key: value for key, value in case.items() if key not in ("precision", "made")}
    config = {
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"contiguous_gradients": True, "overlap_comm": not ON_CPU, **zero},
    }
    return cls(config=config, process_group_backend=backend)


def file_of(when: str | None, epoch: int) -> str:
    """Name of a checkpoint."""
    return f"{when or 'none'}-epoch={epoch}.ckpt"


def train(folder: Path, name: str) -> None:
    """Train without and with the callback; each process writes what came of it into a file, after each training."""
    from lightning.pytorch import seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint

    from lightning_trt_windows import WindowsExport

    case = CASES[name]
    found: list[dict[str, Any]] = []
    for when in WHEN:
        seed_everything(0)
        started = time.perf_counter()
        saver = ModelCheckpoint(folder, filename=f"{when or 'none'}-{{epoch}}", save_top_k=-1)
        exports = [] if when is None else [WindowsExport(when=when)]
        options = {"precision": case.get("precision", "32-true"), "accelerator": "cpu" if ON_CPU else "gpu"}
        run = trainer(
            folder, saver, *exports, strategy=strategy_of(case), max_epochs=EPOCHS, devices=DEVICES, **options
        )
        module = Parts(layer_norm="precision" in case, made=case.get("made", "both"))
        run.fit(module, datamodule=Data())
        _keep_live(folder / f"{when}-live.pt", module, is_first=run.is_global_zero)
        entry: dict[str, Any] = {
            "when": when,
            "seconds": round(time.perf_counter() - started, 1),
            "linear_replaced": torch.nn.functional.linear is not torch._C._nn.linear,
        }
        for export in exports:
            entry["artifacts"] = [artifact.path.name for artifact in export.artifacts]
            entry["failures"] = [str(failure) for failure in export.failures]
        found.append(entry)
        result = {"rank": run.global_rank, "world_size": run.world_size, "trainings": found}
        (folder / f"rank{run.global_rank}.json").write_text(json.dumps(result))


def _keep_live(path: Path, module: Any, *, is_first: bool) -> None:
    """The weights that the module has at the end, of all processes together."""
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        if is_first:
            torch.save({name: value.detach().cpu() for name, value in module.named_parameters()}, path)


def export_again(folder: Path, name: str) -> dict[str, Any]:
    """Export the same checkpoints in this process, which trains nothing; compare weights and engines."""
    from lightning_trt_windows import export_checkpoint
    from lightning_trt_windows.artifact.artifact import check_artifact
    from lightning_trt_windows.checkpoints.consolidate import one_file

    last = EPOCHS - 1
    whole = {
        when: torch.load(one_file(folder / file_of(when, last), trusted=True), weights_only=True)["state_dict"]
        for when in WHEN
    }
    same = {
        str(when): whole[None].keys() == state.keys() and all(whole[None][key].equal(state[key]) for key in state)
        for when, state in whole.items()
    }
    live = torch.load(folder / "None-live.pt", weights_only=True)
    narrow = "precision" in CASES[name]
    as_trained = {key: whole[None][key].to(value.dtype).equal(value) for key, value in live.items()}
    manifests = sorted(folder.glob("*.windows.json"))
    engines = {}
    for manifest in manifests:
        made = check_artifact(manifest).manifest
        checkpoint = folder / manifest.name.replace("-consolidated.windows.json", ".ckpt")
        again = export_checkpoint(checkpoint, Parts, output=folder / "again", trust_checkpoint=True).manifest
        engines[manifest.name] = [e.sha256 for e in made.engines] == [e.sha256 for e in again.engines]
    return {
        "weights_equal_with_and_without": same,
        "weights_of_the_module": [key for key, equal in as_trained.items() if not equal] or True,
        "float32": all(v.dtype is torch.float32 for v in whole[None].values() if v.is_floating_point()),
        "narrow": narrow,
        "engines_of_an_export_afterwards": engines,
    }


def _in_time(arguments: list[str], limit: float) -> tuple[int | None, str]:
    """Run this file again; ``None`` where it was ended, and the end of what it said."""
    log = Path(arguments[0]) / f"{'-'.join(arguments[1:]).strip('-')}.log"
    with log.open("w") as stream:
        # a group of its own: the launcher's processes end with it
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, log.read_text(errors="replace")[-3000:]


def run_case(directory: Path, name: str, limit: float) -> bool:
    """Train and export in other processes; print what came of it, and say whether all is well."""
    folder = directory / name
    folder.mkdir(parents=True)
    started = time.perf_counter()
    code, said = _in_time([str(directory), "--train", name], limit)
    ranks = [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]
    result: dict[str, Any] = {"case": name, "train": "timeout" if code is None else code, "ranks": ranks}
    well = code == 0 and len(ranks) == DEVICES
    for rank in ranks:
        for training in rank["trainings"]:
            due = {None: None, "train_end": 1, "checkpoint": EPOCHS}[training["when"]] if rank["rank"] == 0 else 0
            well &= training["when"] is None or (len(training["artifacts"]) == due and not training["failures"])
    if code == 0:
        code, said = _in_time([str(directory), "--export", name], limit)
        result["export"] = "timeout" if code is None else code
        if code == 0:
            again = json.loads((folder / "export.json").read_text())
            result.update(again)
            well &= all(again["weights_equal_with_and_without"].values()) and again["float32"]
            well &= again["weights_of_the_module"] is True
            well &= len(again["engines_of_an_export_afterwards"]) == EPOCHS + 1
            well &= all(again["engines_of_an_export_afterwards"].values())
        else:
            well = False
    result |= {"well": well, "seconds": round(time.perf_counter() - started, 1)}
    if not well:
        result["said"] = said
    print(json.dumps(result), flush=True)
    return well


def main() -> int:
    """Run cases, each in processes of its own; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--timeout", type=float, default=90)
    parser.add_argument("--train")
    parser.add_argument("--export")
    given = parser.parse_args()
    directory = given.directory.resolve()
    if given.train:
        train(directory / given.train, given.train)
    elif given.export:
        found = export_again(directory / given.export, given.export)
        (directory / given.export / "export.json").write_text(json.dumps(found))
    else:
        directory.mkdir(parents=True, exist_ok=True)
        well = [run_case(directory, name, given.timeout) for name in given.cases or CASES]
        return 0 if all(well) else 1
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
