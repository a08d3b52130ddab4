"""What the page says of a training on the whole graph: where its processes' time went, and what was foretold."""

from collections.abc import Callable, Mapping
from typing import Any

from graphsys.core.units import format_bytes
from graphsys.report import parts
from graphsys.report.charts import stacked_bars
from graphsys.report.facts import RunFacts
from graphsys.report.markup import Markup, tag
from graphsys.report.scale import percent, seconds

_SHOW: dict[str, Callable[[float], str]] = {"bytes": format_bytes, "seconds": seconds, "share": percent}


def processes(facts: RunFacts) -> Markup | None:
    """Return where the seconds of every epoch went, on average over the processes, and what each did."""
    epochs = [epoch for epoch in facts.epochs if "pipeline" in epoch]
    if not epochs:
        return None
    bars = [_times(epoch) for epoch in epochs]
    chart = stacked_bars("Seconds of each epoch, mean of all processes", bars, x_label="epoch", format_y=seconds)
    last = epochs[-1]["pipeline"]
    times = zip(last["busy_s"], last["wait_s"], strict=True)
    rows = [[str(rank), seconds(busy), seconds(wait)] for rank, (busy, wait) in enumerate(times)]
    table = parts.table("Processes in the last epoch", ["process", "computing", "waiting"], rows)
    return parts.section("Where the time went", parts.charts(chart, table))


def _times(epoch: Mapping[str, Any]) -> dict[str, float]:
    busy = epoch["pipeline"]["busy_s"]
    computing = sum(busy) / len(busy)
    return {"computing": computing, "waiting for other processes": max(epoch["seconds"] - computing, 0.0)}


def foretold(facts: RunFacts) -> Markup | None:
    """Return what an epoch was predicted to send, wait and hold beside what it did."""
    if facts.plan is None or not facts.is_pipeline:
        return None
    sentence = tag("p", f"{facts.plan['mode'].capitalize()}: {facts.plan['reason']}.")
    account = (facts.result or {}).get("pipeline")
    if account is None:
        return parts.section("Prediction", sentence)
    rows = [
        [row["what"], *("-" if row[name] is None else _SHOW[row["unit"]](row[name]) for name in _COLUMNS)]
        for row in account["rows"]
    ]
    return parts.section("Prediction", sentence, parts.table("Of one epoch", ["", *_COLUMNS], rows))


_COLUMNS = ("predicted", "measured")
