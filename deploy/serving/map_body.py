"""The map of a table as the page reads it: a header in JSON, then plain columns, little-endian.

Text in JSON for 100,000 points would be five times as large, and the browser would make 100,000 objects of it. Layout::

    bytes 0-8     "GSMAP001"
    bytes 8-12    uint32, length of the header
    bytes 12-16   zero
    header        JSON, padded with spaces to a multiple of 8; columns name their offsets from its end
    columns       each at a multiple of 8

Columns: ``x`` and ``y`` float32; ``label`` int32, -1 for none, where classes are known; ids as ``id`` int64, or as
``id_offsets`` uint32 [n + 1] into ``id_bytes``, UTF-8.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from graphsys.deploy.serving.node_classes import NodeClasses
from graphsys.deploy.serving.projection import Projection
from graphsys.storage.id_map import IdMap

MAGIC = b"GSMAP001"
MEDIA_TYPE = "application/vnd.graphsys.map"
_TYPES = {"float32": "f4", "int32": "i4", "uint32": "u4", "uint8": "u1", "int64": "i8"}

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapBody:
    """What is sent, ready."""

    body: bytes
    etag: str  # as the header of that name has it


def encode_map(projection: Projection, ids: IdMap, classes: NodeClasses | None, version: str) -> MapBody:
    """Return the body for a table's map."""
    columns: Columns = {"x": projection.xy[:, 0], "y": projection.xy[:, 1], **_ids(ids, projection)}
    if classes is not None:
        columns["label"] = classes.of(projection.node)
    facts = {
        "version": version,
        "num_points": projection.num_points,
        "num_rows": projection.num_rows,
        "left_out": projection.left_out,
        "method": projection.settings.method,
        "explained": [] if projection.axes is None else list(projection.axes.explained),
        "classes": [] if classes is None else list(classes.names),
    }
    body = _packed(facts, columns)
    return MapBody(body=body, etag=f'"{xxhash.xxh3_128(body).hexdigest()}"')


def _ids(ids: IdMap, projection: Projection) -> Columns:
    external = ids.to_external(projection.node)
    if ids.kind != "string":
        return {"id": np.array(external, np.int64)}
    texts = [str(value).encode() for value in external]
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.uint32)
    return {"id_offsets": offsets, "id_bytes": np.frombuffer(b"".join(texts), np.uint8)}


def _packed(facts: dict[str, Any], columns: Columns) -> bytes:
    parts, described, offset = [], [], 0
    for name, column in columns.items():
        kind = _TYPES[column.dtype.name]
        described.append({"name": name, "type": kind, "offset": offset, "length": column.shape[0]})
        raw = np.ascontiguousarray(column, f"<{kind}").tobytes()
        parts.append(raw + bytes(-len(raw) % 8))
        offset += len(parts[-1])
    header = json.dumps({**facts, "columns": described}, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return MAGIC + len(header).to_bytes(4, "little") + bytes(4) + header + b"".join(parts)
