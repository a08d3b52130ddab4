"""Messages of nodes whose turn has not come yet: what makes a pipeline of dependent chunks possible.

A layer sums messages over in-edges. Messages of chunks that had their turn in this epoch are *fresh*; the others are
those of a *snapshot* taken at the end of an earlier epoch. Gradients are never stale: a chunk's messages get the
gradients of the sums that used them fresh, so of its own chunk and of the chunks behind it in the order. Under a random
order a sum in another chunk is behind it half the time, so its gradient counts twice.

Source:
    GNNPipe (arXiv:2308.10087), sections on historical embeddings and on training techniques.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphsys.models.aggregate import segment_sum
from graphsys.trainers.pipeline.chunks import Edges, WayGraph
from graphsys.trainers.pipeline.links import Links

Allocate = Callable[[str, tuple[int, ...]], Tensor]  # (name, shape) -> float32 zeros

RESCALE = 2.0  # gradients of other chunks' sums: each is seen in half of all orders


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerHistory:
    """The message rows of one layer, of a way's own nodes and of its mirrors."""

    live: Tensor  # [n + m, M] fresh where the chunk had its turn in this epoch, else of the snapshot
    snapshot: Tensor | None  # [n + m, M]; None where there is one chunk, which is always fresh
    gradient: Tensor  # [n + m, M] of the sums of own rows, zero where the chunk's backward is to come; scratch between


def _histories(graph: WayGraph, channels: dict[int, int], allocate: Allocate) -> dict[int, LayerHistory]:
    found = {}
    for layer, width in channels.items():
        name, shape = f"layer-{layer:04d}", (graph.num_rows, width)
        found[layer] = LayerHistory(
            live=allocate(f"{name}-live", shape),
            snapshot=allocate(f"{name}-snapshot", shape) if graph.num_slots > 1 else None,
            gradient=allocate(f"{name}-gradient", shape),
        )
    return found


def _scratch(graph: WayGraph, channels: dict[int, int], allocate: Allocate) -> dict[int, LayerHistory]:
    rows = {width: allocate(f"rows-{width}", (graph.num_rows, width)) for width in sorted({*channels.values()})}
    return {
        layer: LayerHistory(live=rows[width], snapshot=None, gradient=rows[width]) for layer, width in channels.items()
    }


class Histories:
    """The message rows of a stage's layers, and the sums over them.

    Args:
        layers: Indices of the layers in the network.
        channels: Columns of each layer's messages.
        rescale: Whether gradients of other chunks' sums count twice.
        exact_only: Keep the rows of one layer at a time, which will do where nothing is trained.
    """

    def __init__(
        self,
        graph: WayGraph,
        links: Links,
        layers: Sequence[int],
        channels: Sequence[int],
        allocate: Allocate,
        *,
        rescale: bool = True,
        exact_only: bool = False,
    ) -> None:
        self.graph = graph
        make = _scratch if exact_only else _histories
        self.layers = make(graph, dict(zip(layers, channels, strict=True)), allocate)
        self._links = links
        self._rescale = RESCALE if rescale else 1.0

    def start_epoch(self) -> None:
        """Forget the gradients of the epoch before."""
        for history in self.layers.values():
            history.gradient.zero_()

    def publish(self, layer: int, slot: int, message: Tensor) -> Tensor:
        """Take the fresh messages [b, M] of a chunk and return its sums [b, M]."""
        live = self.layers[layer].live
        self.put(live, layer, slot, message)
        return self.total(live, slot)

    def put(self, rows: Tensor, layer: int, slot: int, message: Tensor) -> None:
        """Write a chunk's messages [b, M] into ``rows`` [n + m, M], and those of other ways' chunks of the slot."""
        graph = self.graph
        rows[graph.own(slot)] = message
        receipts = [
            self._links.receive(rows[part], self._rank(owner), self._tag(layer, slot))
            for owner, part in self._mirrors(slot)
        ]
        for way, index in self._mirrored(slot):
            self._links.send(message[index], self._rank(way), self._tag(layer, slot), "exchange")
        for receipt in receipts:
            receipt.wait()
        self._links.settle("exchange")

    def total(self, rows: Tensor, slot: int) -> Tensor:
        """Return the sums [b, M] of ``rows`` [n + m, M] along the in-edges of a chunk."""
        own = self.graph.own(slot)
        return _sums(self.graph.into, own, rows)

    def total_again(self, layer: int, slot: int, message: Tensor) -> Tensor:
        """Return the sums [b, M] that :meth:`publish` returned, with a gradient for ``message`` [b, M]."""
        apply: Callable[..., Tensor] = _HistoricalSum.apply
        return apply(message, self, layer, slot)

    def gradient_of_message(self, layer: int, slot: int, of_total: Tensor) -> Tensor:
        """Return the gradient [b, M] of a chunk's messages, by that of its sums ``of_total`` [b, M]."""
        graph, gradient, own = self.graph, self.layers[layer].gradient, self.graph.own(slot)
        gradient[own] = of_total
        tag = self._tag(layer, slot, backward=True)
        receipts = [
            (index, self._links.receive(of_total.new_empty((index.shape[0], of_total.shape[1])), self._rank(way), tag))
            for way, index in self._mirrored(slot)
        ]
        for owner, part in self._mirrors(slot):
            self._links.send(_sums(graph.out_of, part, gradient), self._rank(owner), tag, "exchange")
        of_message = _sums(graph.out_of, own, gradient)
        for index, receipt in receipts:
            of_message.index_add_(0, index, receipt.wait())
        self._links.settle("exchange")
        gradient[own] *= self._rescale
        return of_message

    def retire(self, slot: int, *, refresh: bool) -> None:
        """Take a chunk's turn back once its backward pass is done, as those before it have not seen it fresh.

        Args:
            refresh: Keep its fresh messages for the next snapshot.
        """
        for history in self.layers.values():
            if history.snapshot is None:
                continue
            for rows in (self.graph.own(slot), self.graph.mirrors(slot)):
                fresh = history.live[rows].clone() if refresh else None
                history.live[rows] = history.snapshot[rows]
                if fresh is not None:
                    history.snapshot[rows] = fresh

    def end_epoch(self, *, refresh: bool) -> None:
        """Make ready for the next epoch: what is not fresh is of the snapshot, the new one if this epoch made one."""
        if refresh:
            self.restore()

    def restore(self) -> None:
        """Put the snapshot where every chunk's turn is to come."""
        for history in self.layers.values():
            if history.snapshot is not None:
                history.live.copy_(history.snapshot)

    def _mirrors(self, slot: int) -> list[tuple[int, slice]]:
        """Return the ways whose rows are mirrored here, with these rows."""
        parts = [(owner, self.graph.mirrors_of(slot, owner)) for owner in range(self._links.shape.ways)]
        return [(owner, part) for owner, part in parts if part.stop > part.start]

    def _mirrored(self, slot: int) -> list[tuple[int, Tensor]]:
        """Return the ways that mirror rows of a chunk, with these rows, counted within the chunk."""
        return [(way, index) for way, index in enumerate(self.graph.sends[slot]) if index.shape[0]]

    def _rank(self, way: int) -> int:
        return self._links.shape.rank(self._links.stage, way)

    def _tag(self, layer: int, slot: int, *, backward: bool = False) -> int:
        return 2 * (layer * self.graph.num_slots + slot) + backward


def _sums(edges: Edges, rows: slice, of: Tensor) -> Tensor:
    part = edges.rows(rows.start, rows.stop)
    return segment_sum(of, part.indptr, part.indices)


class _HistoricalSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, message: Tensor, histories: Histories, layer: int, slot: int) -> Tensor:
        del message  # its rows are among the live ones
        ctx.place = histories, layer, slot
        return histories.total(histories.layers[layer].live, slot)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        histories, layer, slot = ctx.place
        return histories.gradient_of_message(layer, slot, grads[0]), None, None, None
