"""Runs a network of layers over a whole graph at once: plain autograd, in one process.

This is what the layers mean. Runs in parts are compared with it, and it evaluates exactly where a graph fits in memory.
"""

import torch
from torch import Tensor

from graphsys.core.errors import ConfigError
from graphsys.models.aggregate import sum_neighbors
from graphsys.models.base import LayerHop
from graphsys.models.layered import LayeredModel, MessageLayer, NodeRows


def forward_whole(model: LayeredModel, x: Tensor, indptr: Tensor, indices: Tensor) -> Tensor:
    """Return the outputs [N, C] of all nodes.

    Dropout draws from torch's generator, node by node in the order of ids, if the model is in training mode; the
    caller seeds it.

    Args:
        model: On the device of the tensors.
        x: [N, D] features.
        indptr: [N + 1] int32 or int64: node i has the in-edges [indptr[i], indptr[i + 1]).
        indices: [E] int32 or int64 ids of the edges' sources.

    Raises:
        ConfigError: The features and the graph are of different numbers of nodes.

    Cost:
        Keeps the rows of all layers until the backward pass: about ``10 * L * N * hidden`` bytes and more.
    """
    num_nodes = indptr.shape[0] - 1
    if x.shape[0] != num_nodes:
        raise ConfigError(f"the features have {x.shape[0]} rows and the graph {num_nodes} nodes; give one row per node")
    hop = LayerHop(indptr=indptr, indices=indices)
    in_degree = indptr.diff().to(torch.int32)
    x, shared = model.encode(x)
    for index in range(model.num_layers):
        x = forward_layer(model.layer(index), NodeRows(x=x, shared=shared, in_degree=in_degree), hop)
    return model.decode(x)


def forward_layer(layer: MessageLayer, rows: NodeRows, hop: LayerHop) -> Tensor:
    """Return the output [N, out_channels] of one layer for all nodes; ``hop`` holds all edges."""
    prepared = layer.prepare(rows)
    total, _ = sum_neighbors(layer.messages(prepared, rows), hop)
    return layer.update(total, prepared, rows)
