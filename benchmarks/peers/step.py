"""The training step of PyG or DGL, in our own environment and on batches that graphsys samples."""

import time

import step_peers
import torch
from step import StepSpec, sample_batches

from graphsys.storage.store import Store
from peers.common import ROUNDS, options, report

BATCHES = 4
CONTENDERS = {"pyg": step_peers.pyg, "dgl": step_peers.dgl}


def main() -> None:
    made = options()
    torch.set_num_threads(made.threads)
    torch.manual_seed(0)
    store = Store.open(made.store)
    info = store.node_type(None)
    nodes = store.split(info.name, "train")
    spec = StepSpec(
        fanouts=tuple(made.fanouts),
        batch_size=min(made.batch_size, nodes.shape[0]),
        num_features=info.num_features,
        hidden=made.hidden,
        threads=made.threads,
        batches=BATCHES,
    )
    batches = sample_batches(store.topology(store.edge_type_within(info.name)), nodes, spec)
    widths = (info.num_features, made.hidden, info.num_classes)
    contender = CONTENDERS[made.library]("sage", widths, len(made.fanouts))
    labels = [batch.y % info.num_classes for batch in batches if batch.y is not None]
    work = list(zip(map(contender.prepare, batches), labels, strict=True))
    contender.step(*work[0])
    rounds = []
    for _ in range(ROUNDS):
        started, count = time.perf_counter(), 0
        while count < len(work) or time.perf_counter() - started < made.seconds / ROUNDS:
            contender.step(*work[count % len(work)])
            count += 1
        rounds.append(1e3 * (time.perf_counter() - started) / count)
    report(rounds, torch=torch.__version__, library=made.library)


if __name__ == "__main__":
    main()
