"""Tables about what lies on disk: imports, artefacts, look-ups."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group

from graphsys.cli.tables import grid, key_values, stage_table
from graphsys.core.units import format_bytes


def import_tables(summary: Mapping[str, Any]) -> list[Group]:
    """Return what an import found and made: nodes, edges, what was not used, and its cost."""
    state = " (unchanged, kept)" if summary["skipped"] else ""
    tables = [key_values(f"Store {summary['store']}{state}", {"fingerprint": summary["fingerprint"]})]
    tables += [key_values(f"Nodes {name}", counts) for name, counts in summary["nodes"].items()]
    tables += [key_values(f"Edges {name}", counts) for name, counts in summary["edges"].items()]
    if summary["ignored"]:
        tables.append(grid("Not used", ("what",), [(item,) for item in summary["ignored"]]))
    return [*tables, stage_table({"import": summary["report"]})]


def artefact_tables(described: Mapping[str, Any]) -> list[Group]:
    """Return what one artefact holds: its content, then its arrays."""
    head = {key: described[key] for key in ("kind", "format_version", "fingerprint", "nbytes") if key in described}
    tables = [key_values(str(described["path"]), {**head, "made from": described.get("parents", {})})]
    tables.append(key_values("Content", _without_repeats(described["content"])))
    if described.get("arrays"):
        rows = [
            (name, array["dtype"], " x ".join(f"{size:,}" for size in array["shape"]), format_bytes(array["nbytes"]))
            for name, array in described["arrays"].items()
        ]
        tables.append(grid("Arrays", ("array", "type", "shape", "bytes"), rows, left=2))
    return tables


def _without_repeats(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an artefact holds, without what an import's account repeats of its node types."""
    account = content.get("import", {})
    if "nodes" not in account:
        return dict(content)
    nodes = {
        name: {key: value for key, value in counts.items() if key not in content["node_types"][name]}
        for name, counts in account["nodes"].items()
    }
    return {**content, "import": {**account, "nodes": nodes}}


def artefact_list(folder: Path, described: Sequence[Mapping[str, Any]]) -> Group:
    """Return one row per artefact below ``folder``."""
    rows = [
        (str(Path(item["path"]).relative_to(folder)), item["kind"].replace("_", " "), format_bytes(item["nbytes"]))
        for item in described
    ]
    return grid(f"{folder}: {len(rows)} artefacts", ("path", "kind", "bytes"), rows, left=2)


def lookup_table(values: Mapping[str, Any], *, vector: bool) -> Group:
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
