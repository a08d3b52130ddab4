"""Dense ids for tables and for edges, with so little memory that everything is spilled."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graphsys.core.errors import InputError, MemoryBudgetError, NodeIdError
from graphsys.storage.distinct_integers import distinct_integers
from graphsys.storage.distinct_texts import distinct_texts
from graphsys.storage.id_assign import TableIds, ids_of_edges
from graphsys.storage.id_space import NodeIdSpace

KIB = 1 << 10
ROOMY = 8 << 20


def assign(folder: Path, ids: Any, memory: int = ROOMY) -> NodeIdSpace:
    table = TableIds(folder, folder / "spill", "paper", memory)
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        table.add(part, len(part))
    return table.close()


def chunked(ids: Any, size: int = 700) -> Callable[[], Iterator[Any]]:
    return lambda: (ids[start : start + size] for start in range(0, len(ids), size))


@pytest.mark.parametrize("memory", [8 * KIB, ROOMY])
@pytest.mark.parametrize("kind", ["integer", "string"])
def test_the_rows_of_a_table_find_themselves_through_their_ids(kind: str, memory: int, tmp_path: Path) -> None:
    integers = np.random.default_rng(0).choice(10**15, 20_000, replace=False) - 10**14
    ids = pa.array(integers).cast(pa.string()) if kind == "string" else integers
    space = assign(tmp_path, ids, memory)
    lookup = space.open_lookup(memory)
    assert (space.kind, space.num_nodes) == (kind, 20_000)
    assert lookup.to_node(ids).tolist() == list(range(20_000))
    assert space.shown(7) == (f"'{integers[7]}'" if kind == "string" else str(integers[7]))


def test_row_numbers_need_no_map(tmp_path: Path) -> None:
    space = assign(tmp_path, np.arange(5000))
    assert (space.kind, space.arrays) == ("identity", {})
    assert not (tmp_path / "id_map" / "paper").exists()
    assert space.open_lookup(0).to_node(np.array([0, 4999, 5000, -1])).tolist() == [0, 4999, -1, -1]


def test_ascending_ids_are_looked_up_by_counting_bits(tmp_path: Path) -> None:
    ids = np.flatnonzero(np.random.default_rng(0).random(100_000) < 0.3) - 500
    space = assign(tmp_path, ids)
    lookup = space.open_lookup(ROOMY)
    assert list(space.arrays) == ["id_map/paper/ids"]
    assert lookup.index is not None
    asked = np.arange(-2000, 102_000)
    expected = np.where(np.isin(asked, ids), np.searchsorted(ids, asked), -1)
    np.testing.assert_array_equal(lookup.to_node(asked), expected)


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_an_id_given_twice_far_apart_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    ids: Any = np.arange(9000, 0, -1)
    ids[8999] = 777
    with pytest.raises(NodeIdError, match=r"node id '?777'? is given twice"):
        assign(tmp_path, pa.array(ids).cast(pa.string()) if kind == "string" else ids, 8 * KIB)


def test_a_table_with_integers_and_strings_is_refused(tmp_path: Path) -> None:
    table = TableIds(tmp_path, tmp_path / "spill", "paper", ROOMY)
    table.add(pa.array([1, 2]), 2)
    with pytest.raises(InputError, match="node type 'paper': some ids are integers and some are strings"):
        table.add(pa.array(["a"]), 1)
    table.abort()


@pytest.mark.parametrize("memory", [4 * KIB, 64 * KIB, ROOMY])
@pytest.mark.parametrize("low", [0, 3, -5, 10**12])
def test_distinct_integers_ascend_whatever_the_budget(low: int, memory: int, tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(0, 30_000, 50_000) + low
    found = np.concatenate(list(distinct_integers(chunked(ids), tmp_path / "spill", memory)))
    np.testing.assert_array_equal(found, sorted(set(ids.tolist())))


def test_the_ids_of_edges_number_themselves_in_ascending_order(tmp_path: Path) -> None:
    space = ids_of_edges(tmp_path, tmp_path / "spill", "user", chunked(pa.array([7, 3, 7, 12])), ROOMY)
    assert (space.kind, space.num_nodes) == ("integer", 3)
    assert space.open_lookup(ROOMY).to_node(pa.array([3, 7, 12, 8])).tolist() == [0, 1, 2, -1]


def test_the_ids_of_edges_that_fill_a_range_from_zero_need_no_map(tmp_path: Path) -> None:
    space = ids_of_edges(tmp_path, tmp_path / "spill", "user", chunked(np.array([2, 0, 1, 1])), ROOMY)
    assert (space.kind, space.num_nodes, space.arrays) == ("identity", 3, {})


@pytest.mark.parametrize("memory", [24 * KIB, 300 * KIB])
def test_distinct_strings_do_not_depend_on_the_budget(memory: int, tmp_path: Path) -> None:
    numbers = np.random.default_rng(2).integers(0, 20_000, 60_000)
    texts = pa.array([f"user/{number:x}" for number in numbers], pa.large_string())

    def collect(budget: int) -> tuple[list[int], list[str]]:
        blocks = list(distinct_texts(chunked(texts)(), tmp_path / str(budget), budget))
        return [int(h) for hashes, _ in blocks for h in hashes], [t for _, part in blocks for t in part.to_pylist()]

    hashes, found = collect(memory)
    assert (hashes, found) == collect(ROOMY)
    assert hashes == sorted(hashes)
    assert sorted(found) == sorted(set(texts.to_pylist()))
    assert not any((tmp_path / str(memory)).iterdir())


def test_strings_of_edges_are_found_again(tmp_path: Path) -> None:
    texts = pa.array([f"n{number % 500}" for number in range(3000)])
    space = ids_of_edges(tmp_path, tmp_path / "spill", "user", chunked(texts), 64 * KIB)
    node = space.open_lookup(ROOMY).to_node(texts)
    assert (space.kind, space.num_nodes) == ("string", 500)
    assert space.id_map.to_external(node) == texts.to_pylist()
    assert set(node.tolist()) == set(range(500))


def test_a_string_larger_than_the_budget_is_refused(tmp_path: Path) -> None:
    texts = pa.array(["a", "b" * 100_000], pa.large_string())
    with pytest.raises(MemoryBudgetError, match="string of 100000 characters"):
        list(distinct_texts(iter([texts]), tmp_path / "spill", 64 * KIB))


def test_edges_that_name_strings_where_nodes_have_integers_are_refused(tmp_path: Path) -> None:
    lookup = assign(tmp_path, np.array([5, 9])).open_lookup(ROOMY)
    with pytest.raises(InputError, match="by strings, but its ids are integers"):
        lookup.to_node(pa.array(["5"]))
