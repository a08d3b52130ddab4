"""The whole way on a built-in real graph: import, sample, pack, train, evaluate, embed, verify, look up."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphsys.cli.options import Json, Overwrite, Quiet
from graphsys.cli.output import reporting

if TYPE_CHECKING:
    from graphsys.core.config import RunConfig
    from graphsys.core.progress import Progress
    from graphsys.deploy.lookup import Neighbours
    from graphsys.storage.embeddings import EmbeddingTable
    from graphsys.storage.id_map import ExternalIds
    from graphsys.storage.store import Store

_MEMORY = "256MiB"
_NUM_LOOKUPS = 4
_K = 4


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder that receives everything.")] = Path("graphsys-demo"),
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go the whole way on a real graph that comes along: handwritten digits and those that look most like them."""
    from graphsys.cli.run_tables import demo_tables

    with reporting(as_json=as_json, quiet=quiet) as output:
        result = run_demo(out.resolve(), output.progress, overwrite=overwrite)
        output.result(result, *demo_tables(result, program=_program()))


def _program() -> str:
    # After `make demo` the program lies in a virtual environment that need not be on the path.
    return "graphsys" if shutil.which("graphsys") else sys.argv[0]


def run_demo(out: Path, progress: "Progress", *, overwrite: bool) -> dict[str, Any]:
    """Run every stage below ``out``; return plain JSON values. Stages that are done already are skipped."""
    from graphsys.cli.job import train_and_evaluate
    from graphsys.core.metrics import measure
    from graphsys.core.units import parse_bytes
    from graphsys.storage.importer import ImportOptions, import_graph
    from graphsys.storage.store import Store
    from graphsys.storage.verify import verify
    from graphsys.trainers.demo_data import digits_source
    from graphsys.trainers.embed import embed

    progress.message("Digits: 1,797 images of 8 x 8 pixels, each joined to the 8 that look most like it.")
    options = ImportOptions(memory=parse_bytes(_MEMORY))
    imported = import_graph(digits_source(), out / "digits.gs", options, overwrite=overwrite, progress=progress)
    run_file = out / "digits.yaml"
    run = _write_run(run_file, _run_tree(out))
    trained = train_and_evaluate(run, progress, overwrite=overwrite)
    embedded = embed(run, out / "embeddings.gs", progress, overwrite=overwrite)
    with measure("verify") as report:
        checked = verify(out, progress=progress)
        report.useful_bytes = checked.nbytes
    stages = {
        "import": imported.report.as_dict(),
        **trained["stages"],
        "embed": embedded.report.as_dict(),
        "verify": report.as_dict(),
    }
    return {
        "test": trained["test"],
        "val": trained["val"],
        "epoch_s": trained["epoch_s"],
        "stages": stages,
        "peak_rss_bytes": max(stage["peak_rss_bytes"] for stage in stages.values()),
        "lookups": _look_up(Store.open(run.store), embedded.table),
        "paths": {
            "store": str(run.store),
            "run file": str(run_file),
            "run folder": str(run.out),
            "embedding table": str(embedded.table.path),
        },
    }


def _run_tree(out: Path) -> dict[str, Any]:
    # Everything here would fit into memory many times; packed mode with a small cache takes the out-of-core way.
    return {
        "store": str(out / "digits.gs"),
        "out": str(out / "run"),
        "memory": _MEMORY,
        "sampler": {"fanouts": [10, 10], "batch_size": 128, "samples": "fresh", "seed": 0},
        "pack": {"mode": "packed", "host_cache": "10%", "window": 20},
        "model": {"name": "sage", "hidden": 64, "dropout": 0.3},
        "trainer": {"epochs": 20, "lr": 0.01, "checkpoint_every": 50},
    }


def _write_run(path: Path, tree: dict[str, Any]) -> "RunConfig":
    import yaml

    from graphsys.core.config import load_run
    from graphsys.storage.files import write_bytes

    write_bytes(path, yaml.safe_dump(tree, sort_keys=False, default_flow_style=None).encode())
    return load_run(path)


def _look_up(store: "Store", table: "EmbeddingTable") -> list[dict[str, Any]]:
    from graphsys.deploy.lookup import neighbours

    info = store.node_type()
    ids = store.id_map(info.name).to_external(store.split(info.name, "test")[:_NUM_LOOKUPS])
    return [
        {"id": answer.id, "label": _labels(store, [answer.id])[0], "neighbours": _with_labels(store, answer)}
        for answer in neighbours(table, ids, _K)
    ]


def _with_labels(store: "Store", answer: "Neighbours") -> list[dict[str, Any]]:
    return [
        {"id": near, "label": label, "score": score}
        for near, label, score in zip(answer.ids, _labels(store, answer.ids), answer.scores, strict=True)
    ]


def _labels(store: "Store", ids: "ExternalIds") -> list[int]:
    name = store.node_type().name
    node, _ = store.id_map(name).to_node(ids)
    return [int(label) for label in store.labels(name)[node]]
