"""The grammar of tool calls as a family writes them, built from its format and the tools of a request.

Where each parameter is tagged, one of type string is written as it is, every other as JSON; a string's enum, const,
pattern and length are held to, its format is not. Parameters may come in any order, each at most once, the required
ones always. Where the arguments are one JSON object, it fits the tool's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llguidance import regex_to_lark

from ramet.chat.format import Format, Layout
from ramet.chat.formats import QWEN3_5
from ramet.chat.json_calls import JsonForm
from ramet.engine.grammar import FREE_TEXT, Grammar, GrammarError, inline_schema, reasoning_rule
from ramet.engine.request import Sampling

_ANY_ORDER_LIMIT = 60
"""A set of used parameters is a 64-bit number in the grammar; functions with more take them in declared order."""

_OF_ALL = (
    "allOf", "anyOf", "oneOf", "not", "if", "dependentRequired", "dependentSchemas", "patternProperties",
    "minProperties", "maxProperties", "propertyNames",
)  # fmt: skip
"""What a schema may say of parameters together."""
_BOUNDS = ("pattern", "minLength", "maxLength")


def tool_calls(
    tools: Sequence[Mapping[str, Any]],
    *,
    choice: str = "auto",
    parallel: bool = True,
    after_reasoning: bool = False,
    text_schema: Mapping[str, Any] | None = None,
    format: Format = QWEN3_5,
) -> Grammar:
    """A grammar for a reply that may or must call `tools` (OpenAI's form, with or without the "function" envelope).

    `choice`: "auto" (text, then perhaps calls), "required" (at least one call and nothing else), or the name of the
    tool to call. `parallel`: several calls may follow each other. `after_reasoning`: the prompt has opened a reasoning.
    `text_schema`: a reply without calls (where `choice` leaves it open) is JSON that fits this schema, not any text.
    Raises GrammarError naming the tool, and the part of its schema, that cannot be enforced.
    """
    functions = [_function(tool) for tool in tools]
    names = [name for name, _ in functions]
    if choice not in ("auto", "required"):
        functions = [(name, schema) for name, schema in functions if name == choice]
        if not functions:
            raise GrammarError(f"tool_choice names {choice!r}; the tools are: {', '.join(names) or 'none'}")
    if not functions:
        raise GrammarError("tool_choice asks for a call, and there are no tools")
    spaced = _Spaced(format)
    rules = [f"call: {' | '.join(f'f{i}' for i in range(len(functions)))}\n"]
    rules += [_call(f"f{i}", name, schema, spaced) for i, (name, schema) in enumerate(functions)]
    between, (opening, closing) = spaced.marks(format.layout.between), map(spaced.marks, format.layout.section)
    calls = f"{opening} call {f'({between} call)*' if parallel else ''} {closing}"
    answer = f"text ({calls})?" if choice == "auto" else calls
    if choice == "auto" and text_schema is not None:
        answer = f"form | {calls}"
        rules.append(f"form: {inline_schema(text_schema)}\n")
    elif choice == "auto":
        rules.append(f"text: TEXT\nTEXT: {spaced.text}\n")
    gap = format.layout.after_reasoning
    head = f"start: reasoning answer\n{reasoning_rule(gap)}" if after_reasoning else "start: answer\n"
    return Grammar.lark(f"{head}answer: {answer}\n{''.join(rules)}")


def without_calls(sampling: Sampling, call_token: int | None) -> Sampling:
    """`sampling` under which no tool call can begin: the tools stay in the prompt, so its prefix stays the same."""
    if call_token is None:
        return sampling
    return replace(sampling, logit_bias={**sampling.logit_bias, call_token: float("-inf")})


class _Spaced:
    """A format's layout in the grammar's dialect."""

    def __init__(self, format: Format) -> None:
        self.layout: Layout = format.layout
        self.is_json = isinstance(format.calls, JsonForm)
        tokens = [tag for tag in format.tags if tag.startswith("<")]
        self._tokens = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")
        section = format.layout.section[0].strip() or format.layout.call[0]
        self.text = FREE_TEXT
        """A terminal: text in which no call begins. Tokens are not text; an opening of other text is left out of it."""
        if not self._tokens.match(section):
            self.text += f" & ~/(?s:.*){_escaped(section)}(?s:.*)/"

    def marks(self, text: str) -> str:
        """`text` as terminals, the format's tokens among them."""
        parts, at = [], 0
        for token in self._tokens.finditer(text):
            parts += [_quoted(text[at : token.start()]), token.group()]
            at = token.end()
        parts.append(_quoted(text[at:]))
        return " ".join(part for part in parts if part != '""')

    def begins_with_token(self, text: str) -> bool:
        """Whether a token stands at the start of `text`, which ends any text before it."""
        return self._tokens.match(text) is not None


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/").replace("\n", r"\n")


def _function(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        raise GrammarError(f"a tool's function must be an object, not {type(function).__name__}")
    name = function.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[^\s<>=]+", name):
        raise GrammarError(f"a tool's name must be a word without <, > and =, not {name!r}")
    schema = function.get("parameters") or function.get("input_schema") or {}
    if not isinstance(schema, Mapping):
        raise GrammarError(f"tool {name!r}: parameters must be a JSON schema, not {type(schema).__name__}")
    return name, schema


def _call(rule: str, name: str, schema: Mapping[str, Any], spaced: _Spaced) -> str:
    """The rules of one function's call: `rule` and what it needs."""
    what = f"tool {name!r}: its schema"
    before, behind, closing = spaced.layout.call
    if spaced.is_json:
        count = "COUNT" if spaced.layout.counts else ""
        head = f"{spaced.marks(before + name + ':' * spaced.layout.counts)} {count} {spaced.marks(behind)}"
        body = inline_schema({**schema, "type": "object"}, what)
        number = f"{rule}_count: /[0-9]{{1,4}}/\n" if count else ""
        head = head.replace("COUNT", f"{rule}_count")
        return f"{rule}: {head} {rule}_json {spaced.marks(closing)}\n{rule}_json: {body}\n{number}"
    schema = _enforceable(schema, what)
    properties = schema.get("properties") or {}
    if not isinstance(properties, Mapping):
        raise GrammarError(f"{what}: properties must be an object, not {type(properties).__name__}")
    required = schema.get("required") or []
    if not isinstance(required, list | tuple):
        raise GrammarError(f"{what}: required must be a list of names, not {required!r}")
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    unknown = [key for key in required if key not in properties]
    if unknown:
        raise GrammarError(f"{what} requires {unknown[0]!r}, which is not among its properties")
    head, tail = spaced.marks(before + name + behind), spaced.marks(closing)
    if not properties:
        if "properties" in schema or schema.get("additionalProperties") is False:
            return f"{rule}: {head} {tail}\n"
        others = schema.get("additionalProperties")
        others = others if isinstance(others, Mapping) and others else {"type": "string"}
        return f"{rule}: {head} {rule}_any* {tail}\n" + _value(
            f"{rule}_any", None, others, definitions, f"{what}, additional parameters", spaced
        )
    values = []
    for index, (key, part) in enumerate(properties.items()):
        if not re.fullmatch(r"[^\s<>]+", key):
            raise GrammarError(f"{what}: a parameter's name must be a word without < and >, not {key!r}")
        values.append(_value(f"{rule}_{index}", key, part, definitions, f"{what}, parameter {key!r}", spaced))
    if len(properties) > _ANY_ORDER_LIMIT:
        optional = [f"{rule}_{i}" + ("" if key in required else "?") for i, key in enumerate(properties)]
        return f"{rule}: {head} {' '.join(optional)} {tail}\n{''.join(values)}"
    needed = [f"bit_set({i})" for i, key in enumerate(properties) if key in required]
    complete = "true"
    for condition in needed:
        complete = condition if complete == "true" else f"and({condition}, {complete})"
    lines = [f'{rule}_set::_: "" %if {complete}']
    lines += [f"    | {rule}_{i} {rule}_set::set_bit({i}) %if bit_clear({i})" for i in range(len(properties))]
    return f"{rule}: {head} {rule}_set::0x0 {tail}\n" + "\n".join(lines) + "\n" + "".join(values)


def _enforceable(schema: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The schema of an object that one of parameters refers to, if it does.

    Raises GrammarError for what says more of them than their names and values.
    """
    seen = []
    while isinstance(reference := schema.get("$ref"), str):
        section, _, name = reference.removeprefix("#/").partition("/")
        found = (schema.get(section) or {}).get(name) if section in ("$defs", "definitions") else None
        if not isinstance(found, Mapping) or reference in seen:
            raise GrammarError(f"{what}: $ref {reference!r} names nothing in it")
        seen.append(reference)
        schema = {**{key: schema[key] for key in ("$defs", "definitions") if key in schema}, **found}
    for key in _OF_ALL:
        if key in schema:
            raise GrammarError(f"{what}: {key} cannot be enforced where each parameter is written by itself")
    return schema


def _value(rule: str, key: str | None, schema: Any, definitions: Mapping[str, Any], what: str, spaced: _Spaced) -> str:
    """The rules of one parameter, its markers included; `key` None: any name."""
    before, between, end = spaced.layout.parameter
    between = between.format("true" if isinstance(schema, Mapping) and _is_text(schema) else "false")
    opening = spaced.marks(f"{before}{key}{between}")
    if key is None:
        opening = rf"{spaced.marks(before)} /[^\s<>\"]+/ {spaced.marks(between)}"
    closing = spaced.marks(end)
    by_token = spaced.begins_with_token(end)
    if isinstance(schema, Mapping) and _is_text(schema):
        words = [schema["const"]] if "const" in schema else schema.get("enum")
        if words:
            if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
                raise GrammarError(f"{what}: a string's enum must be a list of strings, not {words!r}")
            return (
                f"{rule}: {opening} ({' | '.join(_quoted(word) for word in _fitting(words, schema, what))}) {closing}\n"
            )
        if any(key in schema for key in _BOUNDS):
            token = rule.upper()
            text = " & ".join(_bounds(schema, what, None if by_token else end.rstrip("\n")))
            if by_token:
                return f"{rule}: {opening} {token} {closing}\n{token}: {text}\n"
            return f"{rule}: {opening} {rule}_text\n{rule}_text[suffix={closing}]: {token}\n{token}: {text}\n"
        if by_token:
            return f"{rule}: {opening} {FREE_TEXT} {closing}\n"
        # As little as possible: the first closing marker ends the value.
        return f"{rule}: {opening} {rule}_text\n{rule}_text[suffix={closing}]: {FREE_TEXT}\n"
    body = inline_schema({**definitions, **schema} if isinstance(schema, Mapping) else schema, what)
    return f"{rule}: {opening} {rule}_json {closing}\n{rule}_json: {body}\n"


def _fitting(words: Sequence[str], schema: Mapping[str, Any], what: str) -> list[str]:
    """The words of an enum that are as long as the schema allows."""
    if "pattern" in schema:
        raise GrammarError(
            f"{what}: a string with an enum cannot have a pattern too: leave out the words that do not fit"
        )
    least, most = _lengths(schema, what)
    fitting = [word for word in words if least <= len(word) and (most is None or len(word) <= most)]
    if not fitting:
        raise GrammarError(f"{what}: no word of its enum has a length of {least} to {most}")
    return fitting


def _bounds(schema: Mapping[str, Any], what: str, end: str | None) -> Iterator[str]:
    """What a string's text must match, all of it: its length, its pattern, and that it does not end the value early."""
    least, most = _lengths(schema, what)
    yield f"/(?s:.{{{least},{'' if most is None else most}}})/"
    if (pattern := schema.get("pattern")) is not None:
        if not isinstance(pattern, str):
            raise GrammarError(f"{what}: pattern must be a string, not {pattern!r}")
        whole = _whole(pattern)
        try:
            Grammar.regex(whole)
        except GrammarError as error:
            raise GrammarError(f"{what}: its pattern {pattern!r} cannot be enforced: {error}") from None
        yield f"/{regex_to_lark(whole, 'dw')}/"
    if end is not None:
        yield f"~/(?s:.*){_escaped(end)}(?s:.*)/"


def _lengths(schema: Mapping[str, Any], what: str) -> tuple[int, int | None]:
    """A string's least and most characters."""
    for name in ("minLength", "maxLength"):
        value = schema.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise GrammarError(f"{what}: {name} must be a whole number, not {value!r}")
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if most is not None and least > most:
        raise GrammarError(f"{what}: minLength is {least} and maxLength {most}")
    return least, most


def _whole(pattern: str) -> str:
    """The expression for whole texts in which a JSON schema's `pattern`, which may match anywhere, does match."""
    ways, depth, start, at = [], 0, 0, 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
        elif character == "[":
            at += 1
            while at < len(pattern) and pattern[at] != "]":
                at += 2 if pattern[at] == "\\" else 1
        elif character == "|" and not depth:
            ways.append(pattern[start:at])
            start = at + 1
        else:
            depth += (character == "(") - (character == ")")
        at += 1
    ways.append(pattern[start:])
    return "|".join(_anchored(way) for way in ways)


def _anchored(way: str) -> str:
    """One alternative of a pattern, with any text where it is not bound to the beginning or end."""
    body = way.removeprefix("^")
    bare = body.removesuffix("$")
    bound = len(bare) < len(body) and (len(bare) - len(bare.rstrip("\\"))) % 2 == 0  # not an escaped dollar
    before, after = "" if len(body) < len(way) else "(?s:.*)", "" if bound else "(?s:.*)"
    return f"{before}(?:{bare if bound else body}){after}"


def _is_text(schema: Mapping[str, Any]) -> bool:
    """Whether a value of this schema is always a string, and so written without quotes."""
    if schema.get("type") == "string":
        return True
    words = [schema["const"]] if "const" in schema else schema.get("enum")
    return "type" not in schema and isinstance(words, list) and bool(words) and all(isinstance(w, str) for w in words)


def _quoted(text: str) -> str:
    return json.dumps(text)  # all in ASCII: the dialect knows every escape, but not every character as it is
