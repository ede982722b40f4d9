"""Reading a request body: JSON, then types, with errors that name the field."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError
from pydantic_core import ErrorDetails

from ramet.server.errors import ApiError, bad_request


class Body(BaseModel):
    """A request's top level: types are exact, and a field nobody knows is an error, as in the real APIs."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Part(BaseModel):
    """A nested object: types are exact, fields nobody knows are ignored, as in the real APIs."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Other(Part):
    """An object of a type that is not served: taken in, to be turned down by name where it stands."""

    type: str


def by_type(*types: str, default: str | None = None) -> Discriminator:
    """Tells the members of a union, tagged with `types` or "other", apart by their field `type`.

    `default` is the type of an object without one.
    """

    def tag(value: Any) -> str:
        kind = (value.get("type") if isinstance(value, dict) else None) or default
        return kind if kind in types else "other"

    return Discriminator(tag)


B = TypeVar("B", bound=BaseModel)


def parse_body(raw: bytes, model: type[B]) -> B:
    """`raw` as a `model`. Raises `ApiError` (400) that says where the JSON breaks off or which field is wrong."""
    try:
        text = raw.decode(json.detect_encoding(raw))
        data = json.loads(text, parse_float=_finite, parse_constant=_finite)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            data = json.loads(_encodable(json.dumps(data, ensure_ascii=False)))
    except json.JSONDecodeError as error:
        raise bad_request(
            f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})", code="invalid_json"
        ) from None
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 text (byte {error.start})", code="invalid_json") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:  # of `_finite`, or of an integer of thousands of digits
        raise bad_request(f"a number in the body cannot be read: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise bad_request(f"the body must be a JSON object, not {_kind(data)}", code="invalid_json")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _field_error(error, data) from None


def _finite(text: str) -> float:
    """A number that can be written as JSON again, which NaN and infinities cannot."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _encodable(text: str) -> str:
    """`text` with U+FFFD for halves of surrogate pairs: JSON can escape them, but no answer could repeat them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _field_error(error: ValidationError, data: dict[str, Any]) -> ApiError:
    """The one error worth telling: of a union's failures, the one that got furthest into the data."""
    best: tuple[int, str, ErrorDetails] | None = None
    for detail in error.errors(include_url=False, include_context=False):
        depth, path = _path(detail["loc"], data, missing=detail["type"] == "missing")
        if best is None or depth > best[0]:
            best = (depth, path, detail)
    assert best is not None  # a ValidationError has at least one
    _, path, detail = best
    kind = detail["type"]
    if kind == "extra_forbidden":
        return bad_request(f"unknown field '{path}'", path, "unknown_parameter")
    if kind == "missing":
        return bad_request(f"'{path}' is required", path, "missing_required_parameter")
    message = detail["msg"]
    message = message.removeprefix("Value error, ")
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return bad_request(f"invalid '{path}': {message}", path, code)


def _path(loc: tuple[int | str, ...], data: Any, *, missing: bool) -> tuple[int, str]:
    """How many steps of `loc` lie in the data, and those as `a.b[0].c`; pydantic's names of union members drop out."""
    path, depth, current = "", 0, data
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(step, int) and isinstance(current, list) and step < len(current):
            path, current = f"{path}[{step}]", current[step]
        elif isinstance(step, str) and isinstance(current, dict) and (step in current or (missing and last)):
            path, current = f"{path}.{step}" if path else step, current.get(step)
        else:
            continue
        depth += 1
    return depth, path or "body"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}[type(value)]
