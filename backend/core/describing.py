"""The OpenAPI document: FastAPI's own, with every refusal as what it is, an RFC 9457 problem document."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

_PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457. `code` is stable; further members depend on it.",
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "problem"],
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
}
_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_METHODS = {"get", "head", "post", "put", "patch", "delete"}
# FastAPI's own answer to malformed input, which is never given.
_UNUSED = ("HTTPValidationError", "ValidationError")


class DescribedApi(FastAPI):
    """A FastAPI whose document names the refusals of each operation."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _describe(super().openapi())
        return super().openapi()


def _describe(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method in _METHODS & operations.keys():
            operation = operations[method]
            operation["responses"].pop("422", None)
            for status in _refusals(path, method, operation):
                refusal = {"description": status.phrase, "content": _CONTENT}
                operation["responses"].setdefault(str(status.value), refusal)
            for status, answer in operation["responses"].items():
                if status[0] in "45":
                    answer.setdefault("content", _CONTENT)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for name in _UNUSED:
        schemas.pop(name, None)


def _refusals(path: str, method: str, operation: dict[str, Any]) -> Iterator[HTTPStatus]:
    parameters = operation.get("parameters", [])
    yield HTTPStatus.SERVICE_UNAVAILABLE
    if operation.get("security"):
        yield from (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    if not path.startswith("/api/"):
        return
    # Also where a token stands elsewhere: webhooks, sign-in.
    yield from (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
    if parameters or "requestBody" in operation:
        yield HTTPStatus.UNPROCESSABLE_ENTITY
    # Also for what a body names, such as a user.
    if "{" in path or "requestBody" in operation:
        yield HTTPStatus.NOT_FOUND
    if method != "get":
        yield HTTPStatus.CONFLICT
    if "requestBody" in operation:
        yield from (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if any(parameter["name"].lower() == "if-match" for parameter in parameters):
        yield HTTPStatus.PRECONDITION_FAILED
