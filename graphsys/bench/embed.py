"""Seconds of exact inference over all nodes and of writing the embedding table."""

from itertools import pairwise

from graphsys.bench.graph import drop_pages
from graphsys.bench.pack import at_disk_speed
from graphsys.bench.result import Measured
from graphsys.bench.setting import HIDDEN, Setting
from graphsys.core.config import RunConfig
from graphsys.core.progress import Progress
from graphsys.storage.disk_speed import measure_disk
from graphsys.trainers.embed import embed
from graphsys.trainers.fit import fit
from graphsys.trainers.inference import infer, open_trained
from graphsys.trainers.objective import resolve_objective


def measure_embed(setting: Setting, progress: Progress) -> Measured:
    """Infer every layer and write the table, once per round.

    The limit moves the least bytes sequentially: per layer the topology and the rows below read once and its own
    written once; then the last layer read and the table written.
    """
    run = _trained(setting, progress)
    rounds, limits, peaks = [], [], {"infer": 0, "embed": 0}
    details: dict[str, float | str] = {}
    read, written = least_bytes(setting, run)
    for _ in range(setting.rounds):
        drop_pages(setting.store)
        inference = infer(open_trained(run), progress, redo=True)
        table = embed(run, None, progress, overwrite=True)
        speed = measure_disk(setting.work)
        stages = {"infer": inference.report, "embed": table.report}
        rounds.append(sum(report.seconds for report in stages.values()))
        limits.append(at_disk_speed(read, written, speed))
        peaks = {name: max(peak, stages[name].peak_rss_bytes) for name, peak in peaks.items()}
        details = {
            "infer_s": stages["infer"].seconds,
            "table_s": stages["embed"].seconds,
            "device_bytes_read": sum(report.device_bytes_read for report in stages.values()),
            "device_bytes_written": sum(report.device_bytes_written for report in stages.values()),
            "least_bytes_read": read,
            "least_bytes_written": written,
            "sequential_read_bytes_s": speed.read_bytes_s,
            "sequential_write_bytes_s": speed.write_bytes_s,
            "limit_is": "the least bytes that layer after layer has to move, at the sequential speeds of this run",
        }
    return Measured(rounds=tuple(rounds), limit=sum(limits) / len(limits), details=details, peak_memory_bytes=peaks)


def _trained(setting: Setting, progress: Progress) -> RunConfig:
    """Train one epoch on few neighbours; exact inference takes all of them, whatever the fanouts."""
    run = setting.run("embed", epochs=1, mode="direct", samples="frozen")
    few = run.sampler.model_copy(update={"fanouts": (1,) * len(setting.fanouts)})
    run = run.model_copy(update={"sampler": few})
    fit(run, progress=progress)
    return run


def least_bytes(setting: Setting, run: RunConfig) -> tuple[int, int]:
    """Return the bytes that must be read and written, in that order."""
    store, name = setting.open_store()
    info = store.node_type(name)
    outputs = resolve_objective(run.task, info).num_outputs
    widths = (info.num_features, *[HIDDEN] * (run.num_layers - 1), outputs)
    topology = store.topology_nbytes(store.edge_type_within(name))
    layers = [(topology + 4 * info.num_nodes * below, 4 * info.num_nodes * above) for below, above in pairwise(widths)]
    table = 4 * info.num_nodes * outputs
    return sum(read for read, _ in layers) + table, sum(written for _, written in layers) + table
