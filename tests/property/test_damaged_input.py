"""A damaged raw file is imported or refused in one line, never anything else."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from helpers.graphs import MEMORY
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import GraphsysError
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.manifest import verify_folder
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.storage.store import Store

RNG = np.random.default_rng(0)
EDGES = RNG.integers(0, 30, (2, 100))


def saved(save: Any, *args: Any, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **kwargs)
    return buffer.getvalue()


def written(write: Any, table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    write(table, buffer)
    return buffer.getvalue()


NODE_ARRAYS: dict[str, Any] = {"x": RNG.random((30, 4), np.float32), "y": np.arange(30) % 3, "train": np.arange(9)}
TEXTS = pa.table({"src": [f"n{i}" for i in EDGES[0]], "dst": [f"n{i}" for i in EDGES[1]], "w": RNG.random(100)})
LISTS = pa.table({"src": EDGES[0], "dst": EDGES[1], "f": pa.array([[row / 2, 1.0] for row in range(100)])})
FILES: dict[str, tuple[bytes, SourceSpec]] = {
    "plain.npz": (saved(np.savez, edge_index=EDGES, **NODE_ARRAYS), SourceSpec()),
    "packed.npz": (saved(np.savez_compressed, edge_index=EDGES, **NODE_ARRAYS), SourceSpec()),
    "edges.npy": (saved(np.save, EDGES), SourceSpec()),
    "texts.parquet": (written(pq.write_table, TEXTS), SourceSpec(weight="w")),
    "lists.parquet": (written(pq.write_table, LISTS), SourceSpec(edge_features=("f",))),
    "texts.csv": (written(pa_csv.write_csv, TEXTS), SourceSpec(weight="w")),
}


def damaged(raw: bytes, draw: st.DataObject) -> bytes:
    place = draw.draw(st.integers(0, len(raw) - 1), "place")
    kind = draw.draw(st.sampled_from(["truncate", "replace", "remove"]), "damage")
    if kind == "truncate":
        return raw[:place]
    length = draw.draw(st.integers(1, 16), "length")
    patch = draw.draw(st.binary(min_size=length, max_size=length), "patch") if kind == "replace" else b""
    return raw[:place] + patch + raw[place + length :]


@pytest.mark.parametrize("name", FILES)
@settings(deadline=None, max_examples=60)
@given(draw=st.data())
def test_a_damaged_file_is_imported_or_refused_in_one_line(name: str, draw: st.DataObject) -> None:
    raw, spec = FILES[name]
    with TemporaryDirectory() as folder:
        path, out = Path(folder) / name, Path(folder) / "out.gs"
        path.write_bytes(damaged(raw, draw))
        message = ""
        try:
            import_graph(open_source(path, spec), out, ImportOptions(memory=MEMORY))
        except GraphsysError as error:
            message = str(error)
        if message:
            assert message.isprintable()
            assert [file.name for file in Path(folder).iterdir()] == [name]
        else:
            verify_folder(out, Store.open(out).manifest)
