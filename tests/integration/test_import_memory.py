"""An import stays inside its memory budget, measured as the kernel does in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.import_peak import NUM_EDGES, write_graph

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.units import MIB
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec

TESTS = Path(__file__).parents[1]


def grown(form: str, folder: Path, memory: int) -> tuple[int, int]:
    """Return the edges read and the bytes by which a process grew that imported them."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    argv = [sys.executable, "-m", "helpers.import_peak", form, str(folder), str(memory)]
    done = subprocess.run(argv, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    num_edges, nbytes = map(int, done.stdout.split())
    return num_edges, nbytes


@pytest.mark.parametrize(("form", "memory"), [("ids", 64 * MIB), ("texts", 64 * MIB), ("features", 72 * MIB)])
def test_the_process_grows_by_no_more_than_the_budget(form: str, memory: int, tmp_path: Path) -> None:
    write_graph(form, tmp_path / "small", 100, 300)
    write_graph(form, tmp_path / "large", 100_000, NUM_EDGES)
    num_edges, nbytes = grown(form, tmp_path, memory)
    assert num_edges == NUM_EDGES
    assert 8 * MIB < nbytes <= memory


def test_a_budget_that_the_columns_of_a_file_do_not_fit_into_is_refused_with_one_that_does(tmp_path: Path) -> None:
    write_graph("features", tmp_path / "wide", 100_000, 1_000_000)
    source = open_source(tmp_path / "wide/edges.parquet", SourceSpec(edge_features=("f*",)))
    with pytest.raises(MemoryBudgetError, match=r"edges\.parquet .* give at least --memory \d+MiB") as refusal:
        import_graph(source, tmp_path / "out.gs", ImportOptions(memory=64 * MIB))
    enough = int(re.search(r"(\d+)MiB$", str(refusal.value))[1])  # type: ignore[index]
    summary = import_graph(source, tmp_path / "out.gs", ImportOptions(memory=enough * MIB))
    assert summary.edges["node__to__node"]["edges_written"] == 1_000_000
