"""Makes the windows of one split, one at a time."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from graphsys.core.config import RunConfig
from graphsys.core.errors import StaleArtefactError
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import Task
from graphsys.core.types import Array, NodeIds, Topology
from graphsys.samplers.neighbor import SAMPLER_VERSION
from graphsys.samplers.offline import sample_nodes, sample_window
from graphsys.samplers.schedule import Schedule
from graphsys.storage.files import remove_path
from graphsys.storage.manifest import fingerprint
from graphsys.storage.packer import pack_window
from graphsys.storage.residency import plan_residency
from graphsys.storage.store import Store
from graphsys.storage.window import Window
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.producer import ProducerJob
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.window_files import remove_partials, window_files, window_path

_PACKED_MODES = ("packed", "cached")


class WindowMaker:
    """Samples and packs windows into the run's folder of the split; what lies there and fits is not made again.

    The first half of a window's fingerprint says which batches it holds: the store, the split, the sampler's settings.
    A file that holds others is refused by name. The second half says how: positions, share, mode, codec, cache. A file
    that differs there only is made again without a word, since it holds nothing that this run could not make.

    Args:
        run: the run; its sampler settings, seeds and folder.
        store: where topology, features and labels come from.
        schedule: which seeds make up which batch.
        plan: mode, window size, cache size and memory.
        split: "train" or "val".
        topology: in-edges among the nodes of the task's type, in memory or memory-mapped.
        with_degree: whether batches carry in-degrees.
        overwrite: remove files of other batches instead of refusing them.
    """

    def __init__(
        self, run: RunConfig, store: Store, schedule: Schedule, plan: PackPlan, *,
        split: str, topology: Topology, with_degree: bool, overwrite: bool,
    ) -> None:  # fmt: skip
        self.schedule = schedule
        self.plan = plan
        self.folder = RunFolder(run.out).windows(split, rank=schedule.rank, world_size=schedule.world_size)
        self.num_windows = schedule.num_windows(plan.window_batches)
        self.reports = _no_reports()
        self._run = run
        self._store = store
        self._node_type = store.node_type(run.task.node_type).name
        self._topology = topology
        self._with_degree = with_degree
        self._overwrite = overwrite
        self._content = _content(run, store, schedule, split, self._node_type)
        self._final_slots: tuple[int, NodeIds] = (-1, np.empty(0, np.int64))  # of the window made or found last

    @property
    def packs(self) -> bool:
        """Whether windows are packed after they are sampled."""
        return self.plan.mode in _PACKED_MODES

    def path(self, index: int, kind: str) -> Path:
        """Return where the window ``index`` of ``kind`` ("sample" or "pack") lies."""
        return window_path(self.folder, index, kind)

    def find(self, index: int) -> Window | None:
        """Return the window that training reads, or None when it is still to be made.

        Raises:
            StaleArtefactError: A file of its name holds other batches.
            CorruptError: The file changed.
        """
        return self._find(index, "pack" if self.packs else "sample")

    def make(self, index: int, initial_slots: NodeIds, sampling: Task, packing: Task) -> None:
        """Sample and pack a window where that was not done.

        Args:
            index: which window.
            initial_slots: [S] what :meth:`initial_slots` returned.
            sampling: advanced by one per batch.
            packing: the same, where the mode packs.

        Raises:
            StaleArtefactError: A file of its name holds other batches.
            MemoryBudgetError, InputError, CorruptError, DiskError: As
                :func:`graphsys.samplers.offline.sample_window` and :func:`graphsys.storage.packer.pack_window`.
        """
        window = self.find(index)
        if window is not None:
            sampling.advance(window.header.num_batches)
            packing.advance(window.header.num_batches)
            return
        self.sample(index, sampling)
        if self.packs:
            self._pack(index, initial_slots, packing)

    def sample(self, index: int, bar: Task) -> None:
        """Make the samples of a window, unless they or the packed window are there. Raises as :meth:`make`."""
        found = self.find(index) or self._find(index, "sample")
        if found is not None:
            bar.advance(found.header.num_batches)
            return
        run, path = self._run, self.path(index, "sample")
        positions = self.schedule.window(index, self.plan.window_batches)
        with measure("sample") as report:
            sample_window(
                self._topology,
                self.schedule,
                positions,
                path,
                fanouts=run.sampler.fanouts,
                replace=run.sampler.replace,
                weighted=run.sampler.weighted,
                with_degree=self._with_degree,
                labels=self._labels(positions),
                threads=run.sampler.threads,
                fingerprint=self._fingerprint(index, "sample"),
                window_index=index,
                memory=self.plan.producer_bytes,
                task=bar,
            )
        report.useful_bytes = path.stat().st_size
        self._add(report)

    def _pack(self, index: int, initial_slots: NodeIds, bar: Task) -> None:
        plan, sample_path = self.plan, self.path(index, "sample")
        with measure("pack") as report:
            following = self._following(index, initial_slots)
            count = pack_window(
                sample_path,
                self.path(index, "pack"),
                self._store.features(self._node_type),
                num_slots=plan.num_slots,
                initial_slots=initial_slots,
                following=following,
                codec=plan.codec,
                with_rows=plan.mode == "packed",
                with_initial_rows=self._is_cyclic and index == 0,
                memory=plan.producer_bytes - sum(node.nbytes for node in following),
                fingerprint=self._fingerprint(index, "pack"),
                task=bar,
            )
        remove_path(sample_path)
        report.useful_bytes = count.useful_bytes
        self._add(report)

    @property
    def _is_cyclic(self) -> bool:
        """Whether the first window comes again after the last, with the cache that the last one leaves."""
        return self.schedule.samples == "frozen"

    def _following(self, index: int, initial_slots: NodeIds) -> list[NodeIds]:
        """Return what the batches behind a window access, as far as its cache plan looks ahead."""
        stop = self.schedule.window(index, self.plan.window_batches).stop
        end = stop + self.plan.look_ahead
        following = self._nodes(range(stop, min(end, self.schedule.num_batches)))
        if self._is_cyclic and end > self.schedule.num_batches:
            first = initial_slots if index == 0 else self.initial_slots(0)
            following.append(np.sort(first[first >= 0]))
        return following

    def _nodes(self, positions: range) -> list[NodeIds]:
        sampler, memory = self._run.sampler, self.plan.producer_bytes
        # The ids stay; a plan leaves room for them beside one batch.
        kept = min(8 * len(positions) * self.plan.max_nodes, memory // 2)
        return sample_nodes(
            self._topology,
            self.schedule,
            positions,
            fanouts=sampler.fanouts,
            replace=sampler.replace,
            weighted=sampler.weighted,
            threads=sampler.threads,
            memory=memory - kept,
        )

    def _slots_of_a_start(self) -> NodeIds:
        """Return [S] what the cache holds when an epoch of frozen samples starts: what the end of one leaves for it.

        The last batches of an epoch are planned from an empty cache, in front of the first ones. A cache forgets what
        it held long ago, so it ends there with nearly the rows that it holds after a whole epoch.
        """
        plan, total = self.plan, self.schedule.num_batches
        empty = np.full(plan.num_slots, -1, np.int64)
        head = self._nodes(range(min(plan.look_ahead, total)))
        tail = self._nodes(range(max(total - min(2 * plan.look_ahead, plan.window_batches), 0), total))
        if not head:
            return empty
        final = plan_residency(tail, plan.num_slots, empty, head).final_slot_node
        return np.where(np.isin(final, np.concatenate(head)), final, -1)

    def _labels(self, positions: range) -> Array | None:
        """Return the labels, those of the seeds at ``positions`` read ahead."""
        if not self._store.has(f"nodes/{self._node_type}/y"):
            return None
        labels = self._store.label_array(self._node_type)
        if len(positions):
            labels.prefetch(np.sort(np.concatenate([self.schedule.seeds(position).node for position in positions])))
        return labels.memmap()

    def initial_slots(self, index: int) -> NodeIds:
        """Return [S] what the cache holds when a window starts: what the one before it leaves; -1 where it is empty.

        Raises:
            StaleArtefactError: The file of that window holds other batches.
            CorruptError: It changed.
        """
        if index == 0 and self._is_cyclic and self.packs:
            first = self.find(0)
            return first.initial_slots() if first is not None else self._slots_of_a_start()
        last, slots = self._final_slots
        if index > 0 and last == index - 1:
            return slots
        before = self.find(index - 1) if index > 0 and self.packs else None
        return before.final_slots() if before is not None else np.full(self.plan.num_slots, -1, np.int64)

    def open(self, index: int) -> Window:
        """Return a window that was made; the one behind it starts with the cache that this one leaves.

        Raises:
            StaleArtefactError: The file holds other batches, or the same in another layout.
            CorruptError: It changed.
        """
        kind = "pack" if self.packs else "sample"
        window = Window.open(self.path(index, kind), self._fingerprint(index, kind))
        if self.packs:
            self._final_slots = index, window.final_slots()
        return window

    def tidy(self, keep: Collection[int]) -> None:
        """Remove what killed runs and other layouts left, and every window that is not in ``keep``.

        Raises:
            StaleArtefactError: A file holds other batches.
        """
        remove_partials(self.folder)
        for path, index, kind in window_files(self.folder):
            if not self._wanted(index, kind, keep):
                remove_path(path)

    def _wanted(self, index: int, kind: str, keep: Collection[int]) -> bool:
        if self._find(index, kind) is None or index not in keep or index >= self.num_windows:
            return False
        # Samples are of no use once they are packed; a packed window is of no use to a mode that reads samples.
        return kind == "pack" if self.packs and self.path(index, "pack").exists() else kind == "sample"

    def remove(self, index: int) -> None:
        """Remove a window that is not needed any more."""
        remove_path(self.path(index, "pack" if self.packs else "sample"))

    def _find(self, index: int, kind: str) -> Window | None:
        path = self.path(index, kind)
        if not path.exists():
            return None
        window = Window.open(path, None)
        found, expected = window.header.fingerprint, self._fingerprint(index, kind)
        if found[: len(self._content)] != self._content and not self._overwrite:
            raise StaleArtefactError(
                f"{path} holds batches of another store or of other sampler settings than this run has; choose another "
                f"'out', or pass --overwrite to make them again"
            )
        return window if found == expected else None

    def _fingerprint(self, index: int, kind: str) -> str:
        positions, plan = self.schedule.window(index, self.plan.window_batches), self.plan
        layout: dict[str, Any] = {
            "kind": kind,
            "positions": [positions.start, positions.stop],
            "with_degree": self._with_degree,
        }
        if self.schedule.world_size > 1:
            layout["share"] = [self.schedule.rank, self.schedule.world_size]
        if kind == "pack":
            layout |= {"rows": plan.mode == "packed", "codec": plan.codec, "num_slots": plan.num_slots}
            layout |= {"look_ahead": plan.look_ahead}
        return self._content + fingerprint(layout)

    def take_reports(self) -> dict[str, StageReport]:
        """Return what the stages cost since the last call, and count anew."""
        taken, self.reports = self.reports, _no_reports()
        return taken

    def add_reports(self, reports: dict[str, StageReport]) -> None:
        """Add what another maker's stages cost."""
        for name, part in reports.items():
            self.reports[name].add(part)

    def _add(self, part: StageReport) -> None:
        part.details["windows"] = 1
        self.reports[part.name].add(part)


def maker_of(job: ProducerJob, store: Store, topology: Topology) -> WindowMaker:
    """Return the maker of the windows of a job; arguments as of :class:`WindowMaker`."""
    return WindowMaker(
        job.run, store, job.schedule, job.plan,
        split=job.split, topology=topology, with_degree=job.with_degree, overwrite=job.overwrite,
    )  # fmt: skip


def _no_reports() -> dict[str, StageReport]:
    return {name: StageReport(name=name, skipped=True, details={"windows": 0}) for name in ("sample", "pack")}


def _content(run: RunConfig, store: Store, schedule: Schedule, split: str, node_type: str) -> str:
    """Return 32 hex digits of all that the batches at given positions depend on; the number of epochs is no part."""
    return fingerprint(
        {
            "sampler": SAMPLER_VERSION,
            "store": store.fingerprint,
            "split": split,
            "node_type": node_type,
            "nodes": xxhash.xxh3_128(np.ascontiguousarray(schedule.nodes).data).hexdigest(),
            "fanouts": list(run.sampler.fanouts),
            "replace": run.sampler.replace,
            "weighted": run.sampler.weighted,
            "batch_size": schedule.batch_size,
            "seed": schedule.seed,
            "shuffle": schedule.shuffle,
        }
    )
