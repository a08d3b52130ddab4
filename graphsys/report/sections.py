"""The parts of the page: what it says of a run, as headings, charts and tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphsys.core.units import format_bytes, format_metric
from graphsys.report import parts
from graphsys.report.charts import Point, line_chart, paired_bars, stacked_bars
from graphsys.report.facts import RunFacts
from graphsys.report.markup import Markup, tag
from graphsys.report.scale import bytes_or_none, number, percent, seconds

# As the log names them -> as the page does; the bar's order, from the bottom
_TIMES = {
    "step": "training",
    "read": "waiting for reads",
    "assemble": "waiting for assembly",
    "transfer": "waiting for transfer",
    "producer": "waiting for the next window",
}
_TIERS = {"memory": "memory", "host_cache": "host cache", "window": "window", "store": "store"}
_STAGES = ("check", "sample", "pack", "train", "evaluate")  # in the order in which they run
_BINARY = 1024


def header(facts: RunFacts) -> Markup:
    """Return name, state and the figures that people ask for first."""
    return tag(
        "header",
        tag("p", "graphsys run", class_="kicker"),
        tag("h1", facts.name),
        tag("p", tag("strong", facts.state, class_=f"state {facts.state.replace(' ', '-')}"), " ", facts.sentence),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in _figures(facts)), class_="tiles"),
    )


def _figures(facts: RunFacts) -> Iterable[tuple[str, str]]:
    result = facts.result or {}
    for split in ("test", "val"):
        metrics = result.get(split) or {}
        name = next((name for name in metrics if name != "loss"), None)
        if name is not None:
            yield f"{split} {name}", f"{metrics[name]:.4f}"
    if not result and facts.epochs and facts.epochs[-1].get("val"):
        name, value = _main_metric(facts.epochs[-1]["val"])
        yield f"validation {name}, latest", f"{value:.4f}"
    yield "epochs", f"{len(facts.epochs)} of {facts.planned_epochs}"
    if facts.epochs:
        spent = [epoch["seconds"] for epoch in facts.epochs]
        yield "mean epoch", seconds(sum(spent) / len(spent))
    total = (result.get("io") or {}).get("total")
    if total:
        yield "time spent training", percent(total["share"]["step"])
        if total["rows_over_bound"] is not None:
            yield "rows over Belady's bound", f"{total['rows_over_bound']:.3f}"
    stages = result.get("stages")
    if stages:
        yield "peak memory", format_bytes(max(stage["peak_rss_bytes"] for stage in stages.values()))


def _main_metric(metrics: Mapping[str, float]) -> tuple[str, float]:
    name = next((name for name in metrics if name != "loss"), "loss")
    return name, metrics[name]


def learning(facts: RunFacts) -> Markup:
    """Return the curves of loss and metrics, the table of the exact evaluation, and the epochs."""
    epochs = facts.epochs
    losses: dict[str, Sequence[Point]] = {
        "training": [(epoch["step"], epoch["train"]["loss"]) for epoch in epochs],
        "validation": [(epoch["step"], epoch["val"]["loss"]) for epoch in epochs if epoch.get("val")],
    }
    if len(epochs) < 2:
        losses["single steps"] = [(line["step"], line["loss"]) for line in facts.steps]
    names = dict.fromkeys(name for epoch in epochs for name in epoch.get("val") or {} if name != "loss")
    metrics = {
        name: [(epoch["step"], epoch["val"][name]) for epoch in epochs if name in (epoch.get("val") or {})]
        for name in names
    }
    charts = [
        line_chart("Loss", losses, x_label="step") if any(losses.values()) else None,
        line_chart("Validation metrics", metrics, x_label="step") if metrics else None,
    ]
    if not any(charts):
        return parts.section("Learning", tag("p", "Nothing is logged yet."))
    shown = [parts.charts(*charts), _evaluation(facts.result)]
    return parts.section("Learning", *shown, parts.details("Every epoch", _epoch_table(epochs)) if epochs else None)


def _evaluation(result: Mapping[str, Any] | None) -> Markup | None:
    if result is None:
        return None
    splits = {split: result[split] for split in ("train", "val", "test") if result.get(split)}
    names = list(dict.fromkeys(name for metrics in splits.values() for name in metrics))
    rows = [[split, *(format_metric(metrics.get(name)) for name in names)] for split, metrics in splits.items()]
    return parts.table("Exact evaluation, over all neighbours of every node", ["split", *names], rows)


def _epoch_table(epochs: Sequence[Mapping[str, Any]]) -> Markup:
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.get("val") or {}))
    head = ["epoch", "step", "seconds", "learning rate", "training loss", *(f"validation {name}" for name in names)]
    rows = [
        [
            str(epoch["epoch"] + 1),
            f"{epoch['step']:,}",
            seconds(epoch["seconds"]),
            f"{epoch['lr']:g}",
            f"{epoch['train']['loss']:.4f}",
            *(format_metric((epoch.get("val") or {}).get(name)) for name in names),
        ]
        for epoch in epochs
    ]
    return parts.table("Epochs", head, rows)


def time(facts: RunFacts) -> Markup | None:
    """Return where the seconds of every epoch went."""
    if not facts.batch_epochs:
        return None
    bars = [
        {words: epoch["io"]["share"][name] * epoch["seconds"] for name, words in _TIMES.items()}
        for epoch in facts.batch_epochs
    ]
    spent = sum(sum(bar.values()) for bar in bars)
    sums = {words: sum(bar[words] for bar in bars) for words in _TIMES.values()}
    rows = [[words, seconds(value), percent(value / spent if spent else 0)] for words, value in sums.items()]
    chart = stacked_bars("Seconds of each epoch", bars, x_label="epoch", format_y=seconds)
    table = parts.table("All epochs, validation left out", ["", "seconds", "share"], rows)
    return parts.section("Where the time went", parts.charts(chart, table))


def traffic(facts: RunFacts) -> Markup | None:
    """Return where rows came from, how far from the fewest possible, and what reading them took."""
    if not facts.batch_epochs:
        return None
    accounts = [epoch["io"] for epoch in facts.batch_epochs]
    rows = [{_TIERS[name]: count for name, count in io["rows"].items()} for io in accounts]
    over = [(index + 1, io["rows_over_bound"]) for index, io in enumerate(accounts) if io["rows_over_bound"]]
    costs = {
        name: {"useful": stage["useful_bytes"], "device": stage["device_bytes_read"] + stage["device_bytes_written"]}
        for name, stage in _stages(facts).items()
    }
    charts = [
        stacked_bars("Rows by the tier that served them", rows, x_label="epoch", format_y=_count),
        line_chart(
            "Rows read over Belady's bound", {"rows read / fewest possible": over}, x_label="epoch", baseline=1.0
        )
        if over
        else None,
        paired_bars("Useful bytes beside bytes read and written", costs, format_x=format_bytes, base=_BINARY)
        if costs
        else None,
    ]
    note = (
        "The bound is the fewest rows that a cache of the same size could have read in the epoch, had it known all of "
        "its accesses in advance; it is followed for a sample of the nodes where the epoch is large."
    )
    details = parts.details("Bytes of every epoch", _byte_table(accounts))
    return parts.section(
        "Rows and bytes", parts.charts(*charts), tag("p", note, class_="note") if over else None, details
    )


def _count(value: float) -> str:
    for least, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:.3g} {letter}"
    return f"{value:.0f}"


def _byte_table(accounts: Sequence[Mapping[str, Any]]) -> Markup:
    names = {
        "useful_bytes": "useful",
        "read_bytes": "read for them",
        "device_bytes_read": "read by the run",
        "device_bytes_written": "written by the run",
        "disk_bytes_read": "read on the whole disk",
        "disk_bytes_written": "written on the whole disk",
    }
    tiers = list(dict.fromkeys(name for io in accounts for name in io["rows"]))
    head = ["epoch", *(f"rows from {_TIERS[name]}" for name in tiers), *names.values()]
    rows = [
        [
            str(index),
            *(f"{io['rows'].get(name, 0):,}" for name in tiers),
            *(bytes_or_none(io[name]) for name in names),
        ]
        for index, io in enumerate(accounts, start=1)
    ]
    return parts.table("The run's own figures include the making of the next windows", head, rows)


def prediction(facts: RunFacts) -> Markup | None:
    """Return what the run was predicted to cost beside what it cost."""
    if facts.plan is None or facts.is_pipeline:
        return None
    shown = [tag("p", f"Mode {facts.plan['mode']}: {facts.plan['reason']}.")]
    if facts.result is not None:
        shown.append(_comparison(facts.result["predicted"]))
    else:
        rows = [
            [name, seconds(cost["seconds"]), *(format_bytes(cost[key]) for key in _BYTES)]
            for name in (*_STAGES, "embed")
            if (cost := facts.plan["stages"].get(name))
        ]
        shown.append(parts.table("Predicted", ["stage", "seconds", "read", "written"], rows))
    return parts.section("Prediction", *shown)


_BYTES = ("device_bytes_read", "device_bytes_written")


def _comparison(rows: Iterable[Mapping[str, Any]]) -> Markup:
    head = ["stage", "", "predicted", "measured", "difference"]
    formats = {"seconds": seconds, "device_bytes_read": format_bytes, "device_bytes_written": format_bytes}
    words = {"seconds": "time", "device_bytes_read": "read", "device_bytes_written": "written"}
    cells = [
        [row["stage"], words[name], show(row[name][0]), show(row[name][1]), _difference(*row[name])]
        for row in rows
        for name, show in formats.items()
    ]
    return parts.table("Predicted beside measured", head, cells, left=2)


def _difference(predicted: float, measured: float) -> str:
    if not measured:
        return "-"
    return f"{100 * (predicted - measured) / measured:+.0f} %"


def stages(facts: RunFacts) -> Markup | None:
    """Return seconds, bytes and peak memory of every stage."""
    if not _stages(facts):
        return None
    keys = ("device_bytes_read", "device_bytes_written", "useful_bytes", "peak_rss_bytes")
    rows = [
        [name, seconds(stage["seconds"]), *(format_bytes(stage[key]) for key in keys)]
        for name, stage in _stages(facts).items()
    ]
    head = ["stage", "seconds", "read", "written", "useful bytes", "peak memory"]
    return parts.section("Stages", parts.table("Cost of every stage", head, rows))


def _stages(facts: RunFacts) -> dict[str, dict[str, Any]]:
    """Return the reports of the stages that ran, in their order."""
    reports = (facts.result or {}).get("stages") or {}
    return {name: reports[name] for name in _STAGES if name in reports and reports[name]["seconds"]}


def provenance(facts: RunFacts) -> Markup:
    """Return what the run was made from and with."""
    config = facts.config
    known: dict[str, Any] = {
        "folder": facts.folder,
        "store": config["store"],
        **{
            f"fingerprint of {name}": value
            for name, value in (facts.checkpoint.parents if facts.checkpoint else {}).items()
        },
        "fingerprint of the checkpoint": facts.checkpoint.fingerprint if facts.checkpoint else None,
        "sampler seed": config["sampler"]["seed"],
        "trainer seed": config["trainer"]["seed"],
    }
    rows = [[name, str(value)] for name, value in known.items() if value is not None]
    return parts.section(
        "Provenance",
        parts.table("Made from", ["", ""], rows, left=2),
        *(_call(index, call) for index, call in enumerate(facts.calls, start=1)),
        parts.details("The run file, resolved", tag("pre", tag("code", facts.config_text), tabindex="0")),
    )


def _call(index: int, call: Mapping[str, Any]) -> Markup:
    machine = call["machine"]
    shown = {
        "started": call["started"],
        "at step": number(call["step"]),
        "command": call["command"],
        "commit": call["commit"] or "not run from a checkout",
        "machine": f"{machine['processor']}, {machine['cores']} cores, {format_bytes(machine['memory_bytes'])}",
        "device": machine["device"],
        "system": machine["system"],
        "versions": ", ".join(f"{name} {value}" for name, value in call["versions"].items()),
    }
    return parts.table(f"Call {index}", ["", ""], [[name, value] for name, value in shown.items()], left=2)
