"""Grammars: what a model can write under them parses and fits, whatever it would rather write."""

import json
import random
import re
import time

import jsonschema
import numpy as np
import pytest

from ramet.chat import Parser, assistant_message
from ramet.engine import Grammar, GrammarError, tool_calls
from ramet.engine.grammar import GrammarCompiler
from tests.engine_support import chat, request, running, text_tokens, tokenizer

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "place": {"$ref": "#/$defs/place"},
            },
            "required": ["city", "days"],
            "$defs": {
                "place": {
                    "type": "object",
                    "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
                    "required": ["lat", "lon"],
                    "additionalProperties": False,
                }
            },
        },
    },
}
NOW = {"name": "now", "input_schema": {"type": "object", "properties": {}}}
ANYTHING = {"name": "anything"}
TOOLS = [WEATHER, NOW, ANYTHING]

SCHEMAS = [
    WEATHER["function"]["parameters"],
    {"type": "array", "items": {"enum": ["a", "b", 3, None]}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"type": "boolean"}, {"type": "object", "required": ["x"], "properties": {"x": {"const": "y"}}}]},
    {"oneOf": [{"type": "integer"}, {"type": "string", "pattern": "^[a-f]{3,5}$"}]},
    {"type": "string", "format": "date"},
]

compiler = GrammarCompiler(tokenizer())


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def write(grammar, seed, limit=3000):
    """The text of a writer who picks allowed tokens at random, and closes whatever may be closed now and then."""
    dice = random.Random(seed)
    matcher = compiler.compile(grammar)
    ends = set(tokenizer().eos_ids)
    closing = [tokenizer().encode(text) for text in ("\n</parameter>\n", '"', "}", "</think>", "]")]
    tokens: list[int] = []
    wish: list[int] = []
    for _ in range(limit):
        allowed = set(np.flatnonzero(matcher.allowed()).tolist())
        if allowed & ends and (allowed <= ends or dice.random() < 0.3):
            return tokenizer().decode(tokens)
        if not wish and dice.random() < 0.25:
            wish = list(dice.choice(closing))
        if wish and wish[0] in allowed:
            token = wish.pop(0)
        else:
            wish = []
            token = dice.choice(sorted(allowed - ends))
        tokens.append(token)
        if matcher.feed(token):
            return tokenizer().decode(tokens)
    return None


def written(grammar, count):
    texts = [text for seed in range(count) if (text := write(grammar, seed)) is not None]
    assert len(texts) >= count // 2
    return texts


@pytest.mark.parametrize("schema", SCHEMAS)
def test_json_fits_its_schema(schema):
    for text in written(Grammar.json_schema(schema), 12):
        jsonschema.validate(json.loads(text), schema)


def test_json_objects_and_true():
    for text in written(Grammar.json_object(), 6):
        assert isinstance(json.loads(text), dict)
    for text in written(Grammar.json_schema(True), 6):
        json.loads(text)


@pytest.mark.parametrize("pattern", [r"[a-c]{2}/\d\n?x", r"(yes|no)", r"\"a/b\"\\", r"é+|\p{Lu}\p{Ll}"])
def test_text_fits_its_pattern(pattern):
    import regex

    for text in written(Grammar.regex(pattern), 10):
        assert regex.fullmatch(pattern, text)


def test_reasoning_first():
    for text in written(Grammar.json_schema({"type": "integer"}, after_reasoning=True), 8):
        reasoning, answer = text.split("</think>\n\n")
        assert isinstance(json.loads(answer), int)
        assert "<tool_call>" not in reasoning


CALL = re.compile(r"<tool_call>\n<function=([^>\n]+)>\n(.*?)</function>\n</tool_call>", re.S)
PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n(.*?)\n</parameter>\n", re.S)


def read_calls(text):
    """The calls in a text by name with raw parameters, and the text without them."""
    calls = []
    for name, body in CALL.findall(text):
        assert PARAMETER.sub("", body) == ""
        calls.append((name, PARAMETER.findall(body)))
    return calls, CALL.sub("", text)


def check_call(name, parameters):
    values = dict(parameters)
    assert len(values) == len(parameters) or name == "anything"
    if name == "now":
        assert not values
    if name == "get_weather":
        schema = WEATHER["function"]["parameters"]
        jsonschema.validate(
            {key: value if key in ("city", "unit") else json.loads(value) for key, value in values.items()}, schema
        )


@pytest.mark.parametrize("choice", ["auto", "required", "get_weather", "now", "anything"])
@pytest.mark.parametrize("parallel", [False, True])
def test_tool_calls_are_whole_and_fit(choice, parallel):
    numbers = set()
    for text in written(tool_calls(TOOLS, choice=choice, parallel=parallel), 12):
        calls, rest = read_calls(text)
        for name, parameters in calls:
            assert choice in ("auto", "required", name)
            check_call(name, parameters)
        assert "<tool_call>" not in rest
        if choice != "auto":
            assert calls and not rest.strip("\n")
        numbers.add(len(calls))
    assert parallel or numbers <= {0, 1}


STRINGS = {
    "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{1,3}$"},
    "note": {"type": "string", "minLength": 3, "maxLength": 6},
    "either": {"type": "string", "pattern": "^a+$|b|^\\$$", "maxLength": 4},
    "size": {"type": "string", "enum": ["s", "small", "gigantic"], "maxLength": 5},
}


def test_strings_of_tools_fit_their_pattern_and_length():
    for name, schema in STRINGS.items():
        tool = {"name": "f", "parameters": {"type": "object", "properties": {name: schema}, "required": [name]}}
        for text in written(tool_calls([tool], choice="required", parallel=False), 12):
            [(_, [(_, value)])] = read_calls(text)[0]
            jsonschema.validate(value, schema)


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"pattern": "b"}, "abc", True),
        ({"pattern": "b"}, "ac", False),
        ({"pattern": "^(a|b)[|)]\\|$"}, "a||", True),
        ({"pattern": "x\\$"}, "x$ and more", True),
        ({"minLength": 2}, "\n\n\U0001f600 é", True),
        ({"minLength": 2}, "\U0001f600", False),
        ({"maxLength": 3}, "abcd", False),
        ({"minLength": 1}, "x\n</parameter>\n<parameter=x>\ny", False),
        ({"minLength": 1}, "x\n</parameter>", False),
        ({"minLength": 1}, "x\n</paramete>", True),
    ],
)
def test_a_string_that_is_bound(schema, value, fits):
    schema = {"type": "string", **schema}
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}, "required": ["x"]}}
    matcher = compiler.compile(tool_calls([tool], choice="required"))
    reply = f"<tool_call>\n<function=f>\n<parameter=x>\n{value}\n</parameter>\n</function>\n</tool_call>"
    for token in tokenizer().encode(reply):
        if not matcher.allowed()[token]:
            assert not fits
            return
        matcher.feed(token)
    assert fits


def test_alternatives_behind_references_are_told_apart():
    kinds = {
        kind: {
            "type": "object",
            "properties": {"kind": {"const": kind}, "next": {"oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}},
            "required": ["kind"],
        }
        for kind in ("a", "b")
    }
    schema = {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": kinds}
    for text in written(Grammar.json_schema(schema), 6):
        jsonschema.validate(json.loads(text), schema)


def test_parameters_come_in_any_order():
    orders = set()
    for seed in range(60):
        text = write(tool_calls([WEATHER], choice="required", parallel=False), seed)
        if text is not None:
            [(_, parameters)] = read_calls(text)[0]
            orders.add(tuple(key for key, _ in parameters))
    assert {("city", "days"), ("days", "city")} <= {
        tuple(k for k in order if k in ("city", "days")) for order in orders
    }


@pytest.mark.parametrize("word", ["\x7f", "\u2028", "\U0001f600", 'a"\\/\b\n', "é"])
def test_words_of_any_characters(word):
    unit = {"type": "string", "enum": ["plain", word]}
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"unit": unit}, "required": ["unit"]}}
    matcher = compiler.compile(tool_calls([tool], choice="required"))
    reply = f"<tool_call>\n<function=f>\n<parameter=unit>\n{word}\n</parameter>\n</function>\n</tool_call>"
    for token in tokenizer().encode(reply):
        assert matcher.allowed()[token]
        matcher.feed(token)


def test_more_parameters_than_bits():
    many = {
        "name": "many",
        "parameters": {
            "type": "object",
            "properties": {f"p{i}": {"type": "boolean"} for i in range(70)},
            "required": [f"p{i}" for i in range(70)],
        },
    }
    text = write(tool_calls([many], choice="many", parallel=False), 1, limit=6000)
    [(_, parameters)] = read_calls(text)[0]
    assert [key for key, _ in parameters] == [f"p{i}" for i in range(70)]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"n": {"enum": [1, 22]}}, "required": ["n"]}}},
        {"additionalProperties": {"enum": [1, 22]}},
    ],
)
def test_a_schema_that_declares_its_parameters_elsewhere_is_held_to(schema):
    tool = {"name": "f", "parameters": schema}
    values = []
    for text in written(tool_calls([tool], choice="required", parallel=False), 12):
        parser = Parser([tool])
        (call,) = assistant_message([*parser.feed(text), *parser.finish()])["tool_calls"]
        values += json.loads(call["function"]["arguments"]).values()
    assert values and set(values) <= {1, 22}


def test_what_the_parser_makes_of_it():
    prompt = chat().render([{"role": "user", "content": "x"}], [WEATHER], enable_thinking=False)
    grammar = tool_calls([WEATHER], choice="required", after_reasoning=prompt.opens_reasoning)
    for text in written(grammar, 6):
        parser = chat().parser([WEATHER], prompt)
        events = [*parser.feed(text), *parser.finish()]
        assert not [event for event in events if type(event).__name__ == "Note"]
        assert [event for event in events if type(event).__name__ == "ToolCallEnd"]


def text_tool(**schema):
    return tool_calls([{"name": "f", "parameters": {"properties": {"x": {"type": "string", **schema}}}}])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grammar.json_schema([1]), "must be an object, not list"),
        (lambda: Grammar.json_schema({"type": "strin"}), "Invalid type: strin"),
        (
            lambda: Grammar.json_schema({"properties": {"a": {"items": {"type": "strin"}, "type": "array"}}}),
            r"at properties\.a\.items: Invalid type",
        ),
        (lambda: Grammar.json_schema({"anyOf": [{"type": "null"}, {"if": {}}]}), r"at anyOf\[1\]: Unimplemented keys"),
        (lambda: Grammar.json_schema({"type": "string", "pattern": "(?=a)"}), "look-around"),
        (lambda: Grammar.json_schema({"$ref": "https://example.com/x"}), "example.com"),
        (lambda: Grammar.regex("[a"), "unclosed character class"),
        (lambda: Grammar.lark("start: nowhere"), "nowhere"),
        (lambda: tool_calls([NOW], choice="then"), "tool_choice names 'then'; the tools are: now"),
        (lambda: tool_calls([], choice="required"), "there are no tools"),
        (lambda: tool_calls([{"name": "a b"}]), "a tool's name"),
        (
            lambda: tool_calls([{"name": "f", "parameters": {"properties": {"x": {"type": "intger"}}}}]),
            "tool 'f': its schema, parameter 'x': Invalid type: intger",
        ),
        (lambda: tool_calls([{"name": "f", "parameters": {"properties": {}, "required": ["x"]}}]), "requires 'x'"),
        (lambda: tool_calls([{"name": "f", "parameters": {"properties": ["x"]}}]), "properties must be an object"),
        (
            lambda: tool_calls([{"name": "f", "parameters": {"anyOf": [{"required": ["a"]}]}}]),
            "anyOf cannot be enforced",
        ),
        (
            lambda: tool_calls([{"name": "f", "parameters": {"properties": {}, "minProperties": 1}}]),
            "minProperties cannot",
        ),
        (lambda: tool_calls([{"name": "f", "parameters": {"$ref": "#/$defs/a"}}]), "names nothing in it"),
        (
            lambda: tool_calls(
                [{"name": "f", "parameters": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}}]
            ),
            "names",
        ),
        (lambda: tool_calls([{"name": "f", "parameters": {"required": True}}]), "required must be a list of names"),
        (lambda: tool_calls([{"type": "function", "function": None}]), "function must be an object, not NoneType"),
        (
            lambda: tool_calls([{"name": "f", "parameters": {"properties": {"x": {"type": "string", "enum": [1]}}}}]),
            r"parameter 'x': a string's enum must be a list of strings, not \[1\]",
        ),
        (lambda: tool_calls([{"name": "f", "parameters": {"properties": {"x": {"enum": 5}}}}]), "parameter 'x'"),
        (
            lambda: text_tool(pattern="(?=a)b"),
            r"parameter 'x': its pattern '\(\?=a\)b' cannot be enforced: .*look-around",
        ),
        (lambda: text_tool(pattern=5), "pattern must be a string, not 5"),
        (lambda: text_tool(minLength=-1), "minLength must be a whole number, not -1"),
        (lambda: text_tool(maxLength="3"), "maxLength must be a whole number, not '3'"),
        (lambda: text_tool(minLength=3, maxLength=2), "minLength is 3 and maxLength 2"),
        (lambda: text_tool(enum=["a"], minLength=2), "no word of its enum"),
        (lambda: text_tool(enum=["a"], pattern="a"), "cannot have a pattern too"),
        (
            lambda: Grammar.json_schema({"properties": {"n": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}}),
            r"at properties\.n: oneOf can be enforced only where no two alternatives can fit at once",
        ),
        (lambda: Grammar.json_schema(nested(5000)), "nested too deeply"),
        (lambda: compiler.compile(Grammar.lark('start: <no_such_token> "a"')), "unknown special token"),
    ],
)
def test_errors_name_the_part(make, said):
    with pytest.raises(GrammarError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_vocabulary_is_there_before_the_first_grammar():
    with running() as bench:
        deadline = time.monotonic() + 60
        while bench.engine._grammars._vocabulary is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_engine_keeps_to_the_grammar():
    number = {"type": "integer", "minimum": 0, "maximum": 99}
    schema = {"type": "object", "properties": {"n": number}, "required": ["n"], "additionalProperties": False}
    grammar = Grammar.json_schema(schema)
    with running() as bench:
        with bench.paused():
            handles = [
                bench.engine.submit(
                    request(text_tokens(i, 30), grammar=grammar, temperature=1.0, seed=i, max_tokens=300, n=2)
                )
                for i in range(4)
            ]
            free = bench.engine.submit(request(text_tokens(0, 30)))
        replies = [reply for handle in handles for reply in handle.result()]
        for reply in replies:
            assert reply.finish.reason == "stop"
            jsonschema.validate(json.loads(reply.text), schema)
        assert len({reply.text for reply in replies}) > 1
        assert free.result()[0].finish.reason == "length"
        # Not even a bias, or a wish to go on for ever, leads out of it.
        forced = bench.ask([1], grammar=grammar, logit_bias={65: 1000.0}, ignore_eos=True, max_tokens=300)
        jsonschema.validate(json.loads(forced.text), schema)
