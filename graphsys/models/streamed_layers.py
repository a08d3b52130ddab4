"""A network of layers for whole graphs, as one that exact inference and new nodes take layer by layer."""

import torch
from torch import Tensor

from graphsys.models.aggregate import sum_neighbors
from graphsys.models.base import LayerHop, StreamedModel
from graphsys.models.layered import LayeredModel, NodeRows


class StreamedLayers(StreamedModel):
    """Runs the layers of a :class:`LayeredModel` one at a time, in evaluation mode.

    The first layer takes features and encodes them, the last one decodes. Between layers a row carries behind its own
    columns those that all layers share.
    """

    needs_degree = True

    def __init__(self, model: LayeredModel) -> None:
        super().__init__()
        self.model = model
        self.num_layers = model.num_layers

    def message_channels(self, index: int) -> int:
        """Return the columns of a message; see :class:`StreamedModel`."""
        return self.model.layer(index).message_channels

    def messages(self, index: int, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the sources' messages; see :class:`StreamedModel`."""
        rows = self._rows(index, x, in_degree)
        layer = self.model.layer(index)
        return layer.messages(layer.prepare(rows), rows)

    def update(self, index: int, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the destinations' outputs; see :class:`StreamedModel`."""
        del count
        rows = self._rows(index, x, in_degree)
        layer = self.model.layer(index)
        out = layer.update(total, layer.prepare(rows), rows)
        if index == self.num_layers - 1:
            return self.model.decode(out)
        return out if rows.shared is None else torch.cat([out, rows.shared], dim=1)

    def forward_layer(self, index: int, x: Tensor, hop: LayerHop) -> Tensor:
        """Return the output of layer ``index``; see :class:`LayerwiseModel`."""
        total, own = sum_neighbors(self.messages(index, x, hop.in_degree), hop)
        del own
        degree = None if hop.in_degree is None else hop.in_degree[: hop.num_dst]
        return self.update(index, total, hop.indptr.diff(), x[: hop.num_dst], degree)

    def _rows(self, index: int, x: Tensor, in_degree: Tensor | None) -> NodeRows:
        assert in_degree is not None, "needs_degree says so"
        if index == 0:
            encoded, shared = self.model.encode(x)
            return NodeRows(x=encoded, shared=shared, in_degree=in_degree)
        width = self.model.hidden_channels
        return NodeRows(
            x=x[:, :width], shared=x[:, width:] if self.model.shared_channels else None, in_degree=in_degree
        )
