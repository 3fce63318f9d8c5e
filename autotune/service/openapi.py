"""The OpenAPI document, with the questions that travel as JSON inside a parameter."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from autotune.resolve.question import NUMBER_MAX, Question
from autotune.service.documents import TEXT_PATTERN
from autotune.spec import LoaderConfig, MachineFacts, Value
from autotune.spec.base import SCHEMA_VERSION

_PARAMETERS: dict[tuple[str, str], type[Value]] = {
    ("/v1/best", "question"): Question,
    ("/v1/studies/{study}/best", "machine"): MachineFacts,
}
"""Parameters whose text is a JSON document, and of what."""
_REFERENCE = "#/components/schemas/{model}"


def complete(app: FastAPI) -> None:
    """Have the application describe what is inside those parameters too."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    for (path, name), kind in _PARAMETERS.items():
        sent = _bounded(_sent(kind, schemas))
        for parameter in document["paths"][path]["get"]["parameters"]:
            if parameter["name"] == name:
                del parameter["schema"]
                parameter["content"] = {"application/json": {"schema": sent}}
    return document


def _sent(kind: type[Value], schemas: dict[str, Any]) -> dict[str, Any]:
    """Give the schema of a value as it is sent: with its version, and of pins the fields that there are."""
    schema = kind.model_json_schema(ref_template=_REFERENCE)
    for name, inner in schema.pop("$defs", {}).items():
        schemas.setdefault(name, _bounded(inner))
    schema["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    schema["required"] = ["schema_version", *schema.get("required", ())]
    if "pins" in schema["properties"]:
        fields = LoaderConfig.model_json_schema()["properties"]
        schema["properties"]["pins"] = {"type": "object", "properties": fields, "additionalProperties": False}
    return schema


def _bounded(schema: Any) -> Any:
    """Add what `Question.received` asks of every text and number, wherever they are."""
    if isinstance(schema, list):
        return [_bounded(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    bounds: dict[str, Any] = {}
    if schema.get("type") == "integer":
        bounds = {"minimum": -NUMBER_MAX, "maximum": NUMBER_MAX}
    elif schema.get("type") == "string" and "enum" not in schema:
        bounds = {"pattern": TEXT_PATTERN}
    return {**bounds, **{key: _bounded(value) for key, value in schema.items()}}
