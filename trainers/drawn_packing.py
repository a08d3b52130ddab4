"""A small window of drawn batches, planned and packed as often as wanted: how fast that goes on this machine and disk.

Rows are those of a store, from its front; which of them a batch accesses is drawn.
"""

import shutil
from pathlib import Path

import numpy as np

from graphsys.core.types import NodeIds, SampledBatch
from graphsys.core.units import MIB
from graphsys.storage.files import disk_errors, remove_path
from graphsys.storage.flat import FlatArray
from graphsys.storage.packer import pack_window
from graphsys.storage.residency import plan_residency
from graphsys.storage.window import Window, WindowHeader, WindowWriter

MOST_BYTES = 384 * MIB  # of features that are scanned: about a second's work
LEAST_FREE = 64 * MIB  # bytes of disk; with less, the run needs the space itself
_BATCHES = 16
_SHARE = 8  # of the nodes, as a divisor, that a batch holds
_COPIES = 2  # of a row in the window
_NODE_NBYTES = 96  # of disk space beside them: ids, starts, edges, padding
_LEAST_MEMORY = 4 * MIB  # for buffers
_PLAN_NBYTES = 128  # of memory per node, of which planning takes about half
_FREE_SHARE = 8  # of the free space, as a divisor: the most that the files take


def has_room(folder: Path) -> bool:
    """Whether the device of an existing ``folder`` has space to spare for drawn windows.

    Raises:
        DiskError: The folder cannot be read.
    """
    return _free_bytes(folder) >= LEAST_FREE


class DrawnPacking:
    """Plans and packs one window of drawn batches; its first round compiles what is not compiled yet.

    Args:
        folder: existing and empty; receives files that stay.
        features: [N, D] float32; of them the first rows, no more than disk and memory allow.
        codec: how rows are encoded.
        with_rows: whether rows go into the window, or only the plan of the cache.
        memory: bytes that packing may take.

    Raises:
        DiskError: The folder cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path, features: FlatArray, *, codec: str, with_rows: bool, memory: int) -> None:
        self._features = features
        self._codec = codec
        self._with_rows = with_rows
        self._memory = memory
        num_nodes = _num_nodes(folder, features, memory)
        rng = np.random.default_rng(0)
        # Squared draws: few nodes are met often and many seldom, as in graphs.
        self._trace = [
            np.unique((num_nodes * rng.random(max(num_nodes // _SHARE, 1)) ** 2).astype(np.int64))
            for _ in range(_BATCHES)
        ]
        self._slots = np.full(num_nodes // 10, -1, np.int64)
        self._samples, self._packed = folder / "trace.sample", folder / "trace.pack"
        _write_samples(self._samples, self._trace)

    def plan(self) -> int:
        """Plan which rows the cache holds when; return the number of accesses planned."""
        plan_residency(self._trace, self._slots.shape[0], self._slots)
        return sum(map(len, self._trace))

    def pack(self) -> int:
        """Pack the window, planning included; return the bytes read and written. :meth:`tidy` comes next.

        Raises:
            MemoryBudgetError: The memory holds no window.
            InputError: A feature lies beyond the range of the codec.
            CorruptError: A row is not what was written.
            DiskError: The folder cannot be written, or the disk is full.
        """
        count = pack_window(
            self._samples, self._packed, self._features,
            num_slots=self._slots.shape[0], initial_slots=self._slots, codec=self._codec,
            with_rows=self._with_rows, memory=self._memory, fingerprint="",
        )  # fmt: skip
        return count.read_bytes + self._samples.stat().st_size + self._packed.stat().st_size

    def tidy(self) -> None:
        """Remove the packed window, which takes a while."""
        remove_path(self._packed)


def _num_nodes(folder: Path, features: FlatArray, memory: int) -> int:
    row = features.spec.row_nbytes
    num_nodes = min(
        features.shape[0],
        min(MOST_BYTES, memory // 2) // row,
        _free_bytes(folder) // _FREE_SHARE // (_COPIES * row + _NODE_NBYTES),
        (memory - _LEAST_MEMORY) // _PLAN_NBYTES,
    )
    return max(num_nodes, min(_SHARE, features.shape[0]))


def _free_bytes(folder: Path) -> int:
    with disk_errors("read", folder):
        return shutil.disk_usage(folder).free


def _write_samples(path: Path, trace: list[NodeIds]) -> None:
    header = WindowHeader(window_index=0, first_position=0, num_batches=len(trace), num_hops=1, fingerprint="")
    with WindowWriter(path, header=header) as writer:
        for index, node in enumerate(trace):
            writer.add(_star(index, node), y=None)
        writer.close()
    Window.open(path, None)


def _star(batch_id: int, node: NodeIds) -> SampledBatch:
    """Return a batch in which all other nodes are in-neighbours of the first."""
    others = node.shape[0] - 1
    return SampledBatch(
        epoch=0,
        batch_id=batch_id,
        node=node,
        indptr=np.array([0, others], np.int32),
        indices=np.arange(1, others + 1, dtype=np.int32),
        num_sampled_nodes=(1, others),
        num_sampled_edges=(others,),
    )
