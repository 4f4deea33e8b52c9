"""Operations on an application's routes, as its OpenAPI document has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_WIDTH = 100
_METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Route:
    """A route: `text` is its operation; where that takes knowledge it says so in a comment."""

    name: str
    text: str
    is_written: bool


def routes_of(app: Any) -> list[Route]:
    """Return an operation, or the place for one, for each route of an application."""
    document = app.openapi()
    return [
        _route(path, method, operation, document)
        for path, methods in document.get("paths", {}).items()
        for method, operation in methods.items()
        if method in _METHODS
    ]


def _route(
    path: str, method: str, operation: Mapping[str, Any], document: Mapping[str, Any]
) -> Route:
    name = f"{method.upper()} {path}"
    if method != "get":
        return Route(
            name, f"# {name}: it may write. Give it its body, and make it an operation.\n", False
        )
    required = [p for p in operation.get("parameters", []) if p.get("required")]
    values = {
        p["name"]: _value_of(_resolved(p.get("schema", {}), document))
        for p in required
        if p["in"] in ("path", "query")
    }
    if None in values.values() or any(p["in"] not in ("path", "query") for p in required):
        return Route(name, f"# {name}: give it its parameters, and make it an operation.\n", False)
    text = (
        f'@workload.operation("{name}", kind="read")\n'
        f"async def {_function(name)}(op: OperationContext) -> httpx.Response:\n"
        f"{_call(path, required, values)}"
        f'    op.check("{name} is answered", answer.status_code < 400)\n'
        f"    return answer  # of 500 and above it fails\n"
    )
    return Route(name, text, True)


def _call(
    path: str, required: Iterable[Mapping[str, Any]], values: Mapping[str, str | None]
) -> str:
    """Return the lines that ask for a path, in one line where that is short enough."""
    url, query = path, []
    for parameter in required:
        value = values[parameter["name"]] or ""
        if parameter["in"] == "query":
            query.append(f'"{parameter["name"]}": {value}')
        else:
            constant = value.startswith('"')
            filled = value.strip('"') if constant else f"{{{value}}}"
            url = url.replace(f"{{{parameter['name']}}}", filled)
    arguments = f'{"f" if "{" in url else ""}"{url}"'
    if query:
        arguments += f", params={{{', '.join(query)}}}"
    line = f"    answer: httpx.Response = await op.shared.get({arguments})"
    if len(line) > _WIDTH:
        line = f"    answer: httpx.Response = await op.shared.get(\n        {arguments}\n    )"
    return f"{line}\n"


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a parameter's schema, wherever in the document it is."""
    if "$ref" not in schema:
        return schema
    found: Any = document
    for key in schema["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return {**found, **schema}


def _value_of(schema: Mapping[str, Any]) -> str | None:
    """Return what makes a value of a parameter, as far as its schema tells."""
    if "enum" in schema:
        return json.dumps(schema["enum"][0])
    match schema.get("type"):
        case "integer":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            return f"op.rng.randint({int(least)}, {int(schema.get('maximum', int(least) + 99))})"
        case "number":
            return "op.rng.random()"
        case "boolean":
            return '"true"'
        case "string" if "format" not in schema and "pattern" not in schema:
            return "op.index"
    return None


def _function(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()
