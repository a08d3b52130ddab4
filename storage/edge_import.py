"""Raw edges in external ids -> checked edges in dense ids."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

from graphsys.core.errors import InputError, NodeIdError
from graphsys.core.types import Array, EdgeChunk, NodeIds, edge_type_key
from graphsys.storage.checks import as_float32, as_int64
from graphsys.storage.edge_records import EdgeLayout
from graphsys.storage.external_ids import show_id
from graphsys.storage.id_space import NodeLookup
from graphsys.storage.jit import njit
from graphsys.storage.read_ahead import read_ahead
from graphsys.storage.sources import EdgeTable, ExternalIds, RawEdgeChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeReader:
    """Reads one edge table in dense ids."""

    table: EdgeTable
    src_ids: NodeLookup
    dst_ids: NodeLookup

    def layout(self, *, edge_ids: bool) -> EdgeLayout:
        """Return what records of this table hold; the first chunk tells."""
        first = next(self.table.chunks(), None)
        attr = None if first is None else first.edge_attr
        if attr is not None and (attr.ndim != 2 or attr.shape[1] == 0):
            raise InputError(f"{self._title}: edge features have shape {attr.shape}; expected [edges, columns]")
        return EdgeLayout(
            num_src=self.src_ids.space.num_nodes,
            num_dst=self.dst_ids.space.num_nodes,
            has_timestamp=first is not None and first.timestamp is not None,
            has_weight=first is not None and first.weight is not None,
            has_edge_id=edge_ids,
            num_edge_features=0 if attr is None else int(attr.shape[1]),
        )

    def chunks(self, layout: EdgeLayout) -> Generator[EdgeChunk, None, None]:
        """Yield the edges in input order.

        Raises:
            NodeIdError: An endpoint is unknown or out of range; the message names the edge's row.
            InputError: Another value cannot be used, or the chunks' fields disagree.
        """
        first_row = 0
        for raw in read_ahead(self.table.chunks()):
            yield self._dense(raw, first_row, layout)
            first_row += raw.num_rows

    def edge_name(self, src: int, dst: int) -> str:
        """Return how messages name the edge between two dense ids."""
        return f"from {self.src_ids.space.shown(src)} to {self.dst_ids.space.shown(dst)}"

    @property
    def _title(self) -> str:
        return f"edge type {edge_type_key(self.table.edge_type)}"

    def _dense(self, raw: RawEdgeChunk, first_row: int, layout: EdgeLayout) -> EdgeChunk:
        def name(what: str, row: int) -> str:
            return f"{self._title}: {what} of edge {first_row + row}"

        self._check_fields(raw, first_row, layout)
        time, weight, attr = raw.timestamp, raw.weight, raw.edge_attr
        return EdgeChunk(
            src=self._nodes(raw.src, self.src_ids, lambda row: name("the source", row)),
            dst=self._nodes(raw.dst, self.dst_ids, lambda row: name("the destination", row)),
            timestamp=None if time is None else as_int64(time, lambda row, _: name("the time", row)),
            weight=None if weight is None else as_float32(weight, lambda row, _: name("the weight", row)),
            edge_attr=None if attr is None else as_float32(attr, lambda row, col: name(f"feature {col}", row)),
        )

    @staticmethod
    def _nodes(ids: ExternalIds, lookup: NodeLookup, name: Callable[[int], str]) -> NodeIds:
        node = lookup.to_node(ids)
        if (row := _first_negative(node)) >= 0:
            raise NodeIdError(f"{name(row)} is {show_id(ids[row])}, {lookup.space.why_unknown()}")
        return node

    def _check_fields(self, raw: RawEdgeChunk, first_row: int, layout: EdgeLayout) -> None:
        columns: dict[str, tuple[Array | None, bool]] = {
            "timestamps": (raw.timestamp, layout.has_timestamp),
            "weights": (raw.weight, layout.has_weight),
            "edge features": (raw.edge_attr, layout.num_edge_features > 0),
        }
        if len(raw.dst) != raw.num_rows:
            raise InputError(
                f"{self._title}: {len(raw.dst)} destinations for {raw.num_rows} sources from edge {first_row}"
            )
        for what, (values, expected) in columns.items():
            if (values is not None) != expected:
                raise InputError(f"{self._title}: some edges have {what} and some, from edge {first_row}, do not")
            if values is not None and values.shape[0] != raw.num_rows:
                raise InputError(
                    f"{self._title}: {values.shape[0]} {what} for {raw.num_rows} edges; row counts must agree"
                )
        if raw.edge_attr is not None and raw.edge_attr.shape[1:] != (layout.num_edge_features,):
            raise InputError(
                f"{self._title}: edge {first_row} has features of shape {raw.edge_attr.shape[1:]} where the first has "
                f"{layout.num_edge_features}"
            )


@njit
def _first_negative(node: NodeIds) -> int:
    for row in range(node.shape[0]):
        if node[row] < 0:
            return row
    return -1
