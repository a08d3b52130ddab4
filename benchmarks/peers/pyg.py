"""PyG: NeighborLoader, features in a memory map, SAGEConv with layers trimmed where the sampler allows it."""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch_geometric
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import SAGEConv
from torch_geometric.typing import WITH_PYG_LIB, SparseTensor
from torch_geometric.utils import trim_to_layer

from peers.common import Count, Options, StoreArrays, measure_batches, options

_PREFETCH = 2  # batches that each worker makes ahead; torch's own default


class Sage(torch.nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(SAGEConv(a, b) for a, b in pairwise(widths))

    def forward(self, batch: Data) -> torch.Tensor:
        x, edge_index = batch.x, batch.edge_index
        for index, layer in enumerate(self.layers):
            if "num_sampled_nodes" in batch:  # torch-sparse does not count hops, so nothing can be trimmed
                counts = batch.num_sampled_nodes, batch.num_sampled_edges
                x, edge_index, _ = trim_to_layer(index, *counts, x, edge_index)
            x = layer(x, edge_index)
            if index + 1 < len(self.layers):
                x = x.relu()
        seeds: torch.Tensor = x[: batch.batch_size]
        return seeds


class Trainer:
    def __init__(self, made: Options, store: StoreArrays) -> None:
        torch.manual_seed(0)
        widths = [store.dim, *[made.hidden] * (len(made.fanouts) - 1), store.num_classes]
        self.model = Sage(widths)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self, batch: Data) -> None:
        loss = torch.nn.functional.cross_entropy(self.model(batch), batch.y[: batch.batch_size])
        self.optimizer.zero_grad()
        torch.autograd.backward([loss])
        self.optimizer.step()


def main() -> None:
    made = options()
    torch.set_num_threads(made.threads)
    store = StoreArrays(made.store)
    indptr, indices = (torch.from_numpy(array) for array in store.topology())
    num_nodes = indptr.shape[0] - 1
    adjacency = SparseTensor(
        rowptr=indptr, col=indices, sparse_sizes=(num_nodes, num_nodes), is_sorted=True, trust_data=True
    )
    data = Data(adj_t=adjacency, num_nodes=num_nodes)
    if made.task != "sample":
        data.y = torch.from_numpy(store.labels())
    if made.task in ("load", "epoch"):
        data.x = torch.from_numpy(store.mapped_features())
    train = torch.from_numpy(store.train_nodes())
    # Workers sample, and gather what they sampled, side by side.
    loader = NeighborLoader(
        data,
        num_neighbors=made.fanouts,
        input_nodes=train,
        batch_size=made.batch_size,
        shuffle=True,
        num_workers=made.threads,
        prefetch_factor=_PREFETCH,
        persistent_workers=True,
        filter_per_worker=True,
    )
    about = {
        "torch": torch.__version__,
        "pyg": torch_geometric.__version__,
        "sampler": "pyg-lib" if WITH_PYG_LIB else "torch-sparse",
        "workers": made.threads,
    }
    ready = made.threads * _PREFETCH
    measure_batches(made, train.shape[0], batches(made, store, loader), lambda: about, burst=ready)


def with_edges(batch: Data) -> Data:
    """Give a batch the form of edges that PyG's layers take."""
    if "adj_t" in batch:
        row, col, _ = batch.adj_t.t().coo()
        batch.edge_index = torch.stack([row, col])
    return batch


def batches(made: Options, store: StoreArrays, loader: NeighborLoader) -> Iterator[Count]:
    trainer = Trainer(made, store) if made.task == "epoch" else None
    while True:
        for batch in loader:
            if trainer is not None:
                trainer.step(with_edges(batch))
            yield Count(nodes=batch.num_nodes, edges=num_edges(batch))


def num_edges(batch: Data) -> int:
    return int(batch.adj_t.nnz()) if "adj_t" in batch else int(batch.edge_index.shape[1])


if __name__ == "__main__":
    main()
