"""The hand-written baseline reads the right rows; a wrong one would be no baseline."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.graphs import tiny_store

from graphsys.bench.peers import SCRIPTS

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from peers.common import StoreArrays
from peers.direct import Rows

store = StoreArrays(Path(sys.argv[1]))
x = store.read(store.features, np.float32)
rows = Rows(store)
node = np.random.default_rng(0).permutation(x.shape[0])[:150]
assert np.array_equal(rows.gather(node).numpy(), x[node])
assert rows.read == 150
rows.keep(np.sort(node[:60]))
assert np.array_equal(rows.gather(node).numpy(), x[node])
assert rows.read == 150 + 90
"""


@pytest.mark.skipif(find_spec("dgl") is None, reason="DGL is not installed")
def test_rows_are_the_same_with_and_without_a_cache(tmp_path: Path) -> None:
    store = tiny_store(tmp_path, num_features=300)
    argv = [sys.executable, "-c", PROGRAM, str(store)]
    done = subprocess.run(argv, cwd=SCRIPTS.parent, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
