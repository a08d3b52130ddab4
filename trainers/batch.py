"""A mini-batch as a model takes it: tensors on one device, in our own, PyG's and DGL's form."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphsys.core.errors import ConfigError
from graphsys.core.types import Array, Features, SampledBatch
from graphsys.models.base import edge_index_of

if TYPE_CHECKING:
    from torch_geometric.data import Data


@dataclass(frozen=True, kw_only=True, eq=False)
class MiniBatch:
    """Features, edges and labels of one mini-batch; all tensors lie on one device.

    Nodes stand hop by hop, seeds first. Every node is expanded once, so the destinations of the first ``l`` hops are a
    prefix of the nodes and their edges a prefix of the edges. Not slotted: ``edge_index`` is kept once it is made.
    """

    epoch: int  # epoch of the training, also when its samples were drawn in another
    batch_id: int  # position within the epoch
    x: Tensor  # [V, D] float32 features
    indptr: Tensor  # [sum(num_sampled_nodes[:-1]) + 1] int32: in-edges of each expanded node
    indices: Tensor  # [E] int32 local source ids
    y: Tensor | None  # labels of the seeds: [B] int64, [B, C] uint8, or [B] or [B, C] float32
    n_id: Tensor  # [V] int64 global ids
    num_sampled_nodes: tuple[int, ...]  # L + 1 counts, sum V, first is the batch size
    num_sampled_edges: tuple[int, ...]  # L counts, sum E
    in_degree: Tensor | None  # [V] int32 in-degree in the whole graph, where the model asks for it

    @classmethod
    def assemble(cls, sampled: SampledBatch, x: Features, y: Array | None, *, epoch: int) -> "MiniBatch":
        """Return the batch of ``sampled`` in main memory.

        Args:
            sampled: the tensors share the memory of its arrays.
            x: [V, D] float32 rows of ``sampled.node``; the tensor shares its memory.
            y: labels of the seeds; the tensor shares their memory.
            epoch: epoch of the training.
        """
        return cls(
            epoch=epoch,
            batch_id=sampled.batch_id,
            x=torch.from_numpy(x),
            indptr=torch.from_numpy(sampled.indptr),
            indices=torch.from_numpy(sampled.indices),
            y=None if y is None else torch.from_numpy(y),
            n_id=torch.from_numpy(sampled.node),
            num_sampled_nodes=sampled.num_sampled_nodes,
            num_sampled_edges=sampled.num_sampled_edges,
            in_degree=None if sampled.in_degree is None else torch.from_numpy(sampled.in_degree),
        )

    @property
    def batch_size(self) -> int:
        """Number of seeds B."""
        return self.num_sampled_nodes[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.x.device

    @cached_property
    def edge_index(self) -> Tensor:
        """[2, E] int64 local ids in the order of the hops: row 0 sources, row 1 destinations."""
        return edge_index_of(self.indptr, self.indices)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "MiniBatch":
        """Return the batch on ``device``; itself when it is there."""
        if torch.device(device) == self.device:
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            x=move(self.x),
            indptr=move(self.indptr),
            indices=move(self.indices),
            y=None if self.y is None else move(self.y),
            n_id=move(self.n_id),
            in_degree=None if self.in_degree is None else move(self.in_degree),
        )

    def to_pyg(self) -> "Data":
        """Return a PyG ``Data`` as its ``NeighborLoader`` would give; the tensors are shared."""
        from torch_geometric.data import Data

        return Data(
            x=self.x,
            edge_index=self.edge_index,
            y=self.y,
            n_id=self.n_id,
            batch_size=self.batch_size,
            num_sampled_nodes=list(self.num_sampled_nodes),
            num_sampled_edges=list(self.num_sampled_edges),
        )

    def to_dgl(self) -> tuple[list[Any], Tensor]:
        """Return (L DGL blocks, outermost first, as layer 0 takes it; x [V, D]); the tensors are shared.

        Raises:
            ConfigError: DGL is not installed.
        """
        os.environ.setdefault("DGLBACKEND", "pytorch")
        try:
            import dgl
        except ImportError as error:
            raise ConfigError(
                "DGL is not installed; run `pip install graphsys[dgl]`, or set model.style: pyg"
            ) from error
        return [self._block(dgl, depth) for depth in range(len(self.num_sampled_edges), 0, -1)], self.x

    def _block(self, dgl: Any, depth: int) -> Any:
        num_dst = sum(self.num_sampled_nodes[:depth])
        num_src = sum(self.num_sampled_nodes[: depth + 1])
        indices = self.indices[: sum(self.num_sampled_edges[:depth])]
        # DGL lets the edge ids be left out, but its attention layers then fail in the backward pass.
        edge_ids = torch.arange(indices.shape[0], dtype=indices.dtype, device=indices.device)
        edges = ("csc", (self.indptr[: num_dst + 1], indices, edge_ids))
        block = dgl.create_block(edges, num_src_nodes=num_src, num_dst_nodes=num_dst)
        block.srcdata[dgl.NID] = self.n_id[:num_src]
        block.dstdata[dgl.NID] = self.n_id[:num_dst]
        return block
