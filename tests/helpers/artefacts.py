"""A run folder with one artefact of every kind, small and quickly made."""

from pathlib import Path

import numpy as np
from helpers.graphs import tiny_store
from helpers.windows import write_packed

from graphsys.core.config import parse_run
from graphsys.storage.files import write_bytes
from graphsys.storage.flat import write_array
from graphsys.storage.groups import write_groups
from graphsys.storage.manifest import Manifest, file_checksum, sealed_json, write_manifest
from graphsys.storage.run_file import write_run_file


def made_run(folder: Path) -> Path:
    """Write store, window, checkpoint, table, result and run file, and a log that is no artefact; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_store(folder, num_nodes=50, num_edges=300, name="graph.gs")
    (folder / "windows" / "train").mkdir(parents=True)
    write_packed(folder / "windows" / "train" / "window-0000.pack")
    made_checkpoint(folder / "checkpoints" / "step-00000004")
    made_table(folder / "embeddings.gs")
    write_bytes(folder / "result.json", sealed_json({"test": {"accuracy": 0.5}, "name": "Grüße"}))
    run = parse_run({"store": str(folder / "graph.gs"), "out": str(folder), "memory": "64MiB"})
    write_run_file(folder / "config.yaml", run)
    write_bytes(folder / "logs" / "metrics.jsonl", b'{"loss": 1.0}\n')
    return folder


def made_checkpoint(folder: Path) -> None:
    """Write a checkpoint whose state is bytes of no meaning."""
    write_bytes(folder / "state.pt", bytes(range(256)))
    files = {"state.pt": file_checksum(folder / "state.pt")}
    content = {"step": 4, "epoch": 1}
    write_manifest(
        folder, Manifest(kind="checkpoint", config={}, parents={"store": "0" * 32}, content=content, files=files)
    )


def made_table(folder: Path) -> None:
    """Write an embedding table in which row i holds i."""
    arrays = {"vectors": write_array(folder / "vectors", np.repeat(np.arange(50, dtype=np.float32)[:, None], 4, 1))}
    content = {"version": "1", "dim": 4, "dtype": "float32", "num_rows": 50, "node_type": "node", "layer": 2}
    manifest = Manifest(
        kind="embedding_table",
        config={},
        parents={"store": "0" * 32},
        content={**content, "id_kind": "identity"},
        arrays=arrays,
        files=write_groups(folder, arrays),
    )
    write_manifest(folder, manifest)


def flip(path: Path, place: int) -> None:
    """Change one byte of a file; a negative ``place`` counts from its end. Calling it again undoes it."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x5A
    path.write_bytes(content)
