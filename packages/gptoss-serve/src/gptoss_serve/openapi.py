"""`/openapi.json`: what the routes really take and give, errors and event streams included.

FastAPI lists the routes and what their bodies may hold; it cannot know what our handlers return,
because they write JSON themselves. That is added here, from the shapes in `openapi_shapes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gptoss_serve.openapi_shapes import (
    EVENTS,
    METRICS,
    PARAMETERS,
    SHAPES,
    SUCCESSES,
    UNAVAILABLE,
)

Json = dict[str, Any]

_BODY_ERRORS = {
    "400": "The request is wrong; `param` names the field.",
    "404": "There is no such model or response.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "429": "Too many requests are waiting; see `Retry-After`.",
    "500": "The model or this server failed.",
    "502": "The server behind this one failed.",
    "503": "The server is shutting down; see `Retry-After`.",
}
_LOOKUP_ERRORS = {
    "400": "The request is wrong; `param` names the field.",
    "404": "There is nothing of this id.",
    "500": "This server failed.",
}


def documented(app: FastAPI, version: str, *, with_keys: bool) -> Callable[[], Json]:
    """What takes the place of `app.openapi`.

    Args:
        app: with all its routes.
        version: of the server.
        with_keys: bearer keys are asked for.
    """
    made: list[Json] = []

    def openapi() -> Json:
        if not made:
            document = get_openapi(
                title="gptoss", version=version, routes=app.routes, license_info=_LICENCE
            )
            made.append(_completed(document, with_keys=with_keys))
        return made[0]

    return openapi


_LICENCE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def _completed(document: Json, *, with_keys: bool) -> Json:
    schemas: Json = dict(SHAPES)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            _describe(operation, method, path)
            if with_keys and path != "/health":
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = _error("A valid key is needed.")
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                body["schema"] = _hoisted(body["schema"], schemas)
    document["components"] = {"schemas": schemas}
    if with_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def _describe(operation: Json, method: str, path: str) -> None:
    """Put in what an operation answers, and what may stand behind its `?`."""
    key = f"{method.upper()} {path}"
    content: Json = {"application/json": {"schema": SUCCESSES.get(key, {"type": "object"})}}
    if key == "GET /metrics":
        content = METRICS
    elif key in EVENTS:
        # Without a type: some readers take the schema for the whole text, some for each event.
        content["text/event-stream"] = {"schema": {"description": EVENTS[key]}}
    has_body = "requestBody" in operation
    errors = _BODY_ERRORS if has_body else _LOOKUP_ERRORS if "{" in path else {}
    responses = {"200": {"description": "As asked.", "content": content}}
    responses |= {status: _error(text) for status, text in errors.items()}
    responses |= UNAVAILABLE.get(key, {})
    operation["responses"] = responses
    if key in PARAMETERS:
        operation.setdefault("parameters", []).extend(PARAMETERS[key])


def _error(description: str) -> Json:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _hoisted(schema: Json, schemas: Json) -> Json:
    """Move a body's definitions to the document's, under the body's name."""
    title = schema["title"]
    definitions = schema.pop("$defs", {})
    names = {f"#/$defs/{name}": f"{title}.{name}" for name in definitions}
    for name, definition in definitions.items():
        schemas[f"{title}.{name}"] = _renamed(definition, names)
    schemas[title] = _renamed(schema, names)
    return {"$ref": f"#/components/schemas/{title}"}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A schema whose references point to the components."""
    if isinstance(value, dict):
        return {
            key: f"#/components/schemas/{names[entry]}"
            if key == "$ref" and entry in names
            else _renamed(entry, names)
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [_renamed(entry, names) for entry in value]
    return value
