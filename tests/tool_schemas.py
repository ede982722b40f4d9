"""Tools with schemas of every kind that can be declared in TypeScript, and a few that cannot, from a seed."""

from __future__ import annotations

import random
from typing import Any

_NAMES = ["city", "a", "größe", "b c", "x_1", "days"]
_KINDS = [
    "string", "string", "string", "integer", "number", "boolean", "null", "object", "object", "array", "array", "union",
    "enum", "anyOf", "$ref", "anything", "flag", "#", "const",
]  # fmt: skip
_TYPES = ["string", "number", "integer", "boolean", "null", "object", "array"]
_ENUMS: list[list[Any]] = [["a", "b"], [1, 2], [None, "x"], [True], [1.5, 2]]
_ENUM_TYPES = [
    "string",
    "number",
    "integer",
    ["string", "null"],
    ["null", "integer"],
    ["string"],
    ["string", "integer"],
]


def declared_tools(seed: int) -> list[dict[str, Any]]:
    """One or two tools in OpenAI's form."""
    draw = random.Random(seed)
    return [{"type": "function", "function": _function(draw)} for _ in range(draw.randrange(1, 3))]


def _function(draw: random.Random) -> dict[str, Any]:
    parameters = _object(draw, 0)
    if draw.random() < 0.7:
        other = _schema(draw, 2) if draw.random() < 0.2 else {"type": "string"}
        parameters["$defs"] = {"D": _said(draw, _object(draw, 1)), "E": other}
    function: dict[str, Any] = {"name": draw.choice(["act", "look_up"]), "parameters": parameters}
    if draw.random() < 0.1:
        del function["parameters"]
    if draw.random() < 0.6:
        function["description"] = draw.choice(["Does it", "a\nb", ""])
    return function


def _said(draw: random.Random, schema: dict[str, Any]) -> dict[str, Any]:
    if draw.random() < 0.4:
        schema["description"] = draw.choice(["one", "two\nlines", "", "ünï\n\nx"])
    if draw.random() < 0.2:
        schema["default"] = draw.choice([1, True, "x", None, [1, "é"], {"a": 1}, 0.5, False])
    return schema


def _some(draw: random.Random, **fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if draw.random() < 0.3}


def _object(draw: random.Random, depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if draw.random() < 0.85:
        names = draw.sample(_NAMES, draw.randrange(5))
        schema["properties"] = {name: _schema(draw, depth) for name in names}
        if draw.random() < 0.6:
            schema["required"] = [name for name in names if draw.random() < 0.5]
    if draw.random() < 0.3:
        schema["additionalProperties"] = draw.choice([True, False, _schema(draw, depth)])
    return schema


def _schema(draw: random.Random, depth: int) -> Any:
    kind = draw.choice(_KINDS if depth < 4 else _KINDS[:5])
    if kind == "const" and draw.random() < 0.8:
        kind = "boolean"
    match kind:
        case "string":
            return _said(draw, {"type": kind, **_some(draw, maxLength=3, pattern="^a", format="date")})
        case "integer" | "number":
            return _said(draw, {"type": kind, **_some(draw, minimum=0, maximum=1.5)})
        case "boolean" | "null":
            return _said(draw, {"type": kind})
        case "object":
            return _said(draw, _object(draw, depth + 1))
        case "array":
            items = {"items": _schema(draw, depth + 1)} if draw.random() < 0.8 else {}
            return _said(draw, {"type": "array", **items, **_some(draw, minItems=1, maxItems=4)})
        case "union":
            return _said(draw, {"type": draw.sample(_TYPES, draw.randrange(1, 4))})
        case "enum":
            return _said(draw, {"enum": draw.choice(_ENUMS), **_some(draw, type=draw.choice(_ENUM_TYPES))})
        case "anyOf":
            return _said(draw, {"anyOf": [_schema(draw, depth + 1) for _ in range(draw.randrange(1, 4))]})
        case "$ref":
            return _said(draw, {"$ref": "#/$defs/" + draw.choice("DDEEDE" if draw.random() < 0.95 else "Z")})
        case "#":
            return _said(draw, {"$ref": "#"})
        case "anything":
            return {}
        case "flag":
            return draw.random() < 0.5
        case _:
            return {"const": 1}
