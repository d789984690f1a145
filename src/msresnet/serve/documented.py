"""What the OpenAPI document says of requests and answers that the routes read and write themselves."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ERROR: Schema = {
    "type": "object",
    "properties": {"error": TEXT, "why": TEXT, "hint": TEXT},
    "required": ["error"],
}
PARAMETERS: Schema = {"type": "object", "additionalProperties": True}
TENSOR: Schema = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "datatype": {"type": "string", "enum": ["UINT8", "BYTES", "FP32", "FP64", "INT32", "INT64", "BOOL"]},
        "shape": {"type": "array", "items": COUNT, "minItems": 1, "maxItems": 8},
        "parameters": PARAMETERS,
        "data": {"type": "array", "items": {}},
    },
    "required": ["name", "datatype", "shape"],
}
INFER_REQUEST: Schema = {
    "type": "object",
    "properties": {
        "id": TEXT,
        "parameters": PARAMETERS,
        "inputs": {"type": "array", "items": TENSOR, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": TEXT, "parameters": PARAMETERS}, "required": ["name"]},
            "maxItems": 64,
        },
    },
    "required": ["inputs"],
}
INFER_ANSWER: Schema = {
    "type": "object",
    "properties": {
        "id": TEXT,
        "model_name": TEXT,
        "model_version": TEXT,
        "outputs": {"type": "array", "items": TENSOR},
    },
    "required": ["model_name", "model_version", "outputs"],
}
PREDICT_ANSWER: Schema = {
    "type": "object",
    "properties": {
        "model": TEXT,
        "version": TEXT,
        "result": {"type": "object", "properties": {"id": TEXT}, "required": ["id"], "additionalProperties": True},
        "timing": {"type": "object", "additionalProperties": NUMBER},
    },
    "required": ["model", "version", "result", "timing"],
}
FILE: Schema = {"type": "string", "format": "binary"}


def answers(*statuses: int, good: Schema | None = None) -> dict[int | str, Schema]:
    """The answers of a route: what is good, and which refusals there may be."""
    texts = {
        400: "The request is malformed",
        401: "The key is wrong or missing",
        404: "There is no such model",
        408: "The body did not come in time",
        413: "The body is too large",
        415: "Nothing reads such a body",
        422: "The image cannot be decoded",
        503: "Too much to do at the moment; Retry-After says when to try again",
    }
    found: dict[int | str, Schema] = {
        status: {"description": texts[status], "content": {"application/json": {"schema": ERROR}}}
        for status in (401, *statuses)
    }
    if good is not None:
        found[200] = {"description": "The answer", "content": {"application/json": {"schema": good}}}
    return found


def body(content: dict[str, Schema]) -> Schema:
    """A route's body by its media types."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": s} for kind, s in content.items()}}}
