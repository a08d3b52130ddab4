"""The exact bytes of a small store; a change here is a change of format and needs a new version."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphsys.core.types import EdgeType
from graphsys.core.units import MIB
from graphsys.storage.external_ids import hash_texts, text_buffers
from graphsys.storage.flat import chunk_file
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import edge_table, graph_in_memory, node_table
from graphsys.storage.store import Store

HASHES = ["e220a8397b1dcdaf", "3e506e5796335af0", "949221b4a998d79f"]
CITES: EdgeType = ("paper", "cites", "paper")


def make_store(folder: Path) -> Store:
    nodes = node_table(
        "paper",
        4,
        ids=pa.array(["a", "b", "c", "d"]),
        x=np.array([[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5]], np.float32),
        y=np.array([0, 1, 0, -1]),
        split=np.array([1, 2, 3, 0], np.uint8),
    )
    src, dst = pa.array(["b", "d", "a", "b", "c"]), pa.array(["a", "a", "c", "d", "a"])
    edges = edge_table(CITES, src, dst, weight=np.array([0.5, 1.5, 2.5, 3.5, 4.5]))
    source = graph_in_memory((nodes,), (edges,), "golden")
    import_graph(source, folder / "golden.gs", ImportOptions(memory=64 * MIB, edge_ids=True))
    return Store.open(folder / "golden.gs")


def rows(store: Store, name: str, ndim: int = 1) -> list[str]:
    """Return the bytes of an array's rows in hexadecimal, as they lie at the front of its chunk file."""
    spec = store.manifest.arrays[name]
    raw = chunk_file(store.path / name, ndim).read_bytes()[: spec.nbytes]
    return [raw[start : start + spec.row_nbytes].hex() for start in range(0, spec.nbytes, spec.row_nbytes)]


def little(nbytes: int, *values: int) -> list[str]:
    return [value.to_bytes(nbytes, "little", signed=True).hex() for value in values]


def test_the_arrays_of_a_store_are_these_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    base = "topology/paper__cites__paper"
    assert rows(store, f"{base}/indptr") == little(8, 0, 3, 3, 4, 5)
    assert rows(store, f"{base}/indices") == little(4, 1, 2, 3, 0, 1)
    assert rows(store, f"{base}/edge_id") == little(8, 0, 4, 1, 2, 3)
    assert rows(store, f"{base}/weight") == ["0000003f", "00009040", "0000c03f", "00002040", "00006040"]
    assert rows(store, "nodes/paper/split") == little(1, 1, 2, 3, 0)
    assert rows(store, "nodes/paper/y") == little(8, 0, 1, 0, -1)
    assert rows(store, "nodes/paper/x", 2) == [
        "000000000000003f", "0000803f0000c03f", "0000004000002040", "0000404000006040",
    ]  # fmt: skip
    assert bytes.fromhex("".join(rows(store, "id_map/paper/bytes"))) == b"abcd"
    assert rows(store, "id_map/paper/offsets") == little(8, 0, 1, 2, 3, 4)
    assert sorted(rows(store, "id_map/paper/order")) == little(8, 0, 1, 2, 3)


def test_the_manifest_of_a_store_says_this(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    manifest = json.loads((store.path / "manifest.json").read_bytes())
    assert (manifest["format"], manifest["format_version"]) == ("graphsys.store", 1)
    assert manifest["parents"] == {"memory": "34e454eb08835c701bfc2b41b61a3b3a"}
    assert store.fingerprint == "3bb5dd1e069de77bbc358fb63b9eaf52"


def mixed(value: int) -> int:
    z = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % (1 << 64)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % (1 << 64)
    return z ^ (z >> 31)


def slow_hash(text: str) -> int:
    """Return the hash as the format page defines it."""
    raw = text.encode()
    state = mixed((len(raw) + 0x9E3779B97F4A7C15) % (1 << 64))
    for start in range(0, len(raw), 8):
        state = mixed(state ^ int.from_bytes(raw[start : start + 8], "little"))
    return state


def test_strings_hash_as_the_format_page_says() -> None:
    texts = ["", "a", "eight by", "more than eight bytes", "Zürich", "x" * 1000]
    found = hash_texts(*text_buffers(pa.array(texts, pa.large_string()))).tolist()
    assert found == [slow_hash(text) for text in texts]
    assert [f"{value:016x}" for value in found[:3]] == HASHES
