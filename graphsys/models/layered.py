"""A network as a list of layers, so that its layers can run in different processes, and a graph in parts.

A layer sees other nodes only through one sum of messages along in-edges. Whoever runs the network computes that sum:
over the whole graph at once, or chunk by chunk, partly with messages of an earlier epoch (``trainer.strategy:
pipeline``). All else a layer does is a map of rows.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRows:
    """What a layer knows of n nodes besides their neighbours; all tensors lie on one device."""

    x: Tensor  # [n, D_in] outputs of the layer before
    shared: Tensor | None  # [n, D_shared] what every layer gets of the encoder's output; None where there is none
    in_degree: Tensor  # [n] int32 in-degree in the whole graph


class MessageLayer(nn.Module, ABC):
    """One layer: a message per node, their sums along in-edges, and an update; dropout and activation included.

    Each of the three methods is called once per set of nodes and forward pass, in this order, and again when the
    backward pass makes it anew, with torch's generator in the same state. A layer must not mix the rows of different
    nodes (no batch norm): the nodes may come in any number of sets.
    """

    message_channels: int  # columns M of a message
    out_channels: int  # columns of the output

    def prepare(self, rows: NodeRows) -> Tensor:
        """Return what messages and update are made of, [n, D']: normalised, dropped out; ``x`` by default."""
        return rows.x

    @abstractmethod
    def messages(self, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the message [n, M] that each node sends along all its out-edges, of ``prepared`` [n, D']."""

    @abstractmethod
    def update(self, total: Tensor, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the output [n, out_channels] of nodes by the sums [n, M] of the messages along their in-edges."""


class LayeredModel(nn.Module, ABC):
    """An encoder of features, layers, and a decoder of outputs, for training on a whole graph.

    Parameters must be named ``layers.<index>.*`` in layers; the encoder's run with the first layer, the decoder's with
    the last.
    """

    layers: nn.ModuleList  # of MessageLayer
    hidden_channels: int  # columns between layers: what the encoder and every layer put out
    shared_channels: int = 0  # columns of the tensor that all layers see besides, such as GCNII's initial residual

    @property
    def num_layers(self) -> int:
        """Number of message-passing layers L."""
        return len(self.layers)

    def layer(self, index: int) -> MessageLayer:
        """Return layer ``index`` in [0, L)."""
        return cast(MessageLayer, self.layers[index])

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the first layer's input [n, hidden_channels] and the shared rows [n, shared_channels], or None."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Return the outputs [n, C] of the last layer's rows [n, hidden_channels]."""
