"""Windows of drawn batches, from which a rehearsed training reads as a real one does.

Hops and ids are those of batches really sampled. What the cache serves is drawn in the shares that the planner
foretells, and the rows are arbitrary: neither takes a scan of the features.
"""

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from graphsys.core.config import RunConfig
from graphsys.core.types import Array, BatchResidency, NodeIds, SampledBatch, Topology
from graphsys.samplers.ahead import sample_batches
from graphsys.samplers.expansion import Drawing
from graphsys.samplers.offline import NARROW_IDS
from graphsys.samplers.schedule import Schedule
from graphsys.storage.codec import encode
from graphsys.storage.store import Store
from graphsys.storage.window import Window, WindowHeader, WindowWriter
from graphsys.trainers.plan import PackPlan

_BATCHES = 6  # of a window
_INSERTED = 0.5  # of the fetched rows, those that enter the cache, about


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnBatch:
    """A sampled batch and the labels of its seeds."""

    sampled: SampledBatch
    y: Array

    def within(self, num_nodes: int) -> "DrawnBatch":
        """Return the same batch with ids below ``num_nodes``."""
        return replace(self, sampled=replace(self.sampled, node=self.sampled.node % num_nodes))


class DrawnWindows:
    """One window, read ``passes`` times; see :class:`graphsys.trainers.read_ahead.Windows`.

    Args:
        window: what :func:`draw_window` returned.
        plan: of its batches.
        passes: how often it is read.
    """

    def __init__(self, window: Window, plan: PackPlan, *, passes: int) -> None:
        batches = len(window.entries)
        self.schedule = Schedule(
            nodes=np.arange(batches, dtype=np.int64), batch_size=1, seed=0, epochs=passes, samples="frozen"
        )
        self.plan = replace(plan, window_batches=batches, num_windows=1)
        self._window = window

    def begin(self, first: int) -> None:
        """Do nothing: the window is there."""

    def ready(self, index: int) -> bool:  # noqa: ARG002 - one window
        """Whether :meth:`open` would return at once: always."""
        return True

    def open(self, index: int, stop: threading.Event) -> Window | None:  # noqa: ARG002 - it is there
        """Return the window."""
        return self._window

    def release(self, index: int) -> None:
        """Do nothing: the window is read again."""


def sample_some(
    run: RunConfig, store: Store, topology: Topology, schedule: Schedule, *, with_degree: bool
) -> list[DrawnBatch]:
    """Sample the first few batches of a schedule, full ones where there are any.

    Raises:
        InputError: The nodes have no labels.
        MemoryBudgetError: Sampling a single batch takes more than half of ``run.memory``; the others have the rest.
    """
    labels, sampler = store.labels(store.node_type(run.task.node_type).name), run.sampler
    drawing = Drawing(
        fanouts=tuple(sampler.fanouts), replace=sampler.replace, weighted=sampler.weighted, with_degree=with_degree
    )
    positions = range(min(_BATCHES, max(schedule.index(len(schedule.nodes) // schedule.batch_size), 1)))
    with closing(
        sample_batches(topology, schedule, positions, drawing, threads=sampler.threads, memory=run.memory // 2)
    ) as batches:
        return [DrawnBatch(sampled=batch, y=labels[batch.node[: batch.batch_size]]) for batch in batches]


def draw_window(
    path: Path,
    batches: Sequence[DrawnBatch],
    plan: PackPlan,
    *,
    fetched: float,
    num_nodes: int,
    dim: int,
    initial_rows: int = 0,
) -> Window:
    """Write a window as ``plan`` has it and open it.

    Args:
        fetched: rows of a batch that the cache does not hold.
        num_nodes: nodes of the graph (N).
        dim: columns of the features (D).
        initial_rows: rows that the cache starts with; at most the plan's slots, and none where it packs no rows.

    Raises:
        DiskError: The folder cannot be written, or the disk is full.
    """
    packs = plan.mode in ("packed", "cached")
    header = WindowHeader(
        window_index=0,
        first_position=0,
        num_batches=len(batches),
        num_hops=len(batches[0].sampled.num_sampled_edges),
        fingerprint="",
        dim=dim if packs else 0,
        codec=plan.codec if packs else "",
        row_nbytes=plan.row_nbytes if packs else 0,
        num_slots=plan.num_slots if packs else 0,
        has_residency=packs,
        has_rows=plan.mode == "packed",
        narrow_ids=num_nodes <= NARROW_IDS,
        num_initial_rows=initial_rows,
    )
    slots = np.full(header.num_slots, -1, np.int64) if packs else None
    if slots is not None:
        slots[:initial_rows] = np.arange(initial_rows)
    rng = np.random.default_rng(0)
    held = rng.permutation(plan.num_slots)[: int(_INSERTED * fetched * len(batches))].astype(np.int32)
    largest = max(batch.sampled.num_nodes for batch in batches)
    # Not zeros, which a disk may leave out.
    drawn = encode(
        rng.random((largest if header.has_rows else 0, dim), np.float32), plan.codec, node=np.arange(largest)
    )
    share = fetched * len(batches) / max(sum(batch.sampled.num_nodes for batch in batches), 1)
    with WindowWriter(path, header=header) as writer:
        for index, batch in enumerate(batches):
            sampled = replace(batch.sampled, epoch=0, batch_id=index)
            part = held[index :: len(batches)]
            residency = _draw_residency(sampled.node, share, held, part, rng) if packs else None
            num_rows = residency.fetch_node.shape[0] if residency is not None and header.has_rows else 0
            rows = drawn[:num_rows] if header.has_rows else None
            writer.add(sampled, y=batch.y, residency=residency, rows=rows)
        if initial_rows:
            start = writer.begin_initial_rows()
            for first in range(0, initial_rows, largest):
                writer.write_rows(start, first, drawn[: initial_rows - first])
        writer.close(slots, slots)
    return Window.open(path, None)


def _draw_residency(
    node: NodeIds, share: float, held: Array, entering: Array, rng: np.random.Generator
) -> BatchResidency:
    """Draw which rows are fetched and which lie in the slots ``held``; the first ones fetched enter ``entering``."""
    count = node.shape[0] if not held.size else min(round(share * node.shape[0]), node.shape[0])
    places = rng.permutation(node.shape[0])[:count]
    places = places[np.argsort(node[places])]
    source = ~rng.choice(held, node.shape[0]).astype(np.int32) if held.size else np.zeros(node.shape[0], np.int32)
    source[places] = np.arange(count, dtype=np.int32)
    entering = entering[:count]
    return BatchResidency(
        source=source,
        fetch_node=node[places],
        insert_row=np.arange(entering.shape[0], dtype=np.int32),
        insert_slot=np.ascontiguousarray(entering),
    )
