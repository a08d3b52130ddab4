"""Node ids a part at a time: vectors are read in blocks that fit into memory."""

from collections.abc import Iterator

from graphsys.core.types import NodeIds


def node_parts(node: NodeIds, rows: int) -> Iterator[NodeIds]:
    """Yield the ids of ``node`` [n] in their order, ``rows`` at a time; the last part may be shorter."""
    for start in range(0, node.shape[0], rows):
        yield node[start : start + rows]
