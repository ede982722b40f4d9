"""Grammars that constrain what a reply may be, checked and run by llguidance."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, regex_to_lark
from numpy.typing import NDArray

from ramet.chat import Tokenizer
from ramet.errors import RametError

FREE_TEXT = r"/(.|\n)*/"
"""Any text; the tokens that mark reasoning and tool calls are not text."""

_WHITESPACE = r"[ \n\t]{1,32}"
"""Between the parts of a JSON text. Bounded: a small model would otherwise go on with blanks for ever."""


_OVERLAP = (
    "oneOf can be enforced only where no two alternatives can fit at once "
    "(another type, or another constant in a required property): use anyOf"
)


class GrammarError(RametError):
    """A schema, pattern or grammar that is invalid or that cannot be enforced."""


@dataclass(frozen=True)
class Grammar:
    """A grammar in llguidance's Lark dialect. The constructors check what can be checked without a vocabulary."""

    source: str
    what: str
    """What it was made from, for error messages."""

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, *, after_reasoning: bool = False) -> Grammar:
        """JSON that fits `schema`. `after_reasoning`: the prompt has opened a reasoning, which is left free.

        Raises GrammarError, with the part of the schema, if it is invalid or has keywords that cannot be enforced.
        """
        source = f"answer: {inline_schema(schema)}\n"
        return _checked(_start("answer", after_reasoning) + source, "json_schema")

    @classmethod
    def json_object(cls, *, after_reasoning: bool = False) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"}, after_reasoning=after_reasoning)

    @classmethod
    def regex(cls, pattern: str, *, after_reasoning: bool = False) -> Grammar:
        """Text that the regular expression (Rust's syntax; no look-around) matches from end to end."""
        body = regex_to_lark(pattern, "")
        return _checked(_start("answer", after_reasoning) + f"answer: /{body}/\n", f"regex {pattern!r}")

    @classmethod
    def lark(cls, source: str) -> Grammar:
        """A grammar as it is, in llguidance's variant of Lark."""
        return _checked(source, "grammar")


class Matcher:
    """Follows one reply along its grammar."""

    def __init__(self, matcher: LLMatcher, known_tokens: int) -> None:
        self._matcher = matcher
        self._known = known_tokens

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, `[known_tokens]`; the end of the turn is among them where it may end.

        Raises GrammarError if the grammar has become too complex to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.unpackbits(bits, bitorder="little")[: self._known].view(np.bool_)
        if len(mask) < self._known:
            mask = np.pad(mask, (0, self._known - len(mask)))
        return mask

    def feed(self, token: int) -> bool:
        """Go on past `token`; returns whether the reply is complete: nothing but its end can follow."""
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def copy(self) -> Matcher:
        """An independent matcher at the same place."""
        return Matcher(self._matcher.deep_copy(), self._known)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the grammar cannot be followed further: {_reason(self._matcher.get_error())}")


class GrammarCompiler:
    """Turns grammars into matchers over a tokenizer's vocabulary. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar) -> Matcher:
        """A matcher at the start of `grammar`. Raises GrammarError if it does not compile for this vocabulary."""
        matcher = LLMatcher(self._tokens(), LLMatcher.grammar_from_lark(grammar.source), log_level=0)
        if matcher.is_error():
            raise GrammarError(f"{grammar.what}: {_reason(matcher.get_error())}")
        return Matcher(matcher, self._tokenizer.vocab_size)

    def prepare(self) -> None:
        """Build the vocabulary, which takes seconds for a large one; `compile` waits for it, or does it itself."""
        with contextlib.suppress(Exception):  # told to whoever uses a grammar
            self._tokens()

    def _tokens(self) -> LLTokenizer:
        with self._lock:
            if self._vocabulary is None:
                # Only the turn's own end may end a constrained reply: the next turn can begin right behind it.
                self._vocabulary = LLTokenizer(self._tokenizer.backend.to_str(), eos_token=self._tokenizer.eos_ids[0])
            return self._vocabulary


def inline_schema(schema: Mapping[str, Any] | bool, what: str = "JSON schema") -> str:
    """`schema` as a non-terminal of a Lark grammar. Raises GrammarError naming the part that is wrong."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, Mapping):
        raise GrammarError(f"{what} must be an object, not {type(schema).__name__}")
    try:
        problem = _schema_problem(schema)
    except RecursionError:
        raise GrammarError(f"{what} is nested too deeply") from None
    if problem:
        path, problem = _blame(schema, schema, problem)
        raise GrammarError(f"{what}{f' at {path}' if path else ''}: {problem}")
    return f"%json {json.dumps(_with_options(schema))}"


def _with_options(schema: Mapping[str, Any]) -> dict[str, Any]:
    # oneOf as anyOf, which is the same where the alternatives are told apart
    options = {"whitespace_pattern": _WHITESPACE, "coerce_one_of": True}
    own = schema.get("x-guidance")
    return {
        **schema,
        "x-guidance": {**options, **(own if isinstance(own, Mapping) else {})},
    }


def _schema_problem(schema: Mapping[str, Any]) -> str:
    problem = _problem(LLMatcher.grammar_from_json_schema(json.dumps(_with_options(schema))))
    return problem or ("" if _told_apart(schema, schema) else _OVERLAP)


def _told_apart(part: Any, root: Mapping[str, Any]) -> bool:
    """Whether in every oneOf no two alternatives can fit at once. The library judges, by their types and constants."""
    if not isinstance(part, Mapping):
        return True
    ways = part.get("oneOf")
    if isinstance(ways, list):
        outlines = [_outline(way, root) for way in ways]
        if _problem(LLMatcher.grammar_from_json_schema(json.dumps({"oneOf": outlines}))):
            return False
    return all(_told_apart(inner, root) for _, inner in _parts(part))


def _outline(way: Any, root: Mapping[str, Any]) -> Any:
    """An alternative of a oneOf, without references and with no more than what could tell it from the others."""
    way = _referred(way, root)
    if not isinstance(way, Mapping):
        return way
    outline = {key: way[key] for key in ("type", "const", "enum", "required") if key in way}
    properties = way.get("properties")
    if isinstance(properties, Mapping):
        parts = {name: _referred(part, root) for name, part in properties.items()}
        outline["properties"] = {
            name: {key: part[key] for key in ("type", "const", "enum") if key in part}
            for name, part in parts.items()
            if isinstance(part, Mapping)
        }
    return outline


def _referred(part: Any, root: Mapping[str, Any]) -> Any:
    """What a part that refers into the schema itself (`{"$ref": "#/$defs/city"}`) refers to; any other as it is."""
    name = part.get("$ref") if isinstance(part, Mapping) else None
    if not isinstance(name, str) or not name.startswith("#/"):
        return part
    found: Any = root
    for key in name.removeprefix("#/").split("/"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _blame(schema: Mapping[str, Any], root: Mapping[str, Any], problem: str) -> tuple[str, str]:
    """The innermost part of a schema that is wrong by itself: its path ("properties.city") and its problem."""
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    for path, part in _parts(schema):
        inner = _schema_problem({**definitions, **part}) if isinstance(part, Mapping) else "not a JSON schema"
        if inner:
            deeper, inner = _blame(part, root, inner) if isinstance(part, Mapping) else ("", inner)
            return ".".join(filter(None, (path, deeper))), inner
    return "", problem


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas directly inside a schema, with their places. Plain booleans are left out: they are always right."""
    for keyword in ("properties", "patternProperties", "$defs", "definitions"):
        inner = schema.get(keyword)
        if isinstance(inner, Mapping):
            yield from ((f"{keyword}.{name}", part) for name, part in inner.items() if not isinstance(part, bool))
    for keyword in ("items", "additionalProperties"):
        part = schema.get(keyword)
        if part is not None and not isinstance(part, bool):
            yield keyword, part
    for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(keyword)
        if isinstance(inner, list):
            yield from ((f"{keyword}[{i}]", part) for i, part in enumerate(inner) if not isinstance(part, bool))


def reasoning_rule(gap: str = "\n\n") -> str:
    """The rest of a reasoning that the prompt has opened, and the `gap` that a family leaves behind it."""
    return f"reasoning: {FREE_TEXT} </think> {json.dumps(gap) if gap else ''}\n"


def _start(rule: str, after_reasoning: bool) -> str:
    return f"start: reasoning {rule}\n{reasoning_rule()}" if after_reasoning else f"start: {rule}\n"


def _checked(source: str, what: str) -> Grammar:
    problem = _problem(LLMatcher.grammar_from_lark(source))
    if problem:
        raise GrammarError(f"{what}: {problem}")
    return Grammar(source, what)


def _problem(grammar: str) -> str:
    """What is wrong with a grammar, empty if nothing is (without a vocabulary special tokens are not looked up)."""
    wrong, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return _reason(messages[0]) if wrong else ""


def _reason(message: str) -> str:
    """One line of a message of the library's: its first, and what a nested parser says where there is one."""
    lines = [line.strip() for line in message.strip().split("\n")]
    return " ".join([lines[0], *(line.removeprefix("error: ") for line in lines[1:] if line.startswith("error: "))])
