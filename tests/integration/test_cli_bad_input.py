"""Bad input gets one clear sentence, exit code 2, no traceback, and nothing half-written."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.refusals import assert_refused, snapshot
from torch_geometric.data import HeteroData

from graphsys.cli.main import main

NUM_NODES = 60


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Return a small graph that imports and trains, with some arrays replaced."""
    node = np.arange(NUM_NODES)
    edge_index = np.stack([np.repeat(node, 3), (np.repeat(node, 3) + np.tile([1, 2, 3], NUM_NODES)) % NUM_NODES])
    x = (node[:, None] + np.arange(4) / 8).astype(np.float32)
    graph = {"edge_index": edge_index, "x": x, "y": node % 3}
    graph |= {"train": node[:30], "val": node[30:45], "test": node[45:]}
    return graph | changes


def npz(folder: Path, **changes: np.ndarray) -> Path:
    path = folder / "graph.npz"
    np.savez(path, allow_pickle=False, **arrays(**changes))
    return path


def changed(name: str, place: int | tuple[int, int], value: float) -> dict[str, np.ndarray]:
    array = arrays()[name].copy()
    array[place] = value
    return {name: array}


def import_argv(source: Path, *more: str) -> list[str]:
    return ["import", str(source), "--out", str(source.parent / "out.gs"), "--memory", "64MiB", "--quiet", *more]


# Each builds its input below a folder and returns the arguments of a command.
Build = Callable[[Path], list[str]]


def bad_array(name: str, place: int | tuple[int, int], value: float) -> Build:
    return lambda folder: import_argv(npz(folder, **changed(name, place, value)))


def replaced(**changes: np.ndarray) -> Build:
    return lambda folder: import_argv(npz(folder, **changes))


def without(name: str) -> Build:
    def build(folder: Path) -> list[str]:
        graph = {key: value for key, value in arrays().items() if key != name}
        np.savez(folder / "graph.npz", allow_pickle=False, **graph)
        return import_argv(folder / "graph.npz")

    return build


def tables(folder: Path, *, src: str = "src", ids: list[int] | None = None, weight: str = "1.5") -> list[str]:
    edges = folder / "edges.csv"
    edges.write_text(f"{src},dst,weight\n" + "".join(f"{i},{i + 1},{weight}\n" for i in range(5)))
    nodes = folder / "nodes.csv"
    nodes.write_text("id,label\n" + "".join(f"{i},{i % 2}\n" for i in ids or range(6)))
    return import_argv(edges, "--edges", str(edges), "--nodes", str(nodes), "--label", "label")


def empty(name: str) -> Build:
    def build(folder: Path) -> list[str]:
        (folder / name).write_bytes(b"")
        return import_argv(folder / name)

    return build


def truncated_npz(folder: Path) -> list[str]:
    path = npz(folder)
    path.write_bytes(path.read_bytes()[:-200])
    return import_argv(path)


def truncated_parquet(folder: Path) -> list[str]:
    path = folder / "edges.parquet"
    pq.write_table(pa.table({"src": [0, 1, 2], "dst": [1, 2, 0]}), path)
    path.write_bytes(path.read_bytes()[:-5])
    return import_argv(path)


def text_as_edges(folder: Path) -> list[str]:
    path = folder / "edges.csv"
    path.write_text("src,dst\n0,1\n1,2,3\n")
    return import_argv(path)


def sparse(**changes: np.ndarray) -> Build:
    """Import features in four sparse parts, some of them replaced."""
    parts: dict[str, np.ndarray] = {
        "x_indptr": np.arange(NUM_NODES + 1),
        "x_indices": np.zeros(NUM_NODES, np.int64),
        "x_data": np.ones(NUM_NODES, np.float32),
        "x_shape": np.array([NUM_NODES, 4]),
    }

    def build(folder: Path) -> list[str]:
        dense = {name: array for name, array in arrays().items() if name != "x"}
        graph: dict[str, np.ndarray] = {**dense, **parts, **changes}
        np.savez(folder / "graph.npz", allow_pickle=False, **graph)
        return import_argv(folder / "graph.npz")

    return build


def too_many_nodes(folder: Path) -> list[str]:
    edge_index = arrays()["edge_index"]
    np.savez(folder / "graph.npz", allow_pickle=False, edge_index=edge_index, num_nodes=np.array(10**16))
    return import_argv(folder / "graph.npz")


def pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "graph.pt")
    return import_argv(folder / "graph.pt")


def no_graph_inside(folder: Path) -> list[str]:
    torch.save(HeteroData(), folder / "graph.pt")
    return import_argv(folder / "graph.pt")


BEYOND_63_BITS = np.append(np.arange(NUM_NODES), [2**63 + 7]).astype(np.uint64)
NAN, INF = float("nan"), float("inf")
IMPORTS: dict[str, tuple[Build, tuple[str, ...]]] = {
    "missing column": (lambda folder: tables(folder, src="source"), ("edges.csv", "'src'", "source")),
    "missing label column": (lambda folder: [*tables(folder), "--label", "class"], ("nodes.csv", "'class'", "label")),
    "missing weight column": (lambda folder: [*tables(folder), "--weight", "w"], ("edges.csv", "'w'", "weight")),
    "text where numbers belong": (
        lambda folder: [*tables(folder, weight="heavy"), "--weight", "weight"],
        ("weight", "edges.csv"),
    ),
    "duplicate node id": (lambda folder: tables(folder, ids=[0, 1, 2, 3, 4, 4]), ("4", "twice")),
    "edge to an unknown node": (lambda folder: tables(folder, ids=[0, 1, 2, 3, 4]), ("5", "edge")),
    "NaN in the features": (bad_array("x", (7, 2), NAN), ("NaN", "7", "2")),
    "infinite features": (bad_array("x", (8, 1), INF), ("infinite", "8", "1")),
    "too few labels": (replaced(y=np.arange(NUM_NODES - 1) % 3), ("y", str(NUM_NODES - 1), str(NUM_NODES))),
    "features of too many nodes": (replaced(x=np.ones((NUM_NODES + 1, 4), np.float32)), (str(NUM_NODES + 1),)),
    "edge endpoint too large": (bad_array("edge_index", (0, 5), NUM_NODES), (str(NUM_NODES), "edge")),
    "edge endpoint negative": (bad_array("edge_index", (1, 6), -1), ("-1", "edge")),
    "edges of three rows": (replaced(edge_index=np.zeros((3, 9), np.int64)), ("edge_index", "3")),
    "edges that are not whole numbers": (replaced(edge_index=np.full((2, 9), 0.5)), ("edge_index", "0.5")),
    "label below zero": (bad_array("y", 3, -7), ("-7", "label")),
    "label far out of range": (bad_array("y", 3, 10**9), (str(10**9), "label")),
    "split of an unknown node": (bad_array("train", 3, NUM_NODES), ("train", str(NUM_NODES))),
    "node in two splits": (bad_array("train", 3, 31), ("31", "train", "val")),
    "split without labels": (without("y"), ("splits", "labels")),
    "sparse offsets in a table": (sparse(x_indptr=np.arange(NUM_NODES + 1)[:, None]), ("x_indptr", "[61, 1]")),
    "sparse values in a table": (sparse(x_data=np.ones((NUM_NODES, 1))), ("x_data", "[60, 1]")),
    "sparse offsets beyond 63 bits": (sparse(x_indptr=BEYOND_63_BITS), ("x_indptr", "row 59")),
    "number of nodes that is text": (replaced(num_nodes=np.array("many")), ("num_nodes", "whole number")),
    "number of nodes below zero": (replaced(num_nodes=np.array(-3)), ("num_nodes", "-3")),
    "more nodes than the disk holds": (too_many_nodes, ("10,000,000,000,000,000", "free")),
    "more nodes than memory holds": (bad_array("train", 3, 2**62), ("4611686018427387904",)),
    "pipe": (pipe, ("graph.pt", "regular file")),
    "no nodes, no edges": (no_graph_inside, ("neither nodes nor edges",)),
    "empty npz": (empty("graph.npz"), ("graph.npz",)),
    "empty csv": (empty("edges.csv"), ("edges.csv",)),
    "empty parquet": (empty("edges.parquet"), ("edges.parquet",)),
    "truncated npz": (truncated_npz, ("graph.npz",)),
    "truncated parquet": (truncated_parquet, ("edges.parquet",)),
    "ragged csv": (text_as_edges, ("edges.csv",)),
    "missing file": (lambda folder: import_argv(folder / "nowhere.npz"), ("nowhere.npz",)),
    "unknown kind of file": (empty("graph.xyz"), ("graph.xyz",)),
    "memory too small": (lambda folder: [*import_argv(npz(folder)), "--memory", "1MiB"], ("1.00 MiB", "64MiB")),
    "memory without a unit that is known": (
        lambda folder: [*import_argv(npz(folder)), "--memory", "1parsec"],
        ("parsec",),
    ),
}


@pytest.mark.parametrize(("build", "names"), IMPORTS.values(), ids=IMPORTS)
def test_an_import_that_cannot_work_is_refused_whole(
    build: Build, names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(build(tmp_path), names=names, work=tmp_path, capsys=capsys)


def test_an_import_over_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out.gs").mkdir()
    (tmp_path / "out.gs" / "thesis.txt").write_text("years of work")
    assert_refused(import_argv(npz(tmp_path)), names=("out.gs",), work=tmp_path, capsys=capsys)


def test_overwrite_replaces_only_what_the_command_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/thesis.txt").write_text("years of work")
    (tmp_path / "docs/manifest.json").write_text('{"name": "of another program"}')
    source = npz(tmp_path)
    for argv in (
        ["import", str(source), "--quiet"],
        ["generate", "--nodes=9", "--edges=9", "--classes=2", "--quiet"],
    ):
        full = [*argv, f"--out={tmp_path / 'docs'}", "--overwrite"]
        assert_refused(full, names=("docs", "--overwrite replaces"), work=tmp_path, capsys=capsys)


def test_nothing_is_written_into_an_artefact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = npz(tmp_path)
    assert main(import_argv(source)) == 0
    before = snapshot(tmp_path)
    for argv in (
        ["import", str(source), "--quiet"],
        ["generate", "--nodes=9", "--edges=9", "--classes=2", "--quiet"],
    ):
        full = [*argv, f"--out={tmp_path / 'out.gs' / 'nodes' / 'more'}"]
        assert_refused(full, names=("out.gs", "artefact"), work=tmp_path, capsys=capsys)
    assert snapshot(tmp_path) == before
