"""What a training ended with, whatever its strategy."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.trainers.checkpoint import Checkpoint
from graphsys.trainers.curve import EpochRecord, best_epoch
from graphsys.trainers.io_account import total_io
from graphsys.trainers.logs import read_log
from graphsys.trainers.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training ended with."""

    checkpoint: Path
    epochs: int  # epochs run, over all calls
    epoch_s: tuple[float, ...]  # seconds of each epoch, validation left out
    best_epoch: int | None  # counted from 0; None without validation
    train: dict[str, float]  # metrics of the last epoch by name
    val: dict[str, float]  # metrics of the best epoch's validation; empty without
    history: tuple[EpochRecord, ...]
    io: tuple[dict[str, Any], ...]  # of each epoch that had batches: graphsys.trainers.io_account.epoch_io
    stages: dict[str, StageReport]  # check, sample, pack, train
    skipped: bool  # True when an earlier call had finished it

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "checkpoint": str(self.checkpoint),
            "epochs": self.epochs,
            "epoch_s": list(self.epoch_s),
            "io": {"total": total_io(list(self.io), list(self.epoch_s)), "epochs": list(self.io)},
            "best_epoch": self.best_epoch,
            "train": self.train,
            "val": self.val,
            "history": [asdict(record) for record in self.history],
            "stages": {name: report.as_dict() for name, report in self.stages.items()},
            "skipped": self.skipped,
        }


def read_result(
    run: RunConfig, final: Checkpoint, stages: dict[str, StageReport], *, skipped: bool = False
) -> TrainResult:
    """Return what the training came to that ended with the checkpoint ``final``, as the run's folder tells it."""
    lines = [line for line in read_log(RunFolder(run.out).logs) if line["kind"] == "epoch"]
    history = tuple(EpochRecord(**record) for record in final.state["history"])
    best = best_epoch(history)
    return TrainResult(
        checkpoint=final.path,
        epochs=len(history),
        epoch_s=tuple(line["seconds"] for line in lines),
        io=tuple(line["io"] for line in lines if "io" in line),
        best_epoch=best,
        train=history[-1].train,
        val={} if best is None else history[best].val or {},
        history=history,
        stages=stages,
        skipped=skipped,
    )


def skipped_result(run: RunConfig, earlier: Checkpoint) -> TrainResult:
    """Return what a training came to that an earlier call had finished."""
    stages = {name: StageReport(name=name, skipped=True) for name in ("check", "sample", "pack", "train")}
    return read_result(run, earlier, stages, skipped=True)
