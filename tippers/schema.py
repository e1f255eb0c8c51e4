"""The OpenAPI schema: what the code says of itself, and what is true of every operation."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import force_instance
from rest_framework import serializers

from tippers.api import ID, ModelSerializer, Serializer

Endpoint = tuple[str, str, str, Callable[..., object]]

ERROR = {
    "type": "object",
    "description": "Every error; `errors` only when a part of the input is at fault.",
    "properties": {
        "detail": {"type": "string", "description": "One sentence for people."},
        "code": {"type": "string", "pattern": "^[a-z_]+$", "description": "For programs."},
        "errors": {
            "type": "object",
            "description": "Sentences by field; `body` stands for the whole.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        },
    },
    "required": ["code", "detail"],
}
MEANINGS = {
    "400": "The input is at fault; `errors` names where.",
    "401": "Not signed in.",
    "403": "Signed in, without the permission.",
    "404": "There is no such thing.",
    "409": "Not possible now: it is in use, under way, or ended.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "Too many tries; `Retry-After` says when.",
    "503": "Something that this service stands on does not answer.",
}
PATH_TYPES = {
    f"^{ID}$": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    "^-?[0-9]{1,10}$": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
}


class Schema(AutoSchema):
    """Requests refuse unknown fields; a model's answer has all of its fields."""

    def _resolve_path_parameters(self, variables: Sequence[str]) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = super()._resolve_path_parameters(variables)  # type: ignore[no-untyped-call]  # drf-spectacular is not typed
        for parameter in parameters:
            known = PATH_TYPES.get(parameter["schema"].get("pattern", ""))
            parameter["schema"] = known or parameter["schema"]
        return parameters

    def _map_basic_serializer(self, serializer: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]  # as above
        serializer = force_instance(serializer)  # type: ignore[no-untyped-call]  # as above
        if direction == "request" and isinstance(serializer, Serializer | ModelSerializer):
            schema["additionalProperties"] = False
        if direction == "response" and isinstance(serializer, serializers.ModelSerializer):
            schema["required"] = sorted(schema["properties"])
        return schema


def without_trailing_slashes(endpoints: list[Endpoint]) -> list[Endpoint]:
    """A path that accepts a trailing slash is documented without it."""
    return [(path.rstrip("/") or "/", *rest) for path, *rest in endpoints]  # type: ignore[misc]  # the rest is three


def with_errors_and_totals(result: dict[str, Any], **_: object) -> dict[str, Any]:
    """Every error in the one shape, and the header that says how many a paged list has in all."""
    result["components"]["schemas"]["Error"] = ERROR
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            for status in _errors_of(path, method, operation):
                said = {"description": MEANINGS[status], "content": content}
                operation["responses"].setdefault(status, {}).update(said)
            if {"skip", "limit"} <= {each["name"] for each in operation.get("parameters", [])}:
                operation["responses"]["200"]["headers"] = {
                    "X-Total-Count": {
                        "description": "How many there are in all.",
                        "schema": {"type": "integer", "minimum": 0},
                    }
                }
    return result


def _errors_of(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    public = operation.get("security") == [{}]
    body = "requestBody" in operation
    query = any(each["in"] == "query" for each in operation.get("parameters", []))
    writes = method != "get"
    reads_a_product = path.endswith(("/preview", "/download"))
    throttled = re.search(r"/(login|test|try)$", path) is not None
    asked = {
        "400": query or (writes and method != "delete"),
        "401": body or not public,
        "403": not public,
        "404": "{" in path,
        "409": (writes and not public) or reads_a_product,
        "413": body,
        "415": body,
        "429": throttled,
        "503": body or not public,
    }
    named = operation["responses"]
    return [
        status
        for status, applies in asked.items()
        if applies or (status in named and "content" not in named[status])
    ]
