"""Tables about runs: what was predicted, what was measured, what came out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from graphsys.cli.pipeline_tables import pipeline_table
from graphsys.cli.tables import grid, key_values, stage_table
from graphsys.core.units import format_bytes, format_metric, format_seconds


def plan_tables(values: Mapping[str, Any]) -> list[RenderableType]:
    """Return what every mode would cost, the chosen one's stages, and why it is chosen."""
    modes = grid(
        "Modes", ("mode", "seconds", "epoch", "disk", "memory", "read", "written"), map(_mode_row, values["modes"])
    )
    stages = grid(
        f"Stages in mode {values['mode']}",
        ("stage", "seconds", "disk read", "disk written", "useful bytes", "memory"),
        [_cost_row(name, cost) for name, cost in values["stages"].items()],
    )
    impossible = [f"Mode {mode['mode']} cannot be: {mode['why']}." for mode in values["modes"] if not mode["possible"]]
    sentences = [f"Mode {values['mode']}: {values['reason']}.", *values["notes"], *impossible]
    sentences += [_break_even(values["mode"], other, epochs) for other, epochs in values["break_even"].items()]
    disk = f"The run takes at most {format_bytes(values['disk_bytes'])} of disk space."
    return [modes, stages, "\n".join([*sentences, disk])]


def _mode_row(mode: Mapping[str, Any]) -> tuple[str, ...]:
    name = f"{mode['mode']} (chosen)" if mode["chosen"] else mode["mode"]
    if not mode["possible"]:
        return (name, "-", "-", "-", "-", "-", "-")
    read, written = (
        sum(cost[key] for cost in mode["stages"].values()) for key in ("device_bytes_read", "device_bytes_written")
    )
    figures = (mode["disk_bytes"], mode["memory_bytes"], read, written)
    times = (format_seconds(mode["seconds"]), format_seconds(mode["epoch_s"]))
    return (name, *times, *map(format_bytes, figures))


def _break_even(chosen: str, other: str, epochs: int | None) -> str:
    if epochs is None:
        return f"Mode {other} would take no longer an epoch than mode {chosen}."
    if epochs == 1:
        return f"Mode {chosen} is faster than mode {other} from the first epoch on."
    return (
        f"Mode {chosen} is faster than mode {other} from {epochs} epochs on; before, its preparation is not paid back."
    )


def _cost_row(name: str, cost: Mapping[str, float]) -> tuple[str, ...]:
    figures = ("device_bytes_read", "device_bytes_written", "useful_bytes", "memory_bytes")
    return (name, format_seconds(cost["seconds"]), *(format_bytes(cost[key]) for key in figures))


def comparison_table(rows: Iterable[Mapping[str, Any]]) -> Group:
    """Return predicted beside measured, one row per stage."""
    head = ("stage", "seconds", "measured", "read", "measured", "written", "measured")
    names = ("device_bytes_read", "device_bytes_written")
    cells = [
        (
            row["stage"],
            *map(format_seconds, row["seconds"]),
            *(format_bytes(value) for name in names for value in row[name]),
        )
        for row in rows
    ]
    return grid("Predicted beside measured", head, cells)


def result_tables(result: Mapping[str, Any]) -> list[Group]:
    """Return what a training came to: metrics, epochs, cost of every stage."""
    splits = {split: result[split] for split in ("train", "val", "test") if result[split]}
    epochs = result["epoch_s"]
    head = {
        "out": result["out"],
        "checkpoint": result["checkpoint"],
        "mode": result["mode"],
        "epochs": result["epochs"],
        "best_epoch": result["best_epoch"],
        "mean epoch_s": sum(epochs) / len(epochs) if epochs else None,
    }
    return [
        key_values("Training", head),
        stage_table(result["stages"]),
        *io_tables(result["io"]),
        *([comparison_table(result["predicted"])] if result["predicted"] else []),
        *([pipeline_table(result["pipeline"])] if "pipeline" in result else []),
        metric_table(splits),
    ]


def io_tables(io: Mapping[str, Any]) -> list[Group]:
    """Return where the time of the epochs went and where their rows and bytes came from; nothing without epochs."""
    total = io["total"]
    if not total:
        return []
    waits = [("waiting for " + name, share) for name, share in total["share"].items() if name != "step"]
    shares = [("training steps", total["share"]["step"]), *waits]
    time_rows = [(what, f"{100 * share:.1f} %") for what, share in shares]
    rows = sum(total["rows"].values())
    tiers = [(f"rows from {name.replace('_', ' ')}", _of(count, rows)) for name, count in total["rows"].items()]
    over = total["rows_over_bound"]
    byte_rows = [
        *tiers,
        ("rows read over Belady's bound", "-" if over is None else f"{over:.3f}"),
        ("useful bytes", format_bytes(total["useful_bytes"])),
        ("read for them", format_bytes(total["read_bytes"])),
        ("read by this run meanwhile", format_bytes(total["device_bytes_read"])),
        ("written by this run meanwhile", format_bytes(total["device_bytes_written"])),
    ]
    return [
        grid("Where the epochs' time went", ("", "share"), time_rows),
        grid("Where the epochs' rows and bytes came from", ("", ""), byte_rows),
    ]


def _of(count: int, whole: int) -> str:
    return f"{count:,} ({100 * count / whole:.1f} %)" if whole else f"{count:,}"


def metric_table(metrics: Mapping[str, Mapping[str, float]]) -> Group:
    """Return one row per split, one column per metric."""
    names = list(dict.fromkeys(name for split in metrics.values() for name in split))
    rows = [(split, *(format_metric(values.get(name)) for name in names)) for split, values in metrics.items()]
    return grid("Exact evaluation", ("split", *names), rows)


def demo_tables(result: Mapping[str, Any], *, program: str) -> list[RenderableType]:
    """Return what the demo shows at its end: accuracy, costs, look-ups, places, what to try next.

    Args:
        program: How the user starts graphsys.
    """
    accuracy = result["test"]["accuracy"]
    head = {"test accuracy": f"{accuracy:.4f}", "peak memory": format_bytes(result["peak_rss_bytes"])}
    paths = {name: _from_here(path) for name, path in result["paths"].items()}
    run_file, table = paths["run file"], paths["embedding table"]
    first = result["lookups"][0]["id"]
    commands = (
        f"{program} inspect {paths['store']}",
        f"{program} lookup {table} --id {first} --k 3",
        f"{program} serve {table} --run {run_file}",
        f"{program} train {run_file} --set out={paths['run folder']}-gcn --set model.name=gcn",
        f"{program} export {table} --to parquet --out digits.parquet",
        f"{program} verify {Path(run_file).parent}",
    )
    return [
        key_values("Digits", head),
        stage_table(result["stages"]),
        grid("Nearest neighbours: id (digit) score", ("image", "nearest by cosine"), _demo_lookups(result), left=2),
        key_values("Written to", paths),
        "Try next:\n" + "\n".join(f"  {command}" for command in commands),
    ]


def _from_here(path: str) -> str:
    """Return a path as short as it can be typed in the current folder."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _demo_lookups(result: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for answer in result["lookups"]:
        near = (f"{item['id']} ({item['label']}) {item['score']:.3f}" for item in answer["neighbours"])
        yield f"{answer['id']} ({answer['label']})", ", ".join(near)
