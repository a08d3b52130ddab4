"""Every benchmark runs on a tiny graph and gives one line with all fields."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers.cli_runs import answer
from helpers.graphs import tiny_store

from graphsys.bench.registry import BENCHES
from graphsys.cli.main import main
from graphsys.storage.store import Store
from peers.common import StoreArrays

FIELDS = {
    "name", "value", "unit", "spread", "peers", "missing", "ratio", "limit", "of_limit", "machine", "commit", "config",
    "details", "peak_memory_bytes",
}  # fmt: skip
SHAPE = ["--fanouts=4,3", "--batch-size=64", "--memory=256MiB", "--rounds=1"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph") / "raw"
    size = ["--nodes=600", "--edges=4000", "--features=8", "--classes=3"]
    assert main(["generate", *size, f"--out={folder}", "--quiet"]) == 0
    return folder


def bench(name: str, raw: Path, *options: str) -> list[str]:
    return ["bench", name, f"--graph={raw}", f"--work={raw.parent / 'work'}", "--quiet", *SHAPE, *options]


@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_gives_one_line_with_all_fields_and_leaves_no_results(
    name: str, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = answer(bench(name, raw, "--no-peers"), capsys)
    assert set(line) >= FIELDS
    assert line["name"] == name
    assert line["spread"][0] <= line["value"] <= line["spread"][1]
    assert line["missing"] == [peer.name for peer in BENCHES[name].peers]
    assert line["ratio"] is None
    assert (line["limit"] is None) == (name == "plan")
    assert line["peak_memory_bytes"]
    assert line["config"]["nodes"] == 600
    assert [path.suffix for path in (raw.parent / "work").iterdir()] == [".gs"]


def test_the_loader_reads_no_row_more_than_it_must(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = answer(bench("loader", raw, "--no-peers"), capsys)["details"]
    assert 0 < details["rows_read_per_epoch"] < details["rows_per_epoch"]
    assert details["rows_over_belady"] == pytest.approx(1.0, abs=0.02)
    fresh = details["fresh"]
    assert fresh["batches"] % fresh["epochs"] == 0 < fresh["batches"]
    assert fresh["seconds"] > sum(fresh["waits_s"].values())


def test_an_installed_peer_is_measured_and_one_that_is_not_is_named(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = answer(bench("step", raw, f"--envs={tmp_path}", "--peer-seconds=0.05"), capsys)
    assert line["missing"] == ([] if find_spec("dgl") else ["DGL"])
    assert line["ratios"]["PyG"] == pytest.approx(line["peers"]["PyG"] / line["value"])
    assert line["ratio"] == min(line["ratios"].values())


@pytest.mark.skipif(find_spec("dgl") is None, reason="DGL is not installed")
def test_a_peer_without_its_environment_is_named(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = answer(bench("sampler", raw, f"--envs={tmp_path}", "--peer-seconds=0.05"), capsys)
    assert line["missing"] == ["PyG", "GraphBolt"]
    assert line["peers"]["DGL"] > 0


def test_people_get_a_table(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(bench("sampler", raw, "--no-peers")) == 0
    shown = capsys.readouterr().out
    assert "edges/s" in shown
    assert "Missing peers: PyG, DGL, GraphBolt" in shown


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["nothing"], "nothing"),
        (["sampler", "--size=huge"], "huge"),
        (["sampler", "--fanouts=3,x"], "--fanouts 3,x"),
        (["sampler", "--fanouts=3,0"], "--fanouts is 0"),
        (["sampler", "--rounds=0"], "--rounds is 0"),
        (["sampler", "--batch-size=-1"], "--batch-size is -1"),
        (["sampler", "--memory=lots"], "lots"),
        (["sampler", "--graph=missing"], "missing does not exist"),
    ],
)
def test_a_wrong_option_ends_with_2_and_leaves_nothing(
    options: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    assert main(["bench", *options, f"--work={work}", "--quiet"]) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""
    assert not work.exists() or not list(work.iterdir())


def test_import_from_a_store_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tiny_store(tmp_path)
    assert main(["bench", "import", f"--graph={store}", f"--work={tmp_path / 'work'}", "--quiet"]) == 2
    assert "needs the raw graph" in capsys.readouterr().err


def test_peers_read_what_the_store_holds(tmp_path: Path) -> None:
    store = Store.open(tiny_store(tmp_path))
    arrays = StoreArrays(store.path)
    topology = store.topology(("node", "to", "node"))
    indptr, indices = arrays.topology()
    assert np.array_equal(indptr, topology.indptr)
    assert np.array_equal(indices, topology.indices)
    assert np.array_equal(arrays.mapped_features(), store.features("node").read())
    assert np.array_equal(arrays.labels(), store.labels("node"))
    assert np.array_equal(arrays.train_nodes(), store.split("node", "train"))
