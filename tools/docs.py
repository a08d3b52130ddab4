"""Writes the generated parts of the docs, or checks that they are in step (``--check``).

Generated: docs/config.md, docs/run.schema.json, the command reference of docs/api.md, the command table of README.md,
the settings of docs/http.md.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import graphsys
from graphsys.cli.app import COMMANDS, command
from graphsys.core.config import RunConfig
from graphsys.core.units import format_bytes
from graphsys.deploy.serving.settings import ServeSettings

ROOT = Path(__file__).resolve().parents[1]
SCHEMA_HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$comment": "Written by `make docs` from graphsys.core.config.",
}


def main() -> int:
    """Write or check every generated page; return 1 when a checked page is out of step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Only compare; exit code 1 names what differs.")
    check = parser.parse_args().check
    stale = [path for path, text in pages() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path, text in pages():
        if path in stale and not check:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"out of step with the code: {names}. Run `make docs`", file=sys.stderr)
        return 1
    return 0


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each generated file with the text it should hold."""
    schema = SCHEMA_HEAD | RunConfig.model_json_schema(by_alias=True)
    yield ROOT / "docs/run.schema.json", json.dumps(schema, indent=2) + "\n"
    yield ROOT / "docs/config.md", config_page(schema)
    api = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    api = replace_part(api, "commands", command_reference())
    yield ROOT / "docs/api.md", replace_part(api, "python", python_reference())
    http = (ROOT / "docs/http.md").read_text(encoding="utf-8")
    settings = _table(ServeSettings.model_json_schema()["properties"])
    yield ROOT / "docs/http.md", replace_part(http, "settings", "\n".join(settings))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    yield ROOT / "README.md", replace_part(readme, "commands", command_table())


def replace_part(text: str, name: str, content: str) -> str:
    """Return ``text`` with what stands between the markers of ``name`` replaced by ``content``."""
    begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"a page lacks the markers '{begin}' and '{end}'")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def config_page(schema: dict[str, Any]) -> str:
    """Return docs/config.md: every key with type, default and meaning."""
    sections: list[tuple[str, Any]] = []
    plain: list[tuple[str, Any]] = []
    for name, field in schema["properties"].items():
        (sections if "$ref" in field else plain).append((name, field))
    lines = [
        "# The run file",
        "",
        "<!-- Written by `make docs` from graphsys/core/config.py. -->",
        "",
        "A run is one YAML file. Only `store`, `out` and `memory` have no default. An unknown key is refused, and the",
        "nearest known one is named. `--set a.b=value` overrides one key on the command line. Sizes are a number of",
        "bytes or a text such as `512MiB`; relative paths count from the folder in which the command runs. The",
        "resolved file is written to `<out>/config.yaml`. Editors can check a run file against",
        "[run.schema.json](run.schema.json).",
        "",
        "## Top level",
        "",
        *_table(dict(plain), required=schema.get("required", [])),
    ]
    for name, field in sections:
        section = schema["$defs"][field["$ref"].rpartition("/")[2]]
        lines += ["", f"## {name}", "", section["description"], "", *_table(section["properties"])]
    return "\n".join(lines) + "\n"


def _table(properties: dict[str, Any], required: list[str] | None = None) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in properties.items():
        default = "required" if name in (required or []) else f"`{_default(name, field)}`"
        yield f"| `{name}` | {_type(field)} | {default} | {field.get('description', '')} |"


def _default(name: str, field: dict[str, Any]) -> str:
    value = field.get("default", {})
    if name == "disk":
        return format_bytes(value).replace(".00 ", "")
    return json.dumps(value) if not isinstance(value, str) else value


def _type(field: dict[str, Any]) -> str:
    if field.get("title") in ("size", "size or share"):
        return str(field["title"])
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if field["type"] == "string":
        return "path" if field.get("format") == "path" else "text"
    return f"{_NAMES[field['type']]}{_limits(field)}"


_NAMES = {"integer": "integer", "number": "number", "null": "null", "object": "mapping", "boolean": "true or false"}


def _limits(field: dict[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    parts = [f"{sign} {field[key]}" for key, sign in signs.items() if key in field and field[key] < 1 << 62]
    return f" {', '.join(parts)}" if parts else ""


def command_table() -> str:
    """Return one table row per command."""
    rows = ["| command | what it does |", "|---|---|"]
    rows += [f"| `graphsys {name}` | {_summary(function.__doc__)} |" for name, function, _, _ in COMMANDS]
    return "\n".join(rows)


def _summary(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def command_reference() -> str:
    """Return every command with its arguments, options and an example."""
    parts = []
    program = command()
    for name, function, _, example in COMMANDS:
        lines = [f"### graphsys {name}", "", _summary(function.__doc__), "", "```", example, "```", ""]
        lines += [_option(param) for param in program.commands[name].params]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _option(param: Any) -> str:
    names = param.opts if param.param_type_name == "option" else [param.metavar or param.name.upper()]
    default = "" if param.required or param.default is None or param.default is False else f" Default: {param.default}."
    required = " Required." if param.required else ""
    return f"- {', '.join(f'`{name}`' for name in names)}: {param.help}{default}{required}"


def python_reference() -> str:
    """Return one table row per public name of ``import graphsys``."""
    rows = ["| name | what it is |", "|---|---|"]
    for name in dir(graphsys):
        if not name.startswith("_"):
            value = getattr(import_module("graphsys"), name)
            rows.append(f"| `graphsys.{name}` | {_summary(value.__doc__)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
