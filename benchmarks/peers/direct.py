"""What a capable programmer writes: DGL's sampler one batch ahead, sorted rows, 32 threads of direct 4 KiB reads.

With ``--cache SHARE`` the most accessed rows of an epoch sampled beforehand stay in memory; filling the cache is not
timed.
"""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.common import Array, Count, Options, StoreArrays, measure_batches, options, seed_batches
from peers.dgl import Sampler, Trainer, count

IO_THREADS = 32


def library() -> ctypes.CDLL:
    """Compile direct.c into a folder that vanishes once the library is loaded."""
    source = Path(__file__).with_name("direct.c")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "direct.so"
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", str(source), "-o", str(built)]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(built))
    loaded.read_rows.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int,
        ctypes.c_void_p,
    ]  # fmt: skip
    return loaded


class Rows:
    """Feature rows from the disk, some of them from memory."""

    def __init__(self, store: StoreArrays) -> None:
        self._library = library()
        self._num_nodes, self.dim = store.shape(store.features)
        self._fd = os.open(store.file(store.features), os.O_RDONLY | os.O_DIRECT)
        self._slot: Array | None = None  # [N] int32 place in the cache; -1: not there
        self._cache = torch.empty(0, self.dim)
        self.read, self.asked = 0, 0  # rows
        self.device_bytes = np.zeros(1, np.int64)

    def keep(self, node: Array) -> None:
        """Read the rows of ascending ids ``node`` into memory, once and for all."""
        self._cache = torch.empty(node.shape[0], self.dim)
        self._read(node, np.arange(node.shape[0]), self._cache)
        self._slot = np.full(self._num_nodes, -1, np.int32)
        self._slot[node] = np.arange(node.shape[0])
        self.device_bytes[:] = 0  # what filled the cache does not count

    def gather(self, node: Array) -> torch.Tensor:
        out = torch.empty(node.shape[0], self.dim)
        order = np.argsort(node)
        row = node[order]
        self.asked += node.shape[0]
        if self._slot is not None:
            slot = self._slot[row]
            hit = slot >= 0
            torch.index_put_(
                out, (torch.from_numpy(order[hit]),), self._cache[torch.from_numpy(slot[hit].astype(np.int64))]
            )
            row, order = row[~hit], order[~hit]
        self.read += row.shape[0]
        self._read(np.ascontiguousarray(row), np.ascontiguousarray(order), out)
        return out

    def _read(self, row: Array, place: Array, out: torch.Tensor) -> None:
        error = self._library.read_rows(
            self._fd, row.ctypes.data, place.ctypes.data, row.shape[0], 4 * self.dim, out.data_ptr(), IO_THREADS,
            self.device_bytes.ctypes.data,
        )  # fmt: skip
        if error:
            raise OSError(error, os.strerror(error))


def most_accessed(made: Options, sampler: Sampler, nodes: Array, num_nodes: int) -> Array:
    """Return the ascending ids that one sampled epoch accesses most."""
    accesses = np.zeros(num_nodes, np.int32)
    per_epoch = -(-nodes.shape[0] // made.batch_size)
    for seeds in islice(seed_batches(nodes, made.batch_size), per_epoch):
        accesses[sampler.sample(seeds)[0].numpy()] += 1
    kept = max(int(made.cache * num_nodes), 1)
    return np.sort(np.argpartition(accesses, num_nodes - kept)[num_nodes - kept :])


def batches(
    made: Options, store: StoreArrays, sampler: Sampler, rows: Rows, nodes: Array
) -> Generator[Count, None, None]:
    """Yield batch after batch; the next one's rows are read while this one is used, the one after it is sampled."""
    trainer = Trainer(made, store) if made.task == "epoch" else None
    seeds = seed_batches(nodes, made.batch_size)

    def load(sampled: Any) -> Any:
        part, (inputs, blocks) = sampled.result()
        return part, inputs, blocks, rows.gather(inputs.numpy())

    with ThreadPoolExecutor(1) as sampling, ThreadPoolExecutor(1) as reading:

        def submit() -> Any:
            part = next(seeds)
            return reading.submit(load, sampling.submit(lambda: (part, sampler.sample(part))))

        ahead = [submit(), submit()]
        while True:
            part, inputs, blocks, x = ahead.pop(0).result()
            ahead.append(submit())
            if trainer is not None:
                trainer.step(part, blocks, x)
            yield count(inputs, blocks)


def main() -> None:
    made = options()
    torch.set_num_threads(made.threads)
    store = StoreArrays(made.store)
    sampler, rows, nodes = Sampler(made, store), Rows(store), store.train_nodes()
    if made.cache:
        rows.keep(most_accessed(made, sampler, nodes, store.shape(store.features)[0]))
    stream = batches(made, store, sampler, rows, nodes)
    measure_batches(made, nodes.shape[0], stream, lambda: about(made, rows))
    stream.close()


def about(made: Options, rows: Rows) -> dict[str, Any]:
    return {
        "io_threads": IO_THREADS,
        "cache": made.cache,
        "rows_read_of_asked": rows.read / rows.asked,
        "read_amplification": int(rows.device_bytes[0]) / (4 * rows.dim * rows.read),
    }


if __name__ == "__main__":
    main()
