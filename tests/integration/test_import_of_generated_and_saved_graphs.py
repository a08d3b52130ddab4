"""What generate, PyG and DGL write becomes a store by the command line, and holds what was written."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.generated import generated_arrays
from torch_geometric.data import Data

from graphsys.cli.main import main
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.store import Store

EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
X = torch.arange(8.0).reshape(4, 2)


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


def test_a_generated_graph_is_imported_as_it_was_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, store_path = tmp_path / "raw", tmp_path / "g.gs"
    made = run(["generate", "--nodes=500", "--edges=3000", "--features=4", "--classes=3", f"--out={raw}"], capsys)
    assert (made["nodes"], made["edges"]) == (500, 3000)
    summary = run(["import", str(raw), f"--out={store_path}", "--memory=64MiB"], capsys)
    expected = generated_arrays(GenerateSpec(nodes=500, edges=3000, features=4, classes=3))
    store = Store.open(store_path)
    topology = store.topology(("node", "to", "node"), in_memory=True)
    dst = np.repeat(np.arange(500), np.diff(topology.indptr))
    order = np.lexsort((expected.src, expected.dst))
    np.testing.assert_array_equal(dst, expected.dst[order])
    np.testing.assert_array_equal(topology.indices, expected.src[order])
    np.testing.assert_array_equal(store.features("node").read(), expected.x)
    np.testing.assert_array_equal(store.labels("node"), expected.y)
    np.testing.assert_array_equal(store.split("node", "test"), np.flatnonzero(expected.split == 3))
    assert summary["skipped"] is False
    assert run(["import", str(raw), f"--out={store_path}", "--memory=64MiB"], capsys)["skipped"] is True


def test_saved_pyg_and_dgl_graphs_are_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Data(x=X, edge_index=EDGES), tmp_path / "graph.pt")
    files = [tmp_path / "graph.pt"]
    os.environ.setdefault("DGLBACKEND", "pytorch")
    dgl = pytest.importorskip("dgl")
    graph = dgl.graph((EDGES[0], EDGES[1]))
    graph.ndata["feat"] = X
    dgl.save_graphs(str(tmp_path / "graph.bin"), [graph])
    for path in [*files, tmp_path / "graph.bin"]:
        out = path.with_suffix(f"{path.suffix}.gs")
        run(["import", str(path), f"--out={out}", "--memory=64MiB"], capsys)
        store = Store.open(out)
        np.testing.assert_array_equal(store.features("node").read(), X)
        np.testing.assert_array_equal(store.topology(("node", "to", "node")).indices, [3, 0, 1, 2])


def test_a_damaged_saved_graph_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "graph.pt").write_bytes(b"not a graph")
    assert main(["import", str(tmp_path / "graph.pt"), f"--out={tmp_path / 'g.gs'}"]) == 2
    assert "is truncated or not a file of torch.save" in capsys.readouterr().err
    assert not (tmp_path / "g.gs").exists()
