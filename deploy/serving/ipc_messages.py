"""Whether an Arrow stream is compressed, told from its messages before any of it is unfolded.

pyarrow unfolds what it reads, however large it becomes, and has no name for what says so in a message.

Source:
    Message.fbs and Schema.fbs of Apache Arrow's format; "FlatBuffers Internals" for tables and their fields.
"""

import struct
from typing import Any

import pyarrow as pa

_HEADER = 2  # field of Message
_DATA = 1  # field of DictionaryBatch, a RecordBatch
_COMPRESSION = 3  # field of RecordBatch


def is_compressed(stream: Any) -> bool:
    """Whether a message of the stream, a pyarrow Buffer, holds compressed buffers.

    Raises:
        pa.ArrowException: It is no Arrow stream.
    """
    with pa.BufferReader(stream) as source:
        return any(
            _has_compression(message)
            for message in pa.ipc.MessageReader.open_stream(source)
            if message.type in ("record batch", "dictionary")
        )


def _has_compression(message: Any) -> bool:
    # pyarrow has checked that every offset leads to a place within the metadata.
    raw = message.metadata.to_pybytes()
    batch = _follow(raw, _field(raw, _follow(raw, 0), _HEADER))
    if message.type == "dictionary":
        batch = _follow(raw, _field(raw, batch, _DATA))
    return _field(raw, batch, _COMPRESSION) != 0


def _follow(raw: bytes, place: int) -> int:
    """Return where the offset at ``place`` leads."""
    offset: int = struct.unpack_from("<I", raw, place)[0]
    return place + offset


def _field(raw: bytes, table: int, number: int) -> int:
    """Return the place of a table's field; 0 where it is left out."""
    vtable = table - struct.unpack_from("<i", raw, table)[0]
    size: int = struct.unpack_from("<H", raw, vtable)[0]
    entry = 4 + 2 * number
    offset: int = struct.unpack_from("<H", raw, vtable + entry)[0] if entry < size else 0
    return table + offset if offset else 0
