"""What the stages of a run should cost, from a few sampled batches, a rehearsed training and the speed of the disk.

The formulas follow what the stages do, side by side or one after the other. They are printed beside what was measured.
"""

from dataclasses import dataclass, replace

from graphsys.trainers.company import Company, shared_cores
from graphsys.trainers.rehearsal import Pace
from graphsys.trainers.run_plans import RunPlans
from graphsys.trainers.split_cost import Split, Work
from graphsys.trainers.timeline import Part, Timeline, train_beside

_WARM = 0.01  # of the topology's bytes: a pilot that read less found it in the page cache


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Predicted cost of one stage, under the names of a stage's report."""

    seconds: float
    device_bytes_read: int
    device_bytes_written: int
    useful_bytes: int
    memory_bytes: int  # data at the peak; the interpreter comes on top

    def times(self, share: float) -> "StageCost":
        """Return the cost of a part of the stage; it takes as much memory as the whole."""
        return StageCost(
            seconds=share * self.seconds,
            device_bytes_read=int(share * self.device_bytes_read),
            device_bytes_written=int(share * self.device_bytes_written),
            useful_bytes=int(share * self.useful_bytes),
            memory_bytes=self.memory_bytes,
        )

    def as_dict(self) -> dict[str, float]:
        """Return plain JSON values."""
        return {
            "seconds": round(self.seconds, 3),
            "device_bytes_read": self.device_bytes_read,
            "device_bytes_written": self.device_bytes_written,
            "useful_bytes": self.useful_bytes,
            "memory_bytes": self.memory_bytes,
        }


def splits_of(work: Work, plans: RunPlans) -> list[Split]:
    """Return the batches of training and, where there is validation, of validation."""
    epochs = work.schedule.epochs
    # Batches of training are opened once, or again after every validation that needs their memory.
    starts = 1 if plans.together else max(work.validations, 1)
    found = [Split(work=work, pilot=work.pilot, plan=plans.train, schedule=work.schedule, passes=epochs, starts=starts)]
    if plans.val is not None and work.val_pilot is not None and work.val_schedule is not None:
        found.append(
            Split(
                work=work,
                pilot=work.val_pilot,
                plan=plans.val,
                schedule=work.val_schedule,
                passes=work.validations,
                starts=work.validations,
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Paces:
    """How fast a mode's batches go, as rehearsed."""

    train: Pace
    val: Pace | None  # None without validation

    def company(self, work: Work) -> Company:
        """Return how training and making windows slow each other down, as rehearsed or else as cores are shared."""
        busy = self.train.cpu_s / max(self.train.batch_s, 1e-9)
        assumed = shared_cores(work.cores, busy=busy, sample_threads=work.sample_threads)
        found = self.train.company
        return assumed if found is None else replace(found, slowdowns={**assumed.slowdowns, **found.slowdowns})


def stage_costs(work: Work, plans: RunPlans, paces: Paces) -> dict[str, StageCost]:
    """Return the costs of sampling, packing and training."""
    line = _timeline(work, plans, paces)
    return {
        "sample": _sample_cost(work, plans, line.sample),
        "pack": _pack_cost(work, plans, line.pack),
        "train": _train_cost(work, plans, paces, line.train),
    }


def _sample_cost(work: Work, plans: RunPlans, seconds: float) -> StageCost:
    """Return the cost of sampling every window once."""
    splits = splits_of(work, plans)
    written = int(sum(split.sample_written for split in splits))
    return StageCost(
        seconds=seconds,
        device_bytes_read=_topology_read(work, splits),
        device_bytes_written=written,
        useful_bytes=written,
        memory_bytes=plans.train.producer_bytes,
    )


def _topology_read(work: Work, splits: list[Split]) -> int:
    """Return the bytes of edges that sampling reads: by groups, or of pages of the map that nobody has looked at."""
    if work.sampling.read_bytes is not None:
        return _grouped_read(work, splits, [split.made for split in splits])
    # A pilot that read nothing found the topology in the page cache.
    cold = work.pilot.read_bytes > _WARM * work.topology_bytes
    return max(work.topology_bytes - work.pilot.read_bytes, 0) if cold else 0


def _grouped_read(work: Work, splits: list[Split], batches: list[float] | list[int]) -> int:
    """Return the bytes of edges that so many ``batches`` of each split read by groups; 0 where edges are mapped."""
    edges = sum(number * split.pilot.mean_edges for split, number in zip(splits, batches, strict=True))
    return int((work.sampling.read_bytes or 0) * edges / max(work.pilot.mean_edges, 1))


def _pack_cost(work: Work, plans: RunPlans, seconds: float) -> StageCost:
    """Return the cost of planning and packing every window once; nothing in modes that need neither."""
    splits = [split for split in splits_of(work, plans) if split.plan.mode in ("packed", "cached")]
    rows = sum(split.made * split.fetched + split.loaded for split in splits if split.plan.mode == "packed")
    return StageCost(
        seconds=seconds,
        device_bytes_read=int(sum(split.pack_read for split in splits))
        + _grouped_read(work, splits, [split.looked_ahead for split in splits]),
        device_bytes_written=int(sum(split.pack_written for split in splits)),
        useful_bytes=int(rows * work.dim * 4),
        memory_bytes=plans.train.producer_bytes if splits else 0,
    )


def _train_cost(work: Work, plans: RunPlans, paces: Paces, seconds: float) -> StageCost:
    """Return the cost of all epochs: batches at the pace of the rehearsal, windows being made beside them."""
    plan, splits = plans.train, splits_of(work, plans)
    once = work.feature_bytes if plan.mode == "memory" else 0
    useful = sum(
        split.read * split.id_bytes + (split.read * split.fetched + split.starts * split.loaded) * work.dim * 4
        for split in splits
    )
    return StageCost(
        seconds=seconds + once / paces.train.load_bytes_s,
        device_bytes_read=int(sum(split.read * split.step_bytes + split.starts * split.start_bytes for split in splits))
        + once,
        device_bytes_written=0,
        useful_bytes=int(useful) + once,
        memory_bytes=plan.working_bytes + plan.cache_bytes + once,
    )


def before_training_s(work: Work, plans: RunPlans) -> float:
    """Return the seconds of making the windows that training starts with."""
    line = _before_training(work, splits_of(work, plans))
    return line.sample + line.pack


def beside_training_s(work: Work, plans: RunPlans) -> float:
    """Return the seconds of making the windows that are made beside training, were nothing else to do."""
    return sum(part.seconds for parts in _beside_training(work, splits_of(work, plans)[0]) for part in parts)


def _timeline(work: Work, plans: RunPlans, paces: Paces) -> Timeline:
    splits = splits_of(work, plans)
    line, train, batches_s = _before_training(work, splits), splits[0], _batches_s(work, plans, paces)
    shares = [train.share_of(index) for index in range(train.num_windows)]
    train_beside(line, [share * batches_s for share in shares], _beside_training(work, train), paces.company(work))
    return line


def _before_training(work: Work, splits: list[Split]) -> Timeline:
    """Return how long it takes to make what training starts with: the first window, or all of frozen samples."""
    line = Timeline()
    for split in splits:
        for parts in _makings(work, split)[: None if split.schedule.samples == "frozen" else 1]:
            for part in parts:
                line.add(part.stage, part.seconds)
    return line


def _beside_training(work: Work, train: Split) -> list[list[Part]]:
    """Return what making each of the windows takes that are made beside training."""
    return [] if train.schedule.samples == "frozen" else _makings(work, train)[1:]


def _makings(work: Work, split: Split) -> list[list[Part]]:
    """Return what making each window takes, in order."""
    sample_s, pack_s, batch_s = split.sample_s(work), split.pack_s, split.batch_s(work)
    return [
        [
            Part(stage="sample", task="sample", seconds=share * sample_s),
            Part(stage="pack", task="sample", seconds=split.looked_ahead_of(index) * batch_s),
            Part(stage="pack", task="pack", seconds=share * pack_s),
        ]
        for index, share in enumerate(map(split.share_of, range(split.num_windows)))
    ]


def _batches_s(work: Work, plans: RunPlans, paces: Paces) -> float:
    """Return the seconds of all batches with no window being made beside them."""
    seconds = 0.0
    for split, pace in zip(splits_of(work, plans), (paces.train, paces.val), strict=False):
        assert pace is not None
        # Packed windows hold those rows, and reading them was rehearsed; elsewhere a scan of the store finds them.
        fill_s = pace.fill_s if split.plan.mode == "packed" else split.start_bytes / work.disk.read_bytes_s
        start_s = pace.start_s + fill_s
        # The rehearsal had the disk to itself.
        reading_s = split.step_bytes / work.disk.read_bytes_s if work.workers > 1 else 0.0
        seconds += split.starts * start_s + split.read * max(pace.batch_s, reading_s)
    return seconds
