"""Bytes that one process of a pipeline holds, by arithmetic alone."""

from dataclasses import asdict, dataclass
from typing import Any

from graphsys.trainers.pipeline.links import MOST_SENDING
from graphsys.trainers.pipeline.network import GraphSplit, NetworkShape

_FLOAT, _INDEX, _PLACE = 4, 4, 8  # bytes of a number, of an edge's end, of a node's place
_COPIES = 4  # of every weight: itself, its gradient, and the two moments that Adam keeps
_WORKING = 4  # rows of the widest layer that a pass holds besides: a result, its gradient, and what both are made of
# What passes free, the C library keeps in part, unless single blocks are so large that it hands them back; as measured.
_KEPT_BACK, _LARGE_BLOCK = 1.5, 32 << 20
_RECEIVING = 2  # chunks' gradients that are on their way or in use


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Bytes of data of a stage's largest process."""

    histories: int  # messages of all its layers, live and, with several chunks, as a snapshot; and their gradients
    inputs: int  # rows that the stage before puts out
    topology: int  # in-edges and out-edges of its nodes
    transients: int  # of the largest chunk while it is run, with its features in the first stage
    weights: int  # with gradients and the optimizer's moments

    @property
    def total(self) -> int:
        """All of it."""
        return self.histories + self.inputs + self.topology + self.transients + self.weights

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "total": self.total}


def stage_memory(network: NetworkShape, split: GraphSplit, layers: range) -> StageMemory:
    """Return what the processes of a stage hold; the way for which it is most.

    Args:
        network: The whole network.
        split: The graph's nodes by way and chunk.
        layers: The layers of the stage.
    """
    ways = [_of_way(network, split, layers, way) for way in range(split.num_ways)]
    return max(ways, key=lambda memory: memory.total)


def _of_way(network: NetworkShape, split: GraphSplit, layers: range, way: int) -> StageMemory:
    nodes, edges, mirrors = int(split.nodes[way].sum()), int(split.edges[way].sum()), split.mirrors[way]
    largest = int(split.nodes[way].max())
    buffers = 2 if split.num_slots == 1 else 3
    messages = sum(network.message_channels[layer] for layer in layers)
    widest = max(network.hidden_channels, *(network.message_channels[layer] for layer in layers))
    is_first, is_last = layers.start == 0, layers.stop == network.num_layers
    parts = [*([0] if is_first else []), *(layer + 1 for layer in layers), *([-1] if is_last else [])]
    kept = sum(network.kept_bytes[part] for part in parts)
    columns = _WORKING * widest + (network.num_features if is_first else network.row_channels)
    columns += 0 if is_last else _RECEIVING * network.row_channels
    columns += 0 if is_first and is_last else MOST_SENDING * network.row_channels
    back = _KEPT_BACK if largest * widest * _FLOAT < _LARGE_BLOCK else 1.0
    return StageMemory(
        histories=buffers * (nodes + mirrors) * messages * _FLOAT,
        inputs=nodes * network.row_channels * _FLOAT,
        topology=2 * edges * _INDEX + (3 * nodes + mirrors + 2) * _INDEX + mirrors * _PLACE,
        transients=int(back * largest * (kept + columns * _FLOAT)),
        weights=_COPIES * sum(network.layer_weights[layer] for layer in layers) * _FLOAT,
    )
