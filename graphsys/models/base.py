"""The seam between a network and the batches it runs on.

A network takes whole sampled batches (:class:`BatchModel`). One that also runs layer by layer
(:class:`LayerwiseModel`) gets exact inference over all nodes at the cost of one pass per layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from graphsys.core.errors import ConfigError


class GraphBatch(Protocol):
    """What a network sees of a mini-batch; all tensors lie on one device.

    Nodes stand hop by hop, seeds first. Every node is expanded once, so the destinations of the first ``l`` hops are a
    prefix of the nodes and their edges a prefix of the edges.
    """

    @property
    def x(self) -> Tensor:
        """[V, D] float32 features."""

    @property
    def indptr(self) -> Tensor:
        """[sum(num_sampled_nodes[:-1]) + 1] int32: expanded node i has the in-edges [indptr[i], indptr[i + 1])."""

    @property
    def indices(self) -> Tensor:
        """[E] int32 local ids of the edges' sources."""

    @property
    def edge_index(self) -> Tensor:
        """[2, E] int64 local ids: row 0 sources, row 1 destinations, in the order of the hops."""

    @property
    def num_sampled_nodes(self) -> Sequence[int]:
        """L + 1 counts that sum to V; the first is the batch size."""

    @property
    def num_sampled_edges(self) -> Sequence[int]:
        """L counts that sum to E."""

    @property
    def in_degree(self) -> Tensor | None:
        """[V] int32 in-degrees in the whole graph, where the network asked for them."""

    @property
    def batch_size(self) -> int:
        """Number of seeds B."""

    def to_dgl(self) -> tuple[Sequence[Any], Tensor]:
        """Return (L DGL blocks, outermost first; x)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerHop:
    """The edges that one layer runs on; destinations are the first ``num_dst`` of the source rows.

    Not slotted: ``edge_index`` is kept once it is made.
    """

    indptr: Tensor  # [num_dst + 1] int32 or int64, from 0: destination i has the edges [indptr[i], indptr[i + 1])
    indices: Tensor  # [E] int32 or int64 source rows of the edges
    in_degree: Tensor | None = None  # [num_src] int32 in-degree in the whole graph

    @property
    def num_dst(self) -> int:
        """Number of destinations."""
        return self.indptr.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """Number of edges E."""
        return self.indices.shape[0]

    @cached_property
    def edge_index(self) -> Tensor:
        """[2, E] int64: row 0 indexes the source rows, row 1 the destinations, in the order of ``indices``."""
        return edge_index_of(self.indptr, self.indices)


def edge_index_of(indptr: Tensor, indices: Tensor) -> Tensor:
    """Return the edges of ``indptr`` [n + 1] and ``indices`` [E] as [2, E] int64: sources, then destinations."""
    destination = torch.arange(indptr.shape[0] - 1, device=indptr.device)
    column = torch.repeat_interleave(destination, indptr.diff(), output_size=indices.shape[0])
    return torch.stack([indices.long(), column])


class BatchModel(nn.Module, ABC):
    """A network that maps a sampled batch to one output row per seed."""

    num_layers: int  # message-passing layers, equal to the number of hops it needs
    needs_degree: bool = False  # whether batches and hops must carry in_degree

    @abstractmethod
    def forward(self, batch: GraphBatch) -> Tensor:
        """Return [B, out] outputs of the seeds."""


class LayerwiseModel(BatchModel):
    """A network whose layers can be run one at a time over all nodes.

    Chaining :meth:`forward_layer` over whole neighbourhoods gives what :meth:`forward` gives on a batch that keeps all
    neighbours.
    """

    @abstractmethod
    def forward_layer(self, index: int, x: Tensor, hop: LayerHop) -> Tensor:
        """Return the output of layer ``index``, with the dropout before and the activation behind it.

        Args:
            index: Layer in [0, num_layers).
            x: [num_src, D_in] outputs of the layer before, or features; destinations first.
            hop: The edges into the destinations.

        Returns:
            [num_dst, D_out].
        """

    def forward(self, batch: GraphBatch) -> Tensor:
        """Return [B, out]; each layer runs only on the nodes and edges that the seeds still need."""
        x = batch.x
        for index in range(self.num_layers):
            x = self.forward_layer(index, x, prefix_hop(batch, self.num_layers - index))
        return x


class StreamedModel(LayerwiseModel):
    """A network each of whose layers is a sum of one message per in-edge, between two maps of rows.

    A node sends the same message along all its out-edges, so a layer can be run over all nodes as passes over rows and
    edges: :meth:`messages` of the sources, their sums, and :meth:`update` of the destinations. In evaluation mode this
    gives what :meth:`forward_layer` gives, up to rounding.
    """

    @abstractmethod
    def message_channels(self, index: int) -> int:
        """Return the columns M of a message of layer ``index``."""

    @abstractmethod
    def messages(self, index: int, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the message that each source sends along every edge in layer ``index``.

        Args:
            index: Layer in [0, num_layers).
            x: [S, D_in] outputs of the layer before, or features.
            in_degree: [S] int32 in-degrees in the whole graph, where the network needs them.

        Returns:
            [S, M] float32.
        """

    @abstractmethod
    def update(self, index: int, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the output of layer ``index`` for destinations, with the activation behind it.

        Args:
            index: Layer in [0, num_layers).
            total: [n, M] float32 sum of the messages along each destination's in-edges.
            count: [n] int64 number of in-edges summed.
            x: [n, D_in] the destinations' own rows.
            in_degree: [n] int32 in-degrees in the whole graph, where the network needs them.

        Returns:
            [n, D_out] float32.
        """


class AttentionModel(LayerwiseModel):
    """A network each of whose layers is a mean of values, weighed by attention, between two maps of rows.

    With values v, keys k and queries q of one head, destination i gets the mean of v_j over its in-edges j -> i and
    over i itself, weighed by ``exp(leaky_relu(k_j + q_i))``. A layer can be run over all nodes as passes over rows and
    edges; in evaluation mode these methods give what :meth:`forward_layer` gives, up to rounding.
    """

    attention_slope: float  # of the leaky rectifier below zero

    @abstractmethod
    def attention_heads(self, index: int) -> int:
        """Return the heads H of layer ``index``."""

    @abstractmethod
    def value_channels(self, index: int) -> int:
        """Return the columns M of the values of layer ``index``, all heads together."""

    @abstractmethod
    def attend(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values [S, H, M / H], keys [S, H] and queries [S, H], float32, of rows ``x`` [S, D_in]."""

    @abstractmethod
    def attended(self, index: int, mean: Tensor) -> Tensor:
        """Return the outputs [n, D_out] of destinations by their means [n, M], with the activation behind them."""


def prefix_hop(batch: GraphBatch, depth: int) -> LayerHop:
    """Return the first ``depth`` hops of ``batch`` as one layer's edges: views, no copies."""
    num_hops = len(batch.num_sampled_edges)
    if depth > num_hops:
        raise ConfigError(f"a model of {depth} layers got a batch of {num_hops} hops; give one fanout per layer")
    num_dst = sum(batch.num_sampled_nodes[:depth])
    num_src = sum(batch.num_sampled_nodes[: depth + 1])
    return LayerHop(
        indptr=batch.indptr[: num_dst + 1],
        indices=batch.indices[: sum(batch.num_sampled_edges[:depth])],
        in_degree=None if batch.in_degree is None else batch.in_degree[:num_src],
    )
