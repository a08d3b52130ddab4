"""One stage: consecutive layers of the network, run chunk by chunk, forward without and backward with a graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsys.core.seeding import derive_key
from graphsys.models.layered import LayeredModel, NodeRows
from graphsys.trainers.device import seed_torch
from graphsys.trainers.objective import Objective
from graphsys.trainers.pipeline.history import Histories

_DRAWS = 0xD409  # keeps dropout apart from other draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What the last stage learns: labels of the training nodes, by slot."""

    objective: Objective
    rows: Sequence[Tensor]  # [T] of [k] int64 rows of the training nodes, counted within the chunk
    y: Sequence[Tensor]  # [T] of [k] or [k, C] their labels
    total: int  # training nodes of the whole graph

    def loss(self, output: Tensor, slot: int) -> Tensor:
        """Return a chunk's share [] of the mean loss over all training nodes."""
        rows = self.rows[slot]
        if rows.shape[0] == 0:
            return output.sum() * 0.0
        return self.objective.loss(output[rows], self.y[slot]) * (rows.shape[0] / self.total)


@dataclass(slots=True, kw_only=True)
class Stage:
    """The layers [first, stop) of a network over the chunks of one way.

    Every layer's randomness is drawn from a key of (seed, epoch, layer, chunk), so it is the same when a chunk's
    forward pass is made again, and with any number of stages.
    """

    model: LayeredModel
    first: int
    stop: int
    histories: Histories
    inputs: Tensor  # [n, hidden + shared] what the stage before put out; the first stage's scratch
    features: Callable[[int], Tensor]  # slot -> [b, D] features of the chunk; called by the first stage only
    targets: Targets
    seed: int
    epoch: int = 0
    loss: float = 0.0  # sum of the shares of the epoch's chunks so far, in the last stage

    @property
    def is_first(self) -> bool:
        """Whether the encoder runs here."""
        return self.first == 0

    @property
    def is_last(self) -> bool:
        """Whether the decoder runs here."""
        return self.stop == self.model.num_layers

    @property
    def width(self) -> int:
        """Columns that travel between stages: of the rows, then of what all layers share."""
        return self.model.hidden_channels + self.model.shared_channels

    def forward(self, slot: int) -> Tensor | None:
        """Run a chunk forward, publish its messages; return the rows [b, hidden + shared] for the next stage, if any.

        Nothing but the stage's inputs is kept.
        """
        with torch.no_grad():
            x, shared = self._enter(slot)
            x = self._layers(x, shared, slot, self.histories.publish)
        return None if self.is_last else _packed(x, shared)

    def backward(self, slot: int, of_output: Tensor | None) -> Tensor | None:
        """Run a chunk forward again and backward; add to the weights' gradients.

        Args:
            slot: The chunk.
            of_output: [b, hidden + shared] gradient of what :meth:`forward` returned; None in the last stage.

        Returns:
            The gradient of the chunk's inputs, alike; None in the first stage.
        """
        with torch.enable_grad():
            start, shared = self._enter(slot)
            x = self._layers(start, shared, slot, self.histories.total_again)
            if of_output is None:
                self._backward_of_loss(x, slot)
            else:
                parts = zip((x, shared), _unpacked(of_output, self.model), strict=True)
                wanted = [(root, part) for root, part in parts if root is not None and root.requires_grad]
                torch.autograd.backward([root for root, _ in wanted], [part for _, part in wanted])
        if self.is_first:
            return None
        return _packed(_gradient(start), None if shared is None else _gradient(shared))

    def enter_exactly(self, slot: int) -> None:
        """Have a chunk's rows before the first layer among the inputs; the encoder makes them in the first stage."""
        if self.is_first:
            self.inputs[self.histories.graph.own(slot)] = _packed(*self.model.encode(self.features(slot)))

    def run_layer_exactly(self, index: int, *, into_snapshot: bool) -> None:
        """Replace every row of the inputs by the output of one layer, which sees all messages fresh.

        Args:
            index: The layer in the network.
            into_snapshot: Keep the messages as the layer's snapshot.
        """
        history, slots = self.histories.layers[index], range(self.histories.graph.num_slots)
        messages = history.snapshot if into_snapshot and history.snapshot is not None else history.gradient
        layer = self.model.layer(index)
        for slot in slots:
            rows = self._rows(slot)
            self.histories.put(messages, index, slot, layer.messages(layer.prepare(rows), rows))
        for slot in slots:
            rows = self._rows(slot)
            out = layer.update(self.histories.total(messages, slot), layer.prepare(rows), rows)
            self.inputs[self.histories.graph.own(slot), : self.model.hidden_channels] = out

    def leave_exactly(self, slot: int) -> Tensor:
        """Return a chunk's packed rows behind the last layer, or the network's outputs [b, C] in the last stage."""
        rows = self.inputs[self.histories.graph.own(slot)]
        return self.model.decode(_unpacked(rows, self.model)[0]) if self.is_last else rows

    def _rows(self, slot: int) -> NodeRows:
        own = self.histories.graph.own(slot)
        x, shared = _unpacked(self.inputs[own], self.model)
        return NodeRows(x=x, shared=shared, in_degree=self.histories.graph.in_degree[own])

    def _backward_of_loss(self, x: Tensor, slot: int) -> None:
        self._seed(self.model.num_layers + 1, slot)
        loss = self.targets.loss(self.model.decode(x), slot)
        torch.autograd.backward([loss])
        self.loss += float(loss.detach())

    def _enter(self, slot: int) -> tuple[Tensor, Tensor | None]:
        """Return the rows before the first layer, and those that all layers share."""
        if not self.is_first:
            x, shared = _unpacked(self.inputs[self.histories.graph.own(slot)], self.model)
            return _leaf(x), None if shared is None else _leaf(shared)
        self._seed(self.model.num_layers, slot)
        x, shared = self.model.encode(self.features(slot))
        # Messages get gradients even where no weight is before them, so that all ways exchange the same rows.
        return (x if x.requires_grad else x.detach().requires_grad_(torch.is_grad_enabled())), shared

    def _layers(
        self, x: Tensor, shared: Tensor | None, slot: int, totals: Callable[[int, int, Tensor], Tensor]
    ) -> Tensor:
        """Return the rows behind the last layer; ``totals`` of (layer, slot, message) gives sums along in-edges."""
        degree = self.histories.graph.in_degree[self.histories.graph.own(slot)]
        for index in range(self.first, self.stop):
            layer, rows = self.model.layer(index), NodeRows(x=x, shared=shared, in_degree=degree)
            self._seed(index, slot)
            prepared = layer.prepare(rows)
            x = layer.update(totals(index, slot, layer.messages(prepared, rows)), prepared, rows)
        return x

    def _seed(self, point: int, slot: int) -> None:
        graph = self.histories.graph
        chunk = graph.way * graph.num_slots + slot
        seed_torch(derive_key(self.seed, self.epoch, _DRAWS, point, chunk), self.inputs.device)


def _unpacked(rows: Tensor, model: LayeredModel) -> tuple[Tensor, Tensor | None]:
    """Return the rows [b, hidden] and the shared rows [b, shared] that travel together, each in one piece."""
    x, shared = rows[:, : model.hidden_channels], rows[:, model.hidden_channels :]
    return x.contiguous(), shared.contiguous() if model.shared_channels else None


def _leaf(rows: Tensor) -> Tensor:
    return rows.detach().requires_grad_(torch.is_grad_enabled())


def _packed(x: Tensor, shared: Tensor | None) -> Tensor:
    return x.contiguous() if shared is None else torch.cat([x, shared], dim=1)


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
