"""The public test graphs import as their description says."""

from pathlib import Path
from typing import Any

import pytest
from helpers.graphs import MEMORY
from helpers.public_data import public_graph

from graphsys.core.errors import GraphsysError
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.storage.store import Store

GRAPHS: dict[str, dict[str, Any]] = {
    "cora": {"num_nodes": 2708, "num_features": 1433, "label_kind": "class", "num_classes": 7, "edges": 10556},
    "cora_ml": {"num_nodes": 2995, "num_features": 2879, "label_kind": "class", "num_classes": 7, "edges": 16316},
    "minesweeper": {"num_nodes": 10_000, "num_features": 7, "label_kind": "class", "num_classes": 2, "edges": 78_804},
    "blogcatalog": {
        "num_nodes": 10_312,
        "num_features": 0,
        "label_kind": "multilabel",
        "num_classes": 39,
        "edges": 667_966,
    },
    "uci": {"num_nodes": 1899, "num_features": 0, "label_kind": "none", "num_classes": 0, "edges": 59_835},
    "wikipedia": {"num_nodes": 9227, "num_features": 0, "label_kind": "none", "num_classes": 0, "edges": 157_474},
    "bitcoin_otc": {"num_nodes": 5881, "num_features": 0, "label_kind": "none", "num_classes": 0, "edges": 35_592},
}

pytestmark = pytest.mark.data


@pytest.mark.parametrize("name", GRAPHS)
def test_a_public_graph_has_the_published_counts(name: str, tmp_path: Path) -> None:
    source = open_source(public_graph(f"{name}.npz"), SourceSpec())
    import_graph(source, tmp_path / "out.gs", ImportOptions(memory=MEMORY))
    store = Store.open(tmp_path / "out.gs")
    expected = dict(GRAPHS[name])
    (edge_info,) = store.edge_types.values()
    assert edge_info["num_edges"] == expected.pop("edges")
    assert edge_info["has_timestamp"] == (name in ("uci", "wikipedia", "bitcoin_otc"))
    info = store.node_type()
    assert {key: getattr(info, key) for key in expected} == expected


def test_cora_has_the_public_split_and_both_directions(tmp_path: Path) -> None:
    summary = import_graph(
        open_source(public_graph("cora.npz"), SourceSpec()),
        tmp_path / "c.gs",
        ImportOptions(memory=MEMORY, undirected=True),
    )
    assert summary.nodes["node"]["split"] == {"train": 140, "val": 500, "test": 1000}
    assert summary.edges["node__to__node"]["reverse_edges_added"] == 0
    assert Store.open(tmp_path / "c.gs").split("node", "train").tolist() == list(range(140))


@pytest.mark.parametrize("name", ["gowalla", "ogbl_ddi", "mutag", "proteins"])
def test_a_file_for_another_task_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(GraphsysError, match=r"has no edges: expected|outside"):
        import_graph(
            open_source(public_graph(f"{name}.npz"), SourceSpec()), tmp_path / "o.gs", ImportOptions(memory=MEMORY)
        )
    assert list(tmp_path.iterdir()) == []
