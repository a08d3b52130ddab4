"""What all benchmarks are measured on: a graph, batches of one shape, budgets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from graphsys.core.config import RunConfig, parse_run
from graphsys.core.types import NodeIds
from graphsys.core.units import GIB, MIB
from graphsys.samplers.schedule import Schedule
from graphsys.storage.codec import row_nbytes
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.store import Store

Size = Literal["small", "L"]

INTERPRETER_BYTES = 768 * MIB  # what Python, torch and compiled kernels take beside the data
PEER_BYTES = 1536 * MIB  # what a peer gets beside the topology
HIDDEN = 128  # width of the network's hidden layers
HOST_CACHE = 0.1  # share of the features that may stay in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeDefaults:
    """What a size stands for, unless options say otherwise."""

    graph: GenerateSpec
    batch_size: int
    memory: int
    import_memory: int
    peer_seconds: float
    apart: bool


SIZES: dict[str, SizeDefaults] = {
    "small": SizeDefaults(
        graph=GenerateSpec(nodes=200_000, edges=3_000_000, features=128, seed=1, train=0.008, val=0.002, test=0.02),
        batch_size=128,
        memory=1 * GIB,
        import_memory=128 * MIB,
        peer_seconds=3,
        apart=False,
    ),
    "L": SizeDefaults(
        graph=GenerateSpec(
            nodes=1 << 23, edges=1 << 27, features=128, seed=1, homophily=0.5, exponent=2.19,
            train=0.015, val=0.002, test=0.02,
        ),
        batch_size=1024,
        memory=3 * GIB,
        import_memory=1536 * MIB,
        peer_seconds=30,
        apart=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One benchmark's conditions; plain values, so that it travels between processes."""

    size: Size
    store: Path
    raw: Path | None  # what the store was made from, where it is known
    work: Path  # an empty folder for what the benchmark writes
    fanouts: tuple[int, ...]
    batch_size: int
    memory: int  # bytes: budget of every stage but import
    import_memory: int  # bytes
    rounds: int
    threads: int  # of the sampler
    apart: bool  # whether every part gets a process and a memory cgroup of its own

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "store": str(self.store), "raw": _text(self.raw), "work": str(self.work)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Setting":
        """Return what :meth:`as_dict` gave away."""
        known = {item.name: values[item.name] for item in fields(cls)}
        paths = {name: Path(known[name]) for name in ("store", "work")}
        raw = None if known["raw"] is None else Path(known["raw"])
        return cls(**{**known, **paths, "raw": raw, "fanouts": tuple(known["fanouts"])})

    def run(self, name: str, *, epochs: int, mode: str, samples: str, memory: int | None = None) -> RunConfig:
        """Return a run below :attr:`work` that trains a GraphSAGE and validates once, at its end."""
        return parse_run(
            {
                "store": str(self.store),
                "out": str(self.work / name),
                "memory": self.memory if memory is None else memory,
                "sampler": {
                    "fanouts": list(self.fanouts),
                    "batch_size": self.batch_size,
                    "samples": samples,
                    "threads": self.threads,
                },
                "pack": {"mode": mode, "host_cache": self.cache_bytes, "disk": "200GiB"},
                "model": {"name": "sage", "hidden": HIDDEN, "dropout": 0.0},
                "trainer": {"epochs": epochs, "eval_every": epochs, "device": "cpu", "checkpoint_every": 1_000_000},
            }
        )

    @property
    def cache_bytes(self) -> int:
        """Bytes of the host cache; a size and no share, since a share gives way to the memory budget."""
        store, name = self.open_store()
        info = store.node_types[name]
        return int(HOST_CACHE * info.num_nodes) * row_nbytes(info.num_features, "float32")

    def schedule(self, node: NodeIds) -> Schedule:
        """Return the batches of one epoch over the training nodes ``node`` [*]."""
        return Schedule(nodes=node, batch_size=self.batch_size, seed=0, epochs=1, samples="frozen")

    def open_store(self) -> tuple[Store, str]:
        """Open the store; return it and the name of its only node type."""
        store = Store.open(self.store)
        return store, store.node_type(None).name


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
