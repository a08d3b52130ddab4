"""The training loop of a pipeline, as every process runs it: epochs, validations, checkpoints, logs."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError
from graphsys.core.progress import Progress, task
from graphsys.core.types import LoaderCursor
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import canonical
from graphsys.trainers.checkpoint import Checkpoint, checkpoint_path, prune_checkpoints, training_manifest
from graphsys.trainers.curve import EpochRecord, best_epoch, learning_rate, should_stop, validation_due
from graphsys.trainers.logs import RunLog
from graphsys.trainers.objective import Objective
from graphsys.trainers.pipeline.runtime import EpochResult, Runtime
from graphsys.trainers.pipeline.saved import StageFiles
from graphsys.trainers.pipeline.scoring import Scorer
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.state import detached

TURNS_NAME = "turns.json"  # among the logs: every process's turns in the last epoch
_COUNTED = ("boundary", "exchange", "reduce")


class PipelineTraining:
    """One process's view of a training; process 0 writes the logs, all write checkpoints together.

    Args:
        scorer: Of the validation split; None where it is empty.
        parents: Fingerprints of what the training is made from.
    """

    def __init__(
        self,
        run: RunConfig,
        runtime: Runtime,
        files: StageFiles,
        objective: Objective,
        scorer: Scorer | None,
        *,
        parents: dict[str, str],
    ) -> None:
        self._run = run
        self._runtime = runtime
        self._files = files
        self._objective = objective
        self._scorer = scorer
        self._parents = parents
        self._history: list[EpochRecord] = []  # the epochs finished
        self._best: dict[str, Tensor] | None = None  # own weights of the best validation
        self._log_lines = 0

    @property
    def _leads(self) -> bool:
        return self._runtime.links.rank == 0

    def start(self, earlier: Checkpoint | None) -> None:
        """Take over an earlier checkpoint, if any, and have a snapshot; all processes take part.

        Where there is none, the messages of an exact forward pass are the first snapshot.
        """
        known = False
        if earlier is not None:
            self._best = self._files.load(earlier)
            self._history = [EpochRecord(**record) for record in earlier.state["history"]]
            self._log_lines = int(earlier.state["log_lines"])
            known = self._files.load_history(earlier)
        # A checkpoint of one chunk has no snapshot; all processes see the same one.
        if not known and self._runtime.stage.histories.graph.num_slots > 1:
            self._runtime.run_exactly(into_snapshot=True)

    def run(self, progress: Progress) -> Path:
        """Train to the end; return the final checkpoint."""
        config = self._run.trainer
        with self._open_log() as log, task(progress, "train", config.epochs - len(self._history), "epochs") as bar:
            if self._history:
                progress.message(f"going on from epoch {len(self._history):,} of {config.epochs:,}")
            while not should_stop(config, self._history):
                bar.note(self._run_epoch(log))
                bar.advance()
                done = should_stop(config, self._history)
                if len(self._history) % config.checkpoint_every == 0 and not done:
                    self._save(log, final=False)
            return self._save(log, final=True)

    def _open_log(self) -> AbstractContextManager[RunLog | None]:
        if not self._leads:
            return nullcontext()
        return RunLog(RunFolder(self._run.out).logs, num_lines=self._log_lines, step=len(self._history))

    def _run_epoch(self, log: RunLog | None) -> str:
        """Run one epoch; return what it came to, for people."""
        config, epoch = self._run.trainer, len(self._history)
        lr = learning_rate(config, epoch, self._history)
        for group in self._runtime.optimizer.param_groups:
            group["lr"] = lr
        started = time.perf_counter()
        result = self._runtime.run_epoch(epoch)
        loss, account = self._add_up(result)
        seconds = time.perf_counter() - started
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss}") if epoch else self._overflown(loss)
        val = self._validate(epoch)
        rank = self._objective.rank(val) if val else None
        record = EpochRecord(epoch=epoch, lr=lr, train={"loss": loss}, val=val or None, rank=rank)
        self._history.append(record)
        if rank is not None and config.keep == "best" and best_epoch(self._history) == epoch:
            self._best = detached(self._files.weights)
        if log is not None:
            values = {"epoch": epoch, "lr": lr, "train": record.train, **({"val": val} if val else {})}
            log.write("epoch", epoch + 1, {**values, "seconds": seconds, "pipeline": account})
        if should_stop(config, self._history):
            self._write_turns(result)
        return record.note(seconds)

    def _add_up(self, result: EpochResult) -> tuple[float, dict[str, Any]]:
        """Return the epoch's loss over the whole graph, and what all processes sent, computed and waited."""
        links = self._runtime.links
        world = links.shape.world_size
        sums = torch.zeros(1 + len(_COUNTED) + 2 * world, dtype=torch.float64)
        sums[0] = result.loss
        sums[1 : 1 + len(_COUNTED)] = torch.tensor([getattr(result.traffic, name) for name in _COUNTED])
        sums[1 + len(_COUNTED) + links.rank] = result.clock.busy_s
        sums[1 + len(_COUNTED) + world + links.rank] = result.clock.wait_s
        loss, *rest = links.sum_over_all(sums).tolist()
        sent, times = rest[: len(_COUNTED)], rest[len(_COUNTED) :]
        account = {
            "bytes_sent": {name: int(count) for name, count in zip(_COUNTED, sent, strict=True)},
            "busy_s": times[:world],
            "wait_s": times[world:],
        }
        return loss, account

    def _write_turns(self, result: EpochResult) -> None:
        gathered = self._runtime.links.gather([turn.as_dict() for turn in result.clock.slots])
        if self._leads:
            said = {"shape": astuple(Shape.of(self._run)), "turns": gathered}
            write_bytes(RunFolder(self._run.out).logs / TURNS_NAME, canonical(said) + b"\n")

    def _validate(self, epoch: int) -> dict[str, float]:
        if self._scorer is None or not validation_due(self._run.trainer, epoch):
            return {}
        found = self._scorer.score()
        for name, value in found.items():
            if not math.isfinite(value):
                raise self._diverged(f"the {name} of the validation became {value}")
        return found

    def _save(self, log: RunLog | None, *, final: bool) -> Path:
        epoch = len(self._history)
        spoilt = [name for name, weight in self._files.weights.items() if not torch.isfinite(weight).all()]
        if spoilt:
            raise self._diverged(f"the weights {spoilt[0]} are no numbers any more")
        if log is not None:
            log.write("checkpoint", epoch, {"epoch": epoch, "final": final})
            log.flush()
            self._log_lines = log.num_lines
        folder = RunFolder(self._run.out).checkpoints
        common = {
            "step": epoch,
            "history": [asdict(record) for record in self._history],
            "log_lines": self._log_lines,
        }
        manifest = training_manifest(
            self._run, self._history, LoaderCursor(epoch=epoch, next_batch_id=0),
            step=epoch, final=final, has_best=self._best is not None, parents=self._parents,
        )  # fmt: skip
        path = self._files.save(checkpoint_path(folder, epoch), common, self._best, manifest)
        if self._leads:
            prune_checkpoints(folder)
        return path

    def _overflown(self, loss: float) -> ConfigError:
        """Return what to say of a loss of the initial weights: no learning rate has had a part in it."""
        return ConfigError(
            f"training broke off in epoch 0: the loss became {loss} before the weights took a step; features of "
            f"{self._run.store} are too large for {self._run.trainer.precision}: scale them and import the graph again"
        )

    def _diverged(self, what: str) -> ConfigError:
        return ConfigError(
            f"training broke off in epoch {len(self._history)}: {what}; lower trainer.lr (now {self._run.trainer.lr:g})"
        )
