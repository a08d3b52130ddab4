"""GraphBolt: its sampler, features in a memory map, SAGEConv on blocks."""

import os
import warnings
from collections.abc import Iterator

os.environ.setdefault("DGLBACKEND", "pytorch")
warnings.filterwarnings("ignore")

import dgl  # noqa: E402 - the backend must be named before
import dgl.graphbolt as gb  # noqa: E402
import torch  # noqa: E402

from peers.common import Count, Options, StoreArrays, measure_batches, options  # noqa: E402
from peers.dgl import Trainer  # noqa: E402


def main() -> None:
    made = options()
    torch.set_num_threads(made.threads)
    store = StoreArrays(made.store)
    indptr, indices = (torch.from_numpy(array) for array in store.topology())
    graph = gb.fused_csc_sampling_graph(indptr, indices)
    nodes = store.train_nodes()
    labels = torch.from_numpy(store.labels()[nodes])
    items = gb.ItemSet((torch.from_numpy(nodes), labels), names=("seed_nodes", "labels"))
    pipe = gb.ItemSampler(items, batch_size=made.batch_size, shuffle=True).sample_neighbor(graph, made.fanouts[::-1])
    if made.task in ("load", "epoch"):
        feature = gb.TorchBasedFeature(torch.from_numpy(store.mapped_features()))
        pipe = pipe.fetch_feature(gb.BasicFeatureStore({("node", None, "x"): feature}), node_feature_keys=["x"])
    loader = gb.DataLoader(pipe, num_workers=0)
    about = {"torch": torch.__version__, "dgl": dgl.__version__}
    measure_batches(made, nodes.shape[0], batches(made, store, loader), lambda: about)


def batches(made: Options, store: StoreArrays, loader: gb.DataLoader) -> Iterator[Count]:
    trainer = Trainer(made, store) if made.task == "epoch" else None
    while True:
        for batch in loader:
            if trainer is not None:
                trainer.step(batch.seed_nodes.numpy(), batch.blocks, batch.node_features["x"])
            edges = sum(hop.sampled_csc.indices.shape[0] for hop in batch.sampled_subgraphs)
            yield Count(nodes=batch.input_nodes.shape[0], edges=edges)


if __name__ == "__main__":
    main()
