"""All benchmarks by name: what each measures, in which unit, beside which peers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graphsys.bench.embed import measure_embed
from graphsys.bench.epoch import (
    measure_memory_fresh,
    measure_memory_frozen,
    measure_packed_fresh,
    measure_packed_frozen,
    summarize,
)
from graphsys.bench.importing import measure_import
from graphsys.bench.isolate import Part
from graphsys.bench.loader import measure_fresh_loader, measure_loader
from graphsys.bench.loader import summarize as summarize_loader
from graphsys.bench.pack import measure_pack
from graphsys.bench.peers import OWN, Peer
from graphsys.bench.planning import measure_plan
from graphsys.bench.result import Better, Measured
from graphsys.bench.sampler import measure_sampler
from graphsys.bench.setting import HOST_CACHE, Setting
from graphsys.bench.step import measure_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One benchmark."""

    name: str
    unit: str
    better: Better
    about: str
    parts: tuple[Part, ...]
    peers: tuple[Peer, ...] = ()
    again: bool = False  # whether ours is measured once more after the peers, so that drift of the machine shows
    summarize: Callable[[Mapping[str, Measured]], Measured] | None = (
        None  # of several parts; one part stands for itself
    )

    def part(self, name: str) -> Part:
        """Return the part called ``name``."""
        return next(part for part in self.parts if part.name == name)


def _memory(setting: Setting) -> int:
    return setting.memory


def _import_memory(setting: Setting) -> int:
    return setting.import_memory


_CACHE = ("--cache", str(HOST_CACHE))


def _on_disk(task: str) -> tuple[Peer, ...]:
    return (
        Peer(name="PyG mmap", script="pyg", task=task, on_disk=True),
        Peer(name="DGL mmap", script="dgl", task=task, on_disk=True),
        Peer(name="GraphBolt mmap", script="graphbolt", task=task, on_disk=True),
        Peer(name="direct reads", script="direct", task=task, env="dgl", on_disk=True),
        Peer(name="direct reads, static cache", script="direct", task=task, env="dgl", on_disk=True, options=_CACHE),
    )


_ALL = (
    Bench(
        name="sampler",
        unit="edges/s",
        better="higher",
        about="sampled edges per second, the topology in memory",
        parts=(Part(name="sample", measure=measure_sampler),),
        peers=(
            Peer(name="PyG", script="pyg", task="sample"),
            Peer(name="DGL", script="dgl", task="sample"),
            Peer(name="GraphBolt", script="graphbolt", task="sample"),
        ),
        again=True,
    ),
    Bench(
        name="loader",
        unit="s/epoch",
        better="lower",
        about="an epoch of packed windows without training, frozen samples, steady state",
        parts=(
            Part(name="load", measure=measure_loader, memory=_memory),
            Part(name="fresh", measure=measure_fresh_loader, memory=_memory),
        ),
        peers=_on_disk("load"),
        summarize=summarize_loader,
    ),
    Bench(
        name="pack",
        unit="bytes/s",
        better="higher",
        about="bytes read and written per second while windows are packed",
        parts=(Part(name="pack", measure=measure_pack, memory=_memory),),
    ),
    Bench(
        name="epoch",
        unit="s/epoch",
        better="lower",
        about="a training epoch out of core, beside the same with everything in memory",
        parts=(
            Part(name="memory frozen", measure=measure_memory_frozen),
            Part(name="packed frozen", measure=measure_packed_frozen, memory=_memory),
            Part(name="memory fresh", measure=measure_memory_fresh),
            Part(name="packed fresh", measure=measure_packed_fresh, memory=_memory),
        ),
        peers=_on_disk("epoch"),
        summarize=summarize,
    ),
    Bench(
        name="step",
        unit="ms/step",
        better="lower",
        about="a training step, the batches in memory",
        parts=(Part(name="step", measure=measure_step),),
        peers=(
            Peer(name="PyG", script="step", task="step", env=OWN, options=("--library", "pyg")),
            Peer(name="DGL", script="step", task="step", env=OWN, options=("--library", "dgl")),
        ),
        again=True,
    ),
    Bench(
        name="import",
        unit="edges/s",
        better="higher",
        about="edges imported from Parquet per second, under a memory budget",
        parts=(Part(name="import", measure=measure_import, memory=_import_memory),),
    ),
    Bench(
        name="embed",
        unit="s",
        better="lower",
        about="exact inference of all layers for all nodes, and the embedding table",
        parts=(Part(name="embed", measure=measure_embed, memory=_memory),),
    ),
    Bench(
        name="plan",
        unit="relative error",
        better="lower",
        about="the worst error of a predicted figure against the measured one",
        parts=(Part(name="plan", measure=measure_plan, memory=_memory),),
    ),
)

BENCHES: Mapping[str, Bench] = {bench.name: bench for bench in _ALL}
