"""The page at ``/docs``: every operation with its bodies, without a script and without anything from elsewhere."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{font-size:1.1rem;margin:2rem 0 .3rem;border-top:1px solid var(--line);padding-top:1rem}
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:var(--soft);padding:.7rem;overflow:auto;border-radius:6px}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .6rem .25rem 0;vertical-align:top;
border-bottom:1px solid var(--line)}.m{display:inline-block;min-width:3.6rem;font-weight:700}summary{cursor:pointer}
"""


def docs_page(description: dict[str, Any]) -> str:
    """Return the HTML page of an OpenAPI description."""
    info = description["info"]
    body = "".join(
        _operation(path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>'
        f"<main><h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])} "
        f'Machines read <a href="openapi.json">openapi.json</a>.</p>{body}</main></html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    reply = operation["responses"].get("200", {}).get("content", {})
    parts = [
        f'<h2 id="{escape(operation["operationId"])}"><span class="m">{method.upper()}</span>'
        f" <code>{escape(path)}</code></h2><p>{escape(operation.get('description', operation['summary']))}</p>"
    ]
    parts += [_fields("Parameters", dict(_parameters(operation)))] if operation.get("parameters") else []
    parts += [_content("Body", content)] if content else []
    parts += [_content("Reply", reply)] if reply else []
    refusals = {status: item for status, item in operation["responses"].items() if status != "200"}
    rows = "".join(
        f"<tr><td>{status}</td><td>{escape(item['description'])}</td></tr>" for status, item in refusals.items()
    )
    parts += [f"<details><summary>Refusals</summary><table>{rows}</table></details>"] if rows else []
    return "".join(parts)


def _parameters(operation: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for parameter in operation["parameters"]:
        yield parameter["name"], {**parameter["schema"], "description": parameter.get("description", "")}


def _content(title: str, content: dict[str, Any]) -> str:
    kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in content)
    schema = next(iter(content.values())).get("schema", {})
    table = _fields("", schema["properties"]) if "properties" in schema else ""
    raw = escape(json.dumps(schema, indent=1))
    details = f"<details><summary>Schema</summary><pre>{raw}</pre></details>" if table else ""
    return f"<p><b>{title}</b> {kinds}</p>{table}{details}"


def _fields(title: str, properties: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(field))}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in properties.items()
    )
    head = f"<p><b>{title}</b></p>" if title else ""
    return f"{head}<table>{rows}</table>"


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    if "enum" in field:
        return ", ".join(str(value) for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type", "any"))
