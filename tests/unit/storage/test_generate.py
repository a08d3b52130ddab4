import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.generated import generated_arrays

from graphsys.core.errors import ArtefactError, DiskError, MemoryBudgetError
from graphsys.core.units import MIB
from graphsys.storage import generate as module
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.files import partial_path
from graphsys.storage.generate import generate

SPEC = GenerateSpec(nodes=3000, edges=20_000, features=5, classes=4, seed=11)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_hold_the_arrays_of_the_graph(tmp_path: Path) -> None:
    result = generate(tmp_path / "raw", SPEC)
    expected = generated_arrays(SPEC)
    edges = pq.read_table(tmp_path / "raw" / "edges")
    assert np.array_equal(edges["src"].to_numpy(), expected.src)
    assert np.array_equal(edges["dst"].to_numpy(), expected.dst)
    assert np.array_equal(np.load(tmp_path / "raw" / "x.npy"), expected.x)
    assert np.array_equal(np.load(tmp_path / "raw" / "y.npy"), expected.y)
    assert np.array_equal(np.load(tmp_path / "raw" / "split.npy"), expected.split)
    description = json.loads((tmp_path / "raw" / "graph.json").read_text())
    assert (description["format"], description["version"]) == ("graphsys.raw", 1)
    assert (description["nodes"], description["edges"], description["seed"]) == (3000, 20_000, 11)
    assert result["nbytes"] == sum(len(content) for content in files(tmp_path / "raw").values())


def test_bytes_agree_for_any_number_of_threads_and_any_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small groups and parts, so that the small graph has many of each.
    monkeypatch.setattr(module, "EDGES_PER_GROUP", 1000)
    monkeypatch.setattr(module, "EDGES_PER_PART", 3000)
    generate(tmp_path / "one", SPEC, threads=1)
    generate(tmp_path / "two", SPEC, threads=2, memory=128_000)
    generate(tmp_path / "four", SPEC, threads=4, memory=2 * MIB)
    assert len(files(tmp_path / "one")) == 7 + 4
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "four")


def test_an_existing_folder_is_kept_unless_overwrite_is_given(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(DiskError, match="--overwrite"):
        generate(out, SPEC)
    with pytest.raises(ArtefactError, match="replaces generated graphs only"):
        generate(out, SPEC, overwrite=True)
    assert list(files(out)) == ["mine.txt"]


def test_a_generated_graph_is_replaced_when_overwrite_is_given(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    generate(out, SPEC)
    with pytest.raises(DiskError, match="--overwrite"):
        generate(out, SPEC)
    (out / "y.npy").write_bytes(b"")
    generate(out, SPEC, overwrite=True)
    assert (out / "y.npy").stat().st_size > 0


def test_too_little_memory_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="--memory 32MiB or more"):
        generate(tmp_path / "deep" / "raw", SPEC, memory=MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "fill_split", full)
    with pytest.raises(DiskError, match="the disk is full"):
        generate(tmp_path / "raw", SPEC)
    assert not (tmp_path / "raw").exists()
    assert not partial_path(tmp_path / "raw").exists()
