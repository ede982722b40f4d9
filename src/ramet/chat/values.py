"""The value of a tool's parameter from the text that a model wrote for it, by the tool's JSON schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_WRITTEN = {"True": True, "False": False, "None": None}  # as templates that print with Python's str() show them
_GROUPS = ("anyOf", "oneOf", "allOf")


def typed(text: str, schema: Any, root: Any) -> Any:
    """`text` as a value of a type that `schema` allows; `text` itself if that is strings only, or none fits it.

    A schema that leaves the type open takes what can be read as JSON as such. A parameter without a schema (None) is
    text. `root` is the schema that `$ref`s in `schema` point into.
    """
    types = types_of(schema, root)
    if schema is None or types == {"string"}:
        return text
    bare = text.strip()
    value: Any
    if bare in _WRITTEN and types:
        value = _WRITTEN[bare]
    else:
        try:
            value = json.loads(bare, parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError):
            return text
    return value if not types or _name_of(value) & types else text


def plain_json(text: str) -> Any:
    """`text` read as JSON; `text` itself if it is none, for the tool to refuse."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def property_of(schema: Any, name: str) -> Any:
    """The schema of an object's property: where it is declared, else that of additional ones; None without any."""
    declared = declarations_of(schema, name)
    if declared:
        return declared[0] if len(declared) == 1 else {"anyOf": declared}
    others = schema.get("additionalProperties") if isinstance(schema, Mapping) else None
    return others if isinstance(others, Mapping) else None


def declarations_of(schema: Any, name: str) -> list[Any]:
    """The schemas that an object's schema, its alternatives and parts included, declares a property by."""
    return _declarations(schema, name, schema, set())


def _declarations(schema: Any, name: str, root: Any, seen: set[str]) -> list[Any]:
    if not isinstance(schema, Mapping):
        return []
    if isinstance(schema.get("$ref"), str):
        return _declarations(_resolve(schema["$ref"], root, seen), name, root, seen)
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return [properties[name]]
    parts = [part for group in _GROUPS if isinstance(schema.get(group), list) for part in schema[group]]
    return [found for part in parts for found in _declarations(part, name, root, seen)]


def types_of(schema: Any, root: Any) -> set[str]:
    """The JSON types that `schema` names; empty if it leaves them open."""
    return _types(schema, root, set())


def _types(schema: Any, root: Any, seen: set[str]) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    if isinstance(schema.get("$ref"), str):
        return _types(_resolve(schema["$ref"], root, seen), root, seen)
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)}
    if "const" in schema:
        return set(_name_of(schema["const"]))
    if isinstance(schema.get("enum"), list):
        return {name for value in schema["enum"] for name in _name_of(value)}
    types: set[str] = set()
    for group in _GROUPS:
        if isinstance(schema.get(group), list):
            for part in schema[group]:
                types |= _types(part, root, seen)
    return types


def _resolve(reference: str, root: Any, seen: set[str]) -> Any:
    """What a reference in `root` names; None for one that was `seen` before."""
    if not reference.startswith("#") or reference in seen:
        return None
    seen.add(reference)
    found = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if step:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _name_of(value: Any) -> frozenset[str]:
    """The JSON types that `value` is of: a whole number is also a number."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int):
        return frozenset({"integer", "number"})
    if isinstance(value, float):
        return frozenset({"number", "integer"} if value.is_integer() else {"number"})
    if isinstance(value, str):
        return frozenset({"string"})
    return frozenset({"object"} if isinstance(value, Mapping) else {"array"})


def _finite(text: str) -> float:
    """JSON has no way to write the others."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
