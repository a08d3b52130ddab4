"""External ids to dense ids and back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from graphsys.core.errors import InputError, NodeIdError
from graphsys.storage.id_map import ExternalIds, IdMap

CASES: dict[str, tuple[ExternalIds, str]] = {
    "row numbers": (np.arange(5), "identity"),
    "ascending": (np.array([3, 5, 900, 10**15]), "integer"),
    "in any order": (np.array([7, -2, 10**18, 0, 5]), "integer"),
    "strings": (pa.array(["b", "a", "Zürich", "a much longer name than eight bytes", "x" * 500]), "string"),
}


@pytest.mark.parametrize(("ids", "kind"), CASES.values(), ids=CASES)
def test_every_id_goes_to_its_row_and_back(ids: ExternalIds, kind: str, tmp_path: Path) -> None:
    made = IdMap.from_ids(ids)
    specs = made.write(tmp_path, "id_map/node")
    for id_map in (made, IdMap.read(made.kind, len(ids), tmp_path, "id_map/node", specs)):
        node, found = id_map.to_node(ids)
        assert id_map.kind == kind
        assert found.all()
        assert node.tolist() == list(range(len(ids)))
        assert id_map.to_external(node[::-1]) == ids.tolist()[::-1]


@pytest.mark.parametrize(("ids", "kind"), CASES.values(), ids=CASES)
def test_unknown_ids_are_marked(ids: ExternalIds, kind: str) -> None:
    strange: ExternalIds = ["unknown", ids[1].as_py()] if kind == "string" else np.array([4242, int(ids[1])])
    node, found = IdMap.from_ids(ids).to_node(strange)
    assert node.tolist() == [-1, 1]
    assert found.tolist() == [False, True]


def test_integers_may_be_asked_for_as_text() -> None:
    node, found = IdMap.from_ids(np.array([-1, 17, 5])).to_node(["17", "-1", "x", "1.5", "", "9" * 30])
    assert node.tolist() == [1, 0, -1, -1, -1, -1]
    assert found.tolist() == [True, True, False, False, False, False]


def test_long_integers_may_be_asked_for_as_text_but_only_in_the_digits_that_they_are_written_in() -> None:
    ids = np.array([2**63 - 1, -(2**63), 3])
    node, _ = IdMap.from_ids(ids).to_node([str(2**63 - 1), str(-(2**63)), str(2**63), "\u0663", "3"])
    assert node.tolist() == [0, 1, -1, -1, 2]


def test_ascending_ids_take_one_array_and_others_three(tmp_path: Path) -> None:
    assert list(IdMap.from_ids([2, 4, 9]).write(tmp_path, "a")) == ["a/ids"]
    assert set(IdMap.from_ids([4, 2, 9]).write(tmp_path, "b")) == {"b/ids", "b/sorted_ids", "b/order"}


@pytest.mark.parametrize("ids", [[4, 1, 4], ["x", "y", "x"]])
def test_an_id_given_twice_is_refused_by_name(ids: list[int] | list[str]) -> None:
    with pytest.raises(NodeIdError, match=f"node id '?{ids[0]}'? is given twice"):
        IdMap.from_ids(ids)


@pytest.mark.parametrize("ids", [pa.array([1, None]), pa.array(["a", None]), pa.array([1.5])])
def test_ids_that_are_missing_or_of_another_kind_are_refused(ids: ExternalIds) -> None:
    with pytest.raises(InputError):
        IdMap.from_ids(ids)


def test_slices_of_arrow_arrays_are_read_from_where_they_begin() -> None:
    texts = pa.array(["skipped", "a", "b", "skipped too"]).slice(1, 2)
    id_map = IdMap.from_ids(texts)
    assert id_map.to_external(np.array([0, 1])) == ["a", "b"]
    assert id_map.to_node(texts)[0].tolist() == [0, 1]


def test_names_may_be_asked_for_as_integers_in_an_arrow_array() -> None:
    ids = IdMap.from_ids(["17", "x"])
    assert ids.to_node(pa.array([17, 18]))[0].tolist() == [0, -1]
    with pytest.raises(InputError, match="ids are of type double"):
        ids.to_node(pa.array([17.0]))
