"""Tables for people: costs of stages, predicted beside measured, plain keys and values."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from graphsys.core.units import format_bytes, format_seconds


def grid(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table; the first ``left`` columns are text, the others are figures."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(head):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        # Text, not markup: a path or a file name may hold square brackets.
        table.add_row(*(Text(cell) for cell in row))
    return table


def key_values(title: str, values: Mapping[str, Any]) -> Table:
    """Return a table of one value per line; nested values are named with dots."""
    table = grid(title, ("", ""), list(_lines(values)), left=2)
    table.show_header = False
    return table


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", format_value(key, value)


def format_value(key: str, value: Any) -> str:
    """Return a value as people read it; names that speak of bytes or seconds carry their unit."""
    if isinstance(value, list | tuple):
        return ", ".join(format_value(key, item) for item in value) or "-"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return _number(key, value) if isinstance(value, int | float) else str(value)


def _number(key: str, value: float) -> str:
    if "bytes" in key:
        return format_bytes(value)
    if key.endswith("_s") or key.startswith("seconds"):
        return format_seconds(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def import_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return what an import found and made: nodes, edges, what was not used, and its cost."""
    state = " (unchanged, kept)" if summary["skipped"] else ""
    tables = [key_values(f"Store {summary['store']}{state}", {"fingerprint": summary["fingerprint"]})]
    tables += [key_values(f"Nodes {name}", counts) for name, counts in summary["nodes"].items()]
    tables += [key_values(f"Edges {name}", counts) for name, counts in summary["edges"].items()]
    if summary["ignored"]:
        tables.append(grid("Not used", ("what",), [(item,) for item in summary["ignored"]]))
    return [*tables, stage_table({"import": summary["report"]})]


def artefact_tables(described: Mapping[str, Any]) -> list[Table]:
    """Return what one artefact holds: its content, then its arrays."""
    head = {key: described[key] for key in ("kind", "format_version", "fingerprint", "nbytes") if key in described}
    tables = [key_values(str(described["path"]), {**head, "made from": described.get("parents", {})})]
    tables.append(key_values("Content", described["content"]))
    if described.get("arrays"):
        rows = [
            (name, array["dtype"], " x ".join(f"{size:,}" for size in array["shape"]), format_bytes(array["nbytes"]))
            for name, array in described["arrays"].items()
        ]
        tables.append(grid("Arrays", ("array", "type", "shape", "bytes"), rows, left=2))
    return tables


def artefact_list(folder: Path, described: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row per artefact below ``folder``."""
    rows = [
        (str(Path(item["path"]).relative_to(folder)), item["kind"].replace("_", " "), format_bytes(item["nbytes"]))
        for item in described
    ]
    return grid(f"{folder}: {len(rows)} artefacts", ("path", "kind", "bytes"), rows, left=2)


def lookup_table(values: Mapping[str, Any], *, vector: bool) -> Table:
    """Return one row per looked-up id: its neighbours, nearest first, and perhaps its vector."""
    head = ("id", f"nearest by {values['metric']} (score)", *(("vector",) if vector else ()))
    rows = []
    for answer in values["answers"]:
        near = answer["neighbours"]
        pairs = (f"{name} ({score:.4f})" for name, score in zip(near["ids"], near["scores"], strict=True))
        numbers = (" ".join(f"{number:.4g}" for number in answer["vector"]),) if vector else ()
        rows.append((str(answer["id"]), ", ".join(pairs) or "-", *numbers))
    title = f"{values['table']}: version {values['version']}, {values['dim']} numbers per vector"
    return grid(title, head, rows, left=3)


def stage_table(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return seconds, device bytes, useful bytes and peak memory per stage."""
    head = ("stage", "seconds", "disk read", "disk written", "useful bytes", "peak memory")
    return grid("Stages", head, [_stage_row(name, report) for name, report in stages.items()])


def _stage_row(name: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    label = f"{name} (done before)" if report["skipped"] else name
    if not report["seconds"]:
        return (label, "-", "-", "-", "-", "-")
    figures = ("device_bytes_read", "device_bytes_written", "useful_bytes", "peak_rss_bytes")
    return (label, format_seconds(report["seconds"]), *(format_bytes(report[key]) for key in figures))


def metric_table(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """Return one row per split, one column per metric."""
    names = list(dict.fromkeys(name for split in metrics.values() for name in split))
    rows = [(split, *(_metric(values.get(name)) for name in names)) for split, values in metrics.items()]
    return grid("Exact evaluation", ("split", *names), rows)


def _metric(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def result_tables(result: Mapping[str, Any]) -> list[Table]:
    """Return what a training came to: metrics, epochs, cost of every stage."""
    splits = {split: result[split] for split in ("train", "val", "test") if result[split]}
    epochs = result["epoch_s"]
    head = {
        "out": result["out"],
        "checkpoint": result["checkpoint"],
        "epochs": result["epochs"],
        "best_epoch": result["best_epoch"],
        "mean epoch_s": sum(epochs) / len(epochs) if epochs else None,
    }
    return [key_values("Training", head), stage_table(result["stages"]), metric_table(splits)]


def demo_tables(result: Mapping[str, Any]) -> list[RenderableType]:
    """Return what the demo shows at its end: accuracy, costs, look-ups, places, what to try next."""
    accuracy = result["test"]["accuracy"]
    head = {"test accuracy": f"{accuracy:.4f}", "peak memory": format_bytes(result["peak_rss_bytes"])}
    paths = result["paths"]
    run_file, table = paths["run file"], paths["embedding table"]
    first = result["lookups"][0]["id"]
    commands = (
        f"graphsys inspect {paths['store']}",
        f"graphsys lookup {table} --id {first} --k 3",
        f"graphsys train {run_file} --set out={paths['run folder']}-gcn --set model.name=gcn",
        f"graphsys export {table} --to parquet --out digits.parquet",
        f"graphsys verify {Path(run_file).parent}",
    )
    return [
        key_values("Digits", head),
        stage_table(result["stages"]),
        grid("Nearest neighbours: id (digit) score", ("image", "nearest by cosine"), _demo_lookups(result), left=2),
        key_values("Written to", paths),
        "Try next:\n" + "\n".join(f"  {command}" for command in commands),
    ]


def _demo_lookups(result: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for answer in result["lookups"]:
        near = (f"{item['id']} ({item['label']}) {item['score']:.3f}" for item in answer["neighbours"])
        yield f"{answer['id']} ({answer['label']})", ", ".join(near)
