"""Graphs in Parquet and CSV tables."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from helpers.raw_graphs import whole_edges, whole_nodes

from graphsys.core.errors import DiskError, InputError
from graphsys.core.types import Array
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import GraphSource, NodeChunk, SourceSpec
from graphsys.storage.sources_tabular import open_tables

EDGES = {"src": [0, 1, 2], "dst": [1, 2, 0]}
NODES = {"id": [0, 1, 2]}


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pa_csv.write_csv(table, path)
    return path


def edges(folder: Path, columns: dict[str, Any], kind: str = "parquet", **names: Any) -> GraphSource:
    return open_tables(write(folder / f"edges.{kind}", columns), None, SourceSpec(**names))


def nodes(folder: Path, columns: dict[str, Any], kind: str = "parquet", **names: Any) -> NodeChunk:
    path = write(folder / f"nodes.{kind}", NODES | columns)
    source = open_tables(write(folder / f"edges.{kind}", EDGES), path, SourceSpec(**names))
    return whole_nodes(source.nodes[0])


def values(array: Array | None) -> Any:
    assert array is not None
    return array.tolist()


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("ids", [[5, -7, 10**15], ["a", "b c", "ü"]])
def test_ids_are_integers_or_strings(ids: list[Any], kind: str, tmp_path: Path) -> None:
    found = whole_edges(edges(tmp_path, {"src": ids, "dst": ids[::-1]}, kind).edges[0])
    assert found.src.tolist() == ids
    assert found.dst.tolist() == ids[::-1]


@pytest.mark.parametrize(
    "dtype", [pa.int8(), pa.uint16(), pa.uint64(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_ids_may_be_of_any_width_or_encoding(dtype: Any, tmp_path: Path) -> None:
    plain = [3, 4, 3] if pa.types.is_integer(dtype) else ["x", "y", "x"]
    found = whole_edges(edges(tmp_path, {"src": pa.array(plain).cast(dtype), "dst": pa.array(plain)}).edges[0])
    assert found.src.tolist() == plain


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_time_weight_and_features_travel_along(kind: str, tmp_path: Path) -> None:
    columns = EDGES | {
        "when": [30, 10, 20],
        "w": [0.5, 1.5, 2.5],
        "f1": [1, 2, 3],
        "f2": [0.1, 0.2, 0.3],
        "note": [1, 2, 3],
    }
    source = edges(tmp_path, columns, kind, time="when", weight="w", edge_features=("f*",))
    found = whole_edges(source.edges[0])
    assert values(found.timestamp) == [30, 10, 20]
    assert values(found.weight) == [0.5, 1.5, 2.5]
    np.testing.assert_allclose(values(found.edge_attr), [[1, 0.1], [2, 0.2], [3, 0.3]])
    assert source.ignored == (f"edges.{kind}: column note (not used)",)


def test_dates_become_counts_of_their_unit(tmp_path: Path) -> None:
    days = pa.array([1, 2, 3], pa.int32()).cast(pa.date32())
    times = pa.array([1_000, 2_000, 3_000]).cast(pa.timestamp("ms"))
    found = whole_edges(edges(tmp_path, EDGES | {"t": times}, time="t").edges[0])
    assert values(found.timestamp) == [1_000, 2_000, 3_000]
    assert values(whole_edges(edges(tmp_path, EDGES | {"t": days}, time="t").edges[0]).timestamp) == [1, 2, 3]


@pytest.mark.parametrize("dtype", [pa.list_(pa.float32(), 2), pa.list_(pa.float64()), pa.large_list(pa.int32())])
def test_features_may_be_one_column_of_lists(dtype: Any, tmp_path: Path) -> None:
    column = pa.array([[1, 2], [3, 4], [5, 6]], dtype)
    assert values(nodes(tmp_path, {"h": column}, features=("h",)).x) == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_string_labels_become_sorted_classes(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"nodes.{kind}", NODES | {"topic": ["zoo", "art", "zoo"]})
    source = open_tables(write(tmp_path / f"edges.{kind}", EDGES), path, SourceSpec(label="topic"))
    assert source.nodes[0].classes == ("art", "zoo")
    assert values(whole_nodes(source.nodes[0]).y) == [1, 0, 1]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([2, None, 0]), [2, -1, 0]),
        (pa.array(["b", None, "a"]), [1, -1, 0]),
        (pa.array([True, False, True]), [1, 0, 1]),
        (pa.array([0.5, 1.5, 2.5]), [0.5, 1.5, 2.5]),
        (pa.array([[0, 1], [1, 1], [0, 0]]), [[0, 1], [1, 1], [0, 0]]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), [1, 0, 1]),
    ],
)
def test_labels_are_classes_sets_or_values(column: Any, expected: list[Any], tmp_path: Path) -> None:
    assert values(nodes(tmp_path, {"label": column}, label="label").y) == expected


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("words", "codes"),
    [(["train", "Validation", "test"], [1, 2, 3]), ([0, 3, 1], [0, 3, 1]), (["valid", "", "val "], [2, 0, 2])],
)
def test_splits_are_words_or_codes(words: list[Any], codes: list[int], kind: str, tmp_path: Path) -> None:
    assert values(nodes(tmp_path, {"part": words}, kind, split="part").split) == codes


def test_the_files_of_a_folder_follow_each_other_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "edges"
    folder.mkdir()
    for part in (1, 0, 2):
        write(folder / f"part-{part}.parquet", {"src": [part], "dst": [part + 10]})
    (folder / "README.txt").write_text("not a table")
    source = open_source(folder, SourceSpec())
    assert whole_edges(source.edges[0]).src.tolist() == [0, 1, 2]
    assert len(source.files) == 3


def test_compressed_and_tab_separated_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"src,dst\n4,5\n"))
    (tmp_path / "b.tsv").write_text("src\tdst\n4\t5\n")
    for name in ("a.csv.gz", "b.tsv"):
        assert whole_edges(open_source(tmp_path / name, SourceSpec()).edges[0]).dst.tolist() == [5]


def test_tables_can_be_read_again_and_come_in_small_chunks(tmp_path: Path) -> None:
    many = np.arange(600_000)
    source = edges(tmp_path, {"src": many, "dst": many[::-1].copy()})
    chunks = list(source.edges[0].chunks())
    assert source.edges[0].num_edges == 600_000
    assert max(chunk.num_rows for chunk in chunks) <= 1 << 18
    np.testing.assert_array_equal(np.concatenate([chunk.src for chunk in source.edges[0].chunks()]), many)


def test_long_lists_come_few_at_a_time(tmp_path: Path) -> None:
    wide = pa.array([np.full(20_000, row, np.float32) for row in range(300)])
    path = write(tmp_path / "nodes.parquet", {"id": np.arange(300), "h": wide})
    source = open_tables(write(tmp_path / "edges.parquet", EDGES), path, SourceSpec(features=("h",)))
    chunks = list(source.nodes[0].chunks())
    assert max(chunk.num_rows for chunk in chunks) <= 4 * (1 << 20) // 80_000
    assert sum(chunk.num_rows for chunk in chunks) == 300


def test_quoted_values_may_hold_line_breaks(tmp_path: Path) -> None:
    text = "src,note,dst\n" + '1,"two\nlines, and a comma",2\n' * 100_000
    (tmp_path / "edges.csv").write_text(text)
    found = whole_edges(open_source(tmp_path / "edges.csv", SourceSpec()).edges[0])
    assert found.dst.tolist() == [2] * 100_000


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"a": [1], "b": [2]}, {}, "edges.parquet has no column 'src' for sources; it has a, b"),
        (EDGES, {"time": "t"}, "no column 't' for times"),
        (EDGES, {"edge_features": ("g*",)}, r"no column 'g\*' for edge features"),
        (EDGES, {"label": "y"}, "--label names a column of the node file"),
        ({"src": [1, None], "dst": [2, 3]}, {}, "column 'src' of edges.parquet row 1 is missing"),
        ({"src": ["a", ""], "dst": ["b", "c"]}, {}, "column 'src' of edges.parquet row 1 is empty"),
        ({"src": [1.5], "dst": [2.0]}, {}, "column 'src' holds double; expected ids"),
        ({"src": np.array([2**63], np.uint64), "dst": [1]}, {}, "beyond 64 bits"),
        (EDGES | {"w": ["a", "b", "c"]}, {"weight": "w"}, "column 'w' near edges.parquet row 0 holds string"),
        (EDGES | {"h": [[1], [1, 2], [1]]}, {"edge_features": ("h",)}, "row 1 holds 2 values where row one holds 1"),
        (EDGES | {"h": [[1], [None], [1]]}, {"edge_features": ("h",)}, "'h' of edges.parquet row 1, position 0 is"),
        ({"src": pa.array([], pa.int64()), "dst": pa.array([], pa.int64())}, {}, "edges.parquet has no rows"),
    ],
)
def test_edge_columns_that_cannot_be_used_are_refused_by_name_and_row(
    columns: dict[str, Any], names: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        whole_edges(edges(tmp_path, columns, **names).edges[0])


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"x": [1.0, 2.0, None]}, {"features": ("x",)}, "column 'x' of nodes.parquet row 2 is missing"),
        ({"x": ["a", "b", "c"]}, {"features": ("x",)}, "column 'x' near nodes.parquet row 0 holds string"),
        ({"s": ["train", "tset", "val"]}, {"split": "s"}, "column 's' of nodes.parquet row 1 is 'tset'"),
        ({"s": [0, 1, 4]}, {"split": "s"}, "column 's' of nodes.parquet row 2 is '4'"),
        ({"s": [0.0, 1.0, 1.0]}, {"split": "s"}, "column 's' holds double"),
        ({}, {"id": "name"}, "nodes.parquet has no column 'name' for node ids; it has id"),
    ],
)
def test_node_columns_that_cannot_be_used_are_refused_by_name_and_row(
    columns: dict[str, Any], names: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        nodes(tmp_path, columns, **names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("edges.csv", b"", "edges.csv is empty"),
        ("edges.parquet", b"", "edges.parquet is empty"),
        ("edges.parquet", b"PAR1 nonsense", "edges.parquet cannot be read"),
        ("edges.csv", b"src,dst\n", "edges.csv has no rows"),
        ("edges.csv", b"src,dst\n1,2\n3\n", "Expected 2 columns, got 1"),
        ("edges.csv", b"src,src\n1,2\n", "has the column 'src' twice"),
        ("edges.csv", b"\xff\xfe,dst\n1,2\n", "cannot be read"),
        ("edges.txt", b"1 2\n", "is of no kind that can be imported; expected a file ending in .npz"),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        whole_edges(open_source(tmp_path / name, SourceSpec()).edges[0])


def test_a_csv_value_of_another_type_is_named_with_its_column(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("note,src,dst,w\n" + "x,1,2,0.5\n" * 200_000 + "x,1,2,heavy\n")
    source = open_source(tmp_path / "edges.csv", SourceSpec(weight="w"))
    with pytest.raises(InputError, match="column 'w' holds 'heavy' where double is expected"):
        whole_edges(source.edges[0])


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "edges.parquet", {"src": np.arange(100_000), "dst": np.arange(100_000)})
    raw = bytearray(path.read_bytes())
    raw[2000:2400] = bytes(400)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"edges\.parquet cannot be read"):
        whole_edges(open_source(path, SourceSpec()).edges[0])


def test_a_later_file_without_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", EDGES)
    write(tmp_path / "b.parquet", {"src": [1]})
    with pytest.raises(InputError, match=r"b\.parquet has no column 'dst', unlike the files before it; it has src"):
        whole_edges(open_source(tmp_path, SourceSpec()).edges[0])


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"cannot read .*nothing\.parquet: no such file"):
        open_source(tmp_path / "nothing.parquet", SourceSpec())
