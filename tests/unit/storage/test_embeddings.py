from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import zarr
from helpers.artefacts import flip
from helpers.tables import CHECKPOINT, id_store, make_table

from graphsys.core.errors import ArtefactError, CorruptError, DiskError, InputError
from graphsys.deploy.lookup import search
from graphsys.storage.embeddings import KIND, EmbeddingTable, TableOrigin, write_table
from graphsys.storage.manifest import read_manifest, verify_folder
from graphsys.storage.store import Store

ROWS = 50
IDS: dict[str, list[int] | list[str] | None] = {
    "identity": None,
    "integer": [7 * row + 3 for row in reversed(range(ROWS))],
    "string": [f"paper-{row}-é" for row in range(ROWS)],
}
KINDS = pytest.mark.parametrize("kind", list(IDS))


def vectors(dim: int = 5) -> npt.NDArray[np.float32]:
    """Row i holds i, i + 1/8, i + 2/8, ...; exact in float16."""
    return (np.arange(ROWS)[:, None] + np.arange(dim) / 8).astype(np.float32)


def external(kind: str, row: int) -> Any:
    ids = IDS[kind]
    return row if ids is None else ids[row]


@KINDS
def test_lookup_answers_by_external_id_and_says_what_is_missing(tmp_path: Path, kind: str) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS[kind])
    missing = "paper-x" if kind == "string" else 10**6
    found_vectors, found = table.lookup([external(kind, 4), missing, external(kind, 49)])
    assert found.tolist() == [True, False, True]
    np.testing.assert_array_equal(found_vectors[[0, 2]], vectors()[[4, 49]])
    assert not found_vectors[1].any()
    assert found_vectors.dtype == np.float32


def test_text_is_read_as_a_number_where_ids_are_integers(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS["integer"])
    np.testing.assert_array_equal(table.lookup([str(external("integer", 4))])[0], vectors()[[4]])


def test_text_that_is_no_integer_is_not_found_where_ids_are_integers(tmp_path: Path) -> None:
    _, found = make_table(tmp_path, vectors()).lookup(["abc", "1.5", "9" * 30, "3"])
    assert found.tolist() == [False, False, False, True]


def test_any_zarr_reader_opens_a_table(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS["integer"])
    group = zarr.open_group(str(table.path), mode="r")
    rows, ids = group["vectors"], group["id_map/ids"]
    assert isinstance(rows, zarr.Array)
    assert isinstance(ids, zarr.Array)
    np.testing.assert_array_equal(rows[:], vectors())
    np.testing.assert_array_equal(ids[:], IDS["integer"])
    assert group.attrs["dim"] == 5


def test_the_manifest_says_what_a_table_holds_and_what_it_was_made_from(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS["string"])
    store = Store.open(tmp_path / "ids.gs")
    assert table.manifest.parents == {"store": store.fingerprint, "checkpoint": CHECKPOINT}
    content = dict(table.manifest.content)
    assert len(content.pop("version")) == 12
    assert content == {
        "dim": 5,
        "dtype": "float32",
        "num_rows": ROWS,
        "node_type": "paper",
        "layer": 2,
        "id_kind": "string",
    }


@KINDS
def test_every_byte_of_a_table_is_checked(tmp_path: Path, kind: str) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS[kind])
    verify_folder(table.path, read_manifest(table.path, KIND))
    (table.path / "zarr.json").write_bytes((table.path / "zarr.json").read_bytes().replace(b'"dim": 5', b'"dim": 6'))
    with pytest.raises(CorruptError, match=r"zarr.json is corrupt"):
        verify_folder(table.path, read_manifest(table.path, KIND))


def test_a_damaged_chunk_of_vectors_is_never_answered(tmp_path: Path) -> None:
    rows = np.arange(60_000, dtype=np.float32)[:, None].repeat(10, axis=1)  # three chunks
    table = make_table(tmp_path, rows, block=60_000)
    flip(table.vectors.path, 1 << 20)
    fresh = EmbeddingTable.open(table.path)
    np.testing.assert_array_equal(fresh.take(np.array([5, 59_999])), rows[[5, 59_999]])
    with pytest.raises(CorruptError, match=r"vectors/c/0/0: chunk 1 is corrupt"):
        fresh.take(np.array([5, 30_000]))
    for export in (fresh.export_parquet, fresh.export_npy):
        with pytest.raises(CorruptError, match=r"vectors/c/0/0: chunk 1 is corrupt"):
            export(tmp_path / "exports" / "out")
    with pytest.raises(CorruptError, match=r"vectors/c/0/0: chunk 1 is corrupt"):
        search(fresh, rows[:1], 3)
    assert not (tmp_path / "exports").exists() or list((tmp_path / "exports").iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [("integer", "ids"), ("integer", "order"), ("string", "bytes")])
def test_damaged_ids_are_never_answered(tmp_path: Path, kind: str, name: str) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS[kind])
    flip(table.path / "id_map" / name / "c" / "0", 3)
    fresh = EmbeddingTable.open(table.path)
    with pytest.raises(CorruptError, match=rf"id_map/{name}/c/0: chunk 0 is corrupt"):
        fresh.lookup([external(kind, 4)])
    for export in (fresh.export_parquet, fresh.export_npy):
        with pytest.raises(CorruptError, match=rf"id_map/{name}/c/0: chunk 0 is corrupt"):
            export(tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_the_version_follows_the_vectors(tmp_path: Path) -> None:
    first = make_table(tmp_path, vectors())
    same = make_table(tmp_path, vectors(), block=50, overwrite=True)
    other = make_table(tmp_path, vectors() + 1, overwrite=True)
    assert first.version == same.version
    assert other.version != first.version


def test_float16_halves_the_vectors_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors(), dtype="float16")
    assert table.take(np.array([3])).dtype == np.float16
    np.testing.assert_array_equal(table.take(np.arange(ROWS)), vectors().astype(np.float16))
    large = vectors()
    large[11, 2] = 1e6
    with pytest.raises(InputError, match=r"value 2 of node 11 is 1e\+06, beyond float16; set embed.dtype"):
        make_table(tmp_path, large, dtype="float16", overwrite=True)
    assert EmbeddingTable.open(table.path).version == table.version


def test_a_table_of_the_wrong_length_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    store = id_store(tmp_path, None, 9)
    origin = TableOrigin(store=store, node_type="paper", checkpoint=CHECKPOINT, layer=1, config={})
    with pytest.raises(ArtefactError, match="8 vectors came for 9 nodes of type 'paper'"):
        write_table(tmp_path / "emb.gs", [np.zeros((8, 2), np.float32)], origin=origin, dim=2)
    assert [path.name for path in tmp_path.iterdir()] == ["ids.gs"]


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_holds_every_id_beside_its_vector(tmp_path: Path, kind: str, dtype: str) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS[kind], dtype=dtype)
    path = tmp_path / "out.parquet"
    table.export_parquet(path)
    read = pq.read_table(path)
    assert read.column_names == ["id", "embedding", "event_timestamp", "created"]
    assert read["id"].to_pylist() == [external(kind, row) for row in range(ROWS)]
    np.testing.assert_array_equal(np.array(read["embedding"].to_pylist(), np.float32), vectors())
    assert read.schema.metadata[b"graphsys.version"].decode() == table.version


@KINDS
def test_npy_holds_the_vectors_and_the_ids_beside_them(tmp_path: Path, kind: str) -> None:
    table = make_table(tmp_path, vectors(), ids=IDS[kind])
    ids_path = table.export_npy(tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), vectors())
    if kind == "identity":
        assert ids_path is None
    else:
        assert ids_path == tmp_path / "out.ids.npy"
        assert np.load(ids_path).tolist() == IDS[kind]


def test_an_export_replaces_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors())
    for path, export in ((tmp_path / "a.parquet", table.export_parquet), (tmp_path / "a.npy", table.export_npy)):
        path.write_bytes(b"mine")
        with pytest.raises(DiskError, match="exists; choose another name, or pass --overwrite"):
            export(path)
        assert path.read_bytes() == b"mine"
        export(path, overwrite=True)
        assert path.read_bytes() != b"mine"


def test_an_export_into_a_missing_place_says_so(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match=r"cannot write .*out\.parquet"):
        table.export_parquet(tmp_path / "file" / "out.parquet")


def test_another_artefact_is_not_taken_for_a_table(tmp_path: Path) -> None:
    store = id_store(tmp_path, None, 9)
    with pytest.raises(ArtefactError, match="is not a graphsys embedding table: it is a store"):
        EmbeddingTable.open(store.path)
