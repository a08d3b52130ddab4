"""The exact bytes of a small embedding table; a change here is a change of format and needs a new version."""

from pathlib import Path

import numpy as np

from graphsys.storage.embeddings import EmbeddingTable, TableOrigin, write_table
from graphsys.storage.manifest import Manifest, verify_folder
from graphsys.storage.store import Store

ROWS = np.array([[0.0, 0.5], [1.0, -2.0], [3.0, 4.0]], np.float32)
MANIFEST = (
    b'{"arrays":{"vectors":{"checksums":["7d41b1ce008a6148"],"chunk_rows":262144,"dtype":"float16","shape":[3,'
    b'2]}},"checksum":"b9a0c80e4f5f6ac897ecebc416e1fada","config":{"dtype":"float16","layer":2},'
    b'"content":{"dim":2,"dtype":"float16","id_kind":"identity","layer":2,"node_type":"paper","num_rows":3,'
    b'"version":"e3a7c80a5410"},"files":{"zarr.json":"edaf60d71ba4769b3b552fa03bd658f5"},'
    b'"format":"graphsys.embedding_table","format_version":1,"parents":{"checkpoint":"cc",'
    b'"store":"8c534e01b5ca4714bffd94d8b6df123c"}}\n'
)


def golden_table(folder: Path) -> EmbeddingTable:
    info = {"num_nodes": 3, "num_features": 1, "label_kind": "none", "num_classes": 0, "id_kind": "identity"}
    manifest = Manifest(kind="store", config={}, parents={}, content={"node_types": {"paper": info}, "edge_types": {}})
    origin = TableOrigin(
        store=Store(folder / "none.gs", manifest),
        node_type="paper",
        checkpoint="cc",
        layer=2,
        config={"layer": 2, "dtype": "float16"},
    )
    return write_table(folder / "emb.gs", [ROWS[:2], ROWS[2:]], origin=origin, dim=2, dtype="float16")


def test_rows_lie_flat_at_the_front_of_the_one_chunk_file(tmp_path: Path) -> None:
    raw = (golden_table(tmp_path).path / "vectors" / "c" / "0" / "0").read_bytes()
    assert raw[:12].hex() == "00000038003c00c000420044"
    assert not any(raw[12 : 1 << 20])


def test_the_manifest_is_this_text(tmp_path: Path) -> None:
    table = golden_table(tmp_path)
    assert (table.path / "manifest.json").read_bytes() == MANIFEST
    verify_folder(table.path, table.manifest)


def test_the_root_group_carries_the_content(tmp_path: Path) -> None:
    assert (golden_table(tmp_path).path / "zarr.json").read_text().splitlines()[:4] == [
        "{",
        '  "attributes": {',
        '    "dim": 2,',
        '    "dtype": "float16",',
    ]
