"""A seed stands for one graph for ever: these checksums may only change with the version in ``graph.json``."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import xxhash

from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.generate import generate


def test_a_seed_gives_the_same_graph_on_every_machine(tmp_path: Path) -> None:
    generate(tmp_path / "raw", GenerateSpec(nodes=5000, edges=30_000, features=7, classes=5, communities=10, seed=42))
    raw = tmp_path / "raw"
    edges = pq.read_table(raw / "edges")
    found = {
        "src": xxhash.xxh3_64(edges["src"].to_numpy()).hexdigest(),
        "dst": xxhash.xxh3_64(edges["dst"].to_numpy()).hexdigest(),
        "x.npy": xxhash.xxh3_64((raw / "x.npy").read_bytes()).hexdigest(),
        "y.npy": xxhash.xxh3_64((raw / "y.npy").read_bytes()).hexdigest(),
        "split.npy": xxhash.xxh3_64((raw / "split.npy").read_bytes()).hexdigest(),
    }
    assert found == {
        "src": "5acb55542b8f280b",
        "dst": "c6596b080142ee2d",
        "x.npy": "895710910c0934be",
        "y.npy": "3bc429228ee0ae3a",
        "split.npy": "a5a6b0bab481dcc2",
    }


def test_an_array_file_is_read_by_numpy_with_its_shape_and_type(tmp_path: Path) -> None:
    generate(tmp_path / "raw", GenerateSpec(nodes=10, edges=20, features=3, classes=2))
    x = np.load(tmp_path / "raw" / "x.npy")
    assert (x.dtype, x.shape) == (np.float32, (10, 3))
    assert (tmp_path / "raw" / "x.npy").stat().st_size == 128 + 120
