"""Tools declared in TypeScript, which is how Kimi K2.5 was shown them; its template has a variable for it.

The checkpoint computes it in Python (`tool_declaration_ts.py`) from tools whose keys are sorted throughout. A schema
that cannot be put so leaves all tools to the template, which then shows JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VARIABLE = "tools_ts_str"
"""The template's variable."""

_BOUNDS = {
    "string": ("maxLength", "minLength", "pattern"),
    "number": ("maximum", "minimum"),
    "integer": ("maximum", "minimum"),
    "array": ("maxItems", "minItems"),
}
_UNION = {
    "string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null",
    "object": "{}", "array": "Array<any>",
}  # fmt: skip
_MEANT = {"string": str, "number": int | float, "integer": int, "boolean": bool}


class _UnfitError(Exception):
    """A schema has something that cannot be declared."""


def sorted_keys(value: Any) -> Any:
    """A copy of JSON data with the keys of all objects in order."""
    if isinstance(value, Mapping):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return [sorted_keys(item) for item in value] if isinstance(value, list | tuple) else value


def typescript(tools: Sequence[Mapping[str, Any]]) -> str | None:
    """The declarations of `tools` (OpenAI's form, keys sorted); None if one of them cannot be declared."""
    try:
        declared = [
            _declared(tool["function"]) for tool in tools if tool.get("type") == "function" and tool["function"]
        ]
    except (_UnfitError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not declared:
        return None
    return "\n".join(["# Tools", "", "## functions", "namespace functions {", *declared, "}", ""])


@dataclass(frozen=True)
class _Type:
    """A schema read: how it is written at an indentation, and what is said above it."""

    write: Callable[[str], str]
    schema: Mapping[str, Any] = field(default_factory=dict)
    bounds: Sequence[str] = ()

    def comments(self, indent: str) -> str:
        """Lines of comment, each with its end."""
        description = self.schema.get("description", "")
        lines = [_comment(description, indent)] if description else []
        bounds = ", ".join(f"{key}: {self.schema[key]}" for key in sorted(self.bounds) if key in self.schema)
        lines += [f"{indent}// {bounds}"] if bounds else []
        return "".join(f"{line}\n" for line in lines)


@dataclass
class _Names:
    """What references of one function can name."""

    definitions: dict[str, Any] = field(default_factory=dict)
    to_itself: bool = False


def _declared(function: Mapping[str, Any]) -> str:
    names = _Names()
    properties, write = _object(function.get("parameters") or {}, names)
    takes, interfaces = write(""), []
    if names.to_itself:
        takes = "parameters"
        interfaces.append(f"interface parameters {_braced([_property(*each, '  ') for each in properties])}")
    for name, schema in list(names.definitions.items()):
        described = f"{_comment(schema['description'])}\n" if schema.get("description") else ""
        interfaces.append(f"{described}interface {name} {_type(schema, names).write('')}")
    description = function.get("description")
    said = [_comment(description)] if description else []
    return "\n".join([*interfaces, *said, f"type {function.get('name', 'function')} = (_: {takes}) => any;"])


def _type(schema: Any, names: _Names) -> _Type:
    if isinstance(schema, bool):
        return _word("any" if schema else "null")
    if "$ref" in schema:
        return _word(_referred(schema["$ref"], names), schema)
    if "anyOf" in schema:
        ways = [_type(way, names) for way in schema["anyOf"]]
        return _Type(lambda indent: " | ".join(way.write(indent) for way in ways), schema)
    if "enum" in schema:
        return _word(_enum(schema), schema)
    kind = schema.get("type")
    if kind is None and not schema:
        return _word("any")
    if kind is None:
        raise _UnfitError
    if isinstance(kind, list):
        return _word(" | ".join(_UNION[each] for each in kind), schema)
    if kind == "object":
        return _Type(_object(schema, names)[1], schema)
    if kind == "array":
        return _Type(_array(schema, names), schema, _BOUNDS["array"])
    return _word("number" if kind == "integer" else kind, schema, _BOUNDS.get(kind, ()))


def _word(word: str, schema: Mapping[str, Any] | None = None, bounds: Sequence[str] = ()) -> _Type:
    return _Type(lambda indent: word, schema or {}, bounds)


_Property = tuple[str, _Type, bool, Any]
"""Name, type, whether it may be left out, default."""


def _object(schema: Mapping[str, Any], names: _Names) -> tuple[list[_Property], Callable[[str], str]]:
    names.definitions.update(schema.get("$defs") or {})
    others = schema.get("additionalProperties")
    rest = None if others is None else _others(others, names)
    required = schema.get("required", []) if "properties" in schema else []
    properties: list[_Property] = [
        (name, _type(part, names), name not in required, part.get("default") if isinstance(part, Mapping) else None)
        for name, part in schema.get("properties", {}).items()
    ]

    def write(indent: str) -> str:
        inner = f"{indent}  "
        lines = [_property(*each, inner) for each in sorted(properties, key=lambda each: (each[2], each[0]))]
        lines += [] if rest is None else [f"{inner}[k: string]: {rest.write(inner)}"]
        return _braced(lines, indent)

    return properties, write


def _braced(lines: Sequence[str], indent: str = "") -> str:
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" if lines else "{}"


def _others(schema: Any, names: _Names) -> _Type:
    if isinstance(schema, bool):
        return _word("any" if schema else "never")
    if not isinstance(schema, Mapping):
        raise _UnfitError
    return _type(schema, names)


def _property(name: str, type: _Type, optional: bool, default: Any, indent: str) -> str:
    comments = type.comments(indent)
    if default is not None:
        written = repr(default) if isinstance(default, int | float) else json.dumps(default, ensure_ascii=False)
        comments += f"{indent}// Default: {written}\n"
    return f"{comments}{indent}{name}{'?' if optional else ''}: {type.write(indent)}"


def _array(schema: Mapping[str, Any], names: _Names) -> Callable[[str], str]:
    item = _type(schema["items"], names) if schema.get("items") else _word("any")

    def write(indent: str) -> str:
        comments = item.comments(f"{indent}  ")
        if not comments:
            return f"Array<{item.write(indent)}>"
        return f"Array<\n{comments}{indent}  {item.write(f'{indent}  ')}\n{indent}>"

    return write


def _enum(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        if len(kinds) > 2 or (len(kinds) == 2 and "null" not in kinds):
            raise _UnfitError
        kinds = next((kind for kind in kinds if kind != "null"), "null")
    meant: Any = _MEANT.get(kinds) if isinstance(kinds, str) else None
    if meant is not None and not all(value is None or isinstance(value, meant) for value in schema["enum"]):
        raise _UnfitError
    return " | ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in schema["enum"])


def _referred(reference: str, names: _Names) -> str:
    if reference == "#":
        names.to_itself = True
        return "parameters"
    name = reference.split("/")[-1]
    if not reference.startswith("#/$defs/") or name not in names.definitions:
        raise _UnfitError
    return name


def _comment(text: str, indent: str = "") -> str:
    return "\n".join(f"{indent}// {line}" if line else "" for line in text.split("\n"))
