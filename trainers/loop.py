"""The training loop: steps, epochs, validations, checkpoints and logs, from wherever a run stands to its end."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from graphsys.core.config import RunConfig
from graphsys.core.progress import SILENT, Progress, Task, task
from graphsys.core.types import LoaderCursor
from graphsys.trainers.checkpoint import checkpoint_path, prune_checkpoints, save_checkpoint, training_manifest
from graphsys.trainers.curve import EpochRecord, best_epoch, learning_rate, should_stop, validation_due
from graphsys.trainers.io_account import EpochAccount, waiting_line
from graphsys.trainers.logs import Log
from graphsys.trainers.read_ahead import LoaderStats
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.state import TrainState
from graphsys.trainers.step import LabelledBatch, Setting, check_finite, team_step, validate
from graphsys.trainers.team import ALONE, Team

LOG_EVERY = 50  # steps between two lines of the log


class Feed(Protocol):
    """Where the batches of a run come from, on the model's device and in the order of their positions."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all workers take the training batches of an epoch."""

    @property
    def batches_per_epoch(self) -> int:
        """Training batches per epoch, those of all workers."""

    def num_seeds(self, first: int, stop: int) -> int:
        """Return the number of seeds in the training batches [first, stop) of an epoch."""

    @property
    def validates_alone(self) -> bool:
        """Whether the training batches must be closed before the validation batches fit into memory."""

    def train(self, cursor: LoaderCursor) -> AbstractContextManager[Iterable[LabelledBatch | None]]:
        """Open one batch per step from ``cursor`` to the end of the last epoch; None in steps without one."""

    def validation(self) -> AbstractContextManager[Iterable[LabelledBatch]] | None:
        """Open one pass over the validation batches; None when the graph has none."""

    @property
    def mode(self) -> str:
        """How feature rows reach the training batches: the mode of their plan."""

    def stats(self) -> LoaderStats:
        """Return what the training batches took so far."""


class TrainingLoop:
    """Runs one training. The state is the caller's; checkpoints and logs go to the run's folder.

    Of several workers each runs one, over its share of the batches; all take every step together, and decide alike.
    """

    def __init__(
        self,
        run: RunConfig,
        state: TrainState,
        setting: Setting,
        feed: Feed,
        log: Log,
        *,
        parents: dict[str, str],
        team: Team = ALONE,
    ) -> None:
        self._run = run
        self._state = state
        self._setting = setting
        self._feed = feed
        self._log = log
        self._parents = parents
        self._team = team
        self._taken = 0  # batches of the last step, over all workers
        self._folder = RunFolder(run.out).checkpoints
        self._lr = 0.0
        self._progress: Progress = SILENT
        open_epoch = _open_epoch(log)
        self._epoch_started = time.perf_counter() - open_epoch["seconds"]
        self._account = EpochAccount(run.out, feed.stats(), open_epoch["io"])

    def run(self, progress: Progress) -> Path:
        """Train to the end; return the final checkpoint."""
        self._progress = progress
        config, state, feed = self._run.trainer, self._state, self._feed
        self._set_learning_rate()
        num_batches = config.epochs * feed.batches_per_epoch
        done = state.epoch * feed.batches_per_epoch + state.next_batch
        if done:
            progress.message(f"going on from batch {done:,} of {num_batches:,}")
        with task(progress, "train", max(num_batches - done, 0), "batches") as bar:
            while not self._done:
                before = state.step
                with feed.train(state.cursor(rank=self._team.rank, world_size=self._team.world_size)) as batches:
                    self._take(batches, bar)
                if self._epoch_over:
                    self._settle(bar)
                if state.step == before:
                    raise RuntimeError(f"the batches ended at step {before}, before the training did")
        return self._save(final=True)

    @property
    def _done(self) -> bool:
        return should_stop(self._run.trainer, self._state.history)

    @property
    def _epoch_over(self) -> bool:
        """Whether every batch of the open epoch was taken."""
        return self._state.next_batch == self._feed.batches_per_epoch

    def _take(self, batches: Iterable[LabelledBatch | None], bar: Task) -> None:
        """Train until the end, or until an epoch is over whose validation needs the memory of ``batches``."""
        for batch in batches:
            self._step(batch)
            if self._epoch_over and self._feed.validates_alone and self._validation_due():
                return
            self._settle(bar)
            if self._done:
                return

    def _step(self, batch: LabelledBatch | None) -> None:
        """Take one step with the other workers."""
        state, size, first = self._state, self._team.world_size, self._state.next_batch
        stop = min((first // size + 1) * size, self._feed.batches_per_epoch)
        num_seeds = self._feed.num_seeds(first, stop)
        loss = team_step(state, batch, self._setting, team=self._team, num_seeds=num_seeds)
        state.next_batch, self._taken = stop, stop - first
        if state.step % LOG_EVERY == 0:
            check_finite(state, self._run.trainer)
            values = {"epoch": state.epoch, "loss": float(loss), "lr": self._lr}
            self._log.write("step", state.step, {**values, **self._clock()})

    def _settle(self, bar: Task) -> None:
        """Do what is due after a step: end the epoch, write a checkpoint."""
        if self._epoch_over:
            bar.note(self._end_epoch())
        bar.advance(self._taken)
        if self._state.step % self._run.trainer.checkpoint_every == 0 and not self._done:
            self._save(final=False)

    def _clock(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._epoch_started}

    def _take_account(self) -> None:
        self._account.take(self._feed.stats())

    def _end_epoch(self) -> str:
        """Close the epoch; return what it came to, for people."""
        state, config = self._state, self._run.trainer
        check_finite(state, config)
        clock = self._close_account()
        train = {"loss": float(state.epoch_loss) / state.epoch_rows}
        val = self._team.told(self._validate) if self._validation_due() else None
        rank = self._setting.objective.rank(val) if val else None
        record = EpochRecord(epoch=state.epoch, lr=self._lr, train=train, val=val or None, rank=rank)
        state.close_epoch(record)
        if rank is not None and config.keep == "best" and best_epoch(state.history) == record.epoch:
            state.keep_as_best()
        values = {"epoch": record.epoch, "lr": record.lr, "train": train, **({"val": val} if val else {})}
        self._log.write("epoch", state.step, {**values, **clock})
        self._set_learning_rate()
        self._epoch_started = time.perf_counter()
        self._account.restart(self._feed.stats())
        return record.note(clock["seconds"])

    def _close_account(self) -> dict[str, Any]:
        """Return the seconds and the bytes of the epoch that ends; say what it waited for."""
        seconds = self._clock()["seconds"]
        self._take_account()
        io = self._account.close(self._feed.mode, seconds)
        if (line := waiting_line(io, self._state.epoch, seconds)) is not None:
            self._progress.message(line)
        return {"seconds": seconds, "io": io}

    def _validation_due(self) -> bool:
        return validation_due(self._run.trainer, self._state.epoch)

    def _validate(self) -> dict[str, float]:
        opened = self._feed.validation()
        if opened is None:
            return {}
        with opened as batches:
            return validate(self._state, batches, self._setting)

    def _set_learning_rate(self) -> None:
        self._lr = learning_rate(self._run.trainer, self._state.epoch, self._state.history)
        for group in self._state.optimizer.param_groups:
            group["lr"] = self._lr

    def _save(self, *, final: bool) -> Path:
        state = self._state
        check_finite(state, self._run.trainer)
        path = checkpoint_path(self._folder, state.step)
        if not self._team.leads:
            return path
        # The line tells a resumed run what its open epoch has taken; the checkpoint counts it.
        self._take_account()
        line = {"epoch": state.epoch, "final": final, **self._clock(), "io": self._account.saved()}
        self._log.write("checkpoint", state.step, line)
        self._log.flush()
        manifest = training_manifest(
            self._run, state.history, state.cursor(),
            step=state.step, final=final, has_best=state.best is not None, parents=self._parents,
        )  # fmt: skip
        save_checkpoint(path, {**state.as_dict(), "log_lines": self._log.num_lines}, manifest)
        prune_checkpoints(self._folder)
        return path


def _open_epoch(log: Log) -> dict[str, Any]:
    """Return the seconds and sums of the epoch that the last checkpoint left open."""
    last = log.lines[-1] if log.lines else {"kind": "none"}
    return last if last["kind"] == "checkpoint" else {"seconds": 0.0, "io": None}
