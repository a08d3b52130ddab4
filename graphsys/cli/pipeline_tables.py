"""Tables about runs with strategy ``pipeline``: every way to spread them, and predicted beside measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from graphsys.cli.tables import grid
from graphsys.core.units import format_bytes, format_seconds

_SHOW: dict[str, Callable[[float], str]] = {
    "bytes": format_bytes,
    "seconds": format_seconds,
    "share": lambda share: f"{100 * share:.1f} %",
}


def pipeline_plan_tables(values: Mapping[str, Any]) -> list[RenderableType]:
    """Return what every way count would cost, the stages of the run's own shape, and which one to take and why."""
    best, own = values["recommended"], values["run"]
    head = ("stages x ways", "", "chunks", "epoch", "bubble", "between stages", "between ways", "gradients", "memory")
    rows = [_strategy_row(one, values) for one in values["strategies"]]
    stages = [
        (str(stage), _layers(own["cut"], stage), *map(format_bytes, memory.values()))
        for stage, memory in enumerate(own["memory"])
    ]
    sentences = [f"Take {_shape(best)} (stages x ways): {values['reason']}."]
    if (best["stages"], best["ways"]) != (own["stages"], own["ways"]):
        sentences.append(f"The run asks for {_shape(own)}; set cluster.stages and cluster.ways to change it.")
    sentences += [
        f"With {ways} way{'s' * (int(ways) > 1)} it cannot be: {why}." for ways, why in values["left_out"].items()
    ]
    if not own["exact"]:
        sentences.append("With several chunks per way, messages of chunks whose turn is to come are of a snapshot.")
    if values["split_bytes"]:
        sentences.append(f"Before training, METIS takes about {format_bytes(values['split_bytes'])} in process 0.")
    if values["send_bytes_s"]:
        sentences.append(f"Sending is counted at {format_bytes(values['send_bytes_s'])}/s, as within this machine.")
    return [
        grid(f"Ways to spread {values['workers']} processes; bytes are per epoch", head, rows, left=2),
        grid(
            f"Stages of {_shape(own)}: bytes per process",
            ("stage", "layers", *own["memory"][0]),
            stages,
        ),
        "\n".join(sentences),
    ]


def _strategy_row(one: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[str, ...]:
    shape = (one["stages"], one["ways"])
    best = values["recommended"]
    marks = [
        *(["the run's"] if shape == (values["run"]["stages"], values["run"]["ways"]) else []),
        *(["recommended"] if shape == (best["stages"], best["ways"]) else []),
    ]
    sent = one["bytes"]
    return (
        _shape(one),
        f"{one['name']} ({', '.join(marks)})" if marks else one["name"],
        str(one["chunks"]),
        format_seconds(one["epoch_s"]),
        f"{100 * one['slots']['bubble']:.1f} %",
        *(format_bytes(sent[name]) for name in ("boundary", "exchange", "reduce")),
        format_bytes(max(memory["total"] for memory in one["memory"])),
    )


def _shape(values: Mapping[str, Any]) -> str:
    return f"{values['stages']} x {values['ways']}"


def _layers(cut: Sequence[int], stage: int) -> str:
    first, last = cut[stage] + 1, cut[stage + 1]
    return str(first) if first == last else f"{first} to {last}"


def pipeline_table(account: Mapping[str, Any]) -> Group:
    """Return predicted beside measured, per epoch."""
    title = f"Predicted beside measured, {_shape(account)} (stages x ways), per epoch"
    rows = [
        (row["what"], *("-" if row[name] is None else _SHOW[row["unit"]](row[name]) for name in _COLUMNS))
        for row in account["rows"]
    ]
    return grid(title, ("", *_COLUMNS), rows)


_COLUMNS = ("predicted", "measured")
