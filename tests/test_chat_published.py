"""What published checkpoints ask of whoever renders for them: each gets what it can read and knows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import ramet.chat.template
from ramet.chat import Chat, TemplateError, Tokenizer
from ramet.chat.declarations import sorted_keys, typescript
from ramet.chat.efforts import ENCODER
from ramet.chat.formats import DEEPSEEK_V3, DEEPSEEK_V4, DEEPSEEK_V31, FORMATS, format_of_template
from ramet.chat.template import ChatTemplate
from ramet.models.random import write_tokenizer
from tests.chat_support import tool_call, write_chat_files
from tests.tool_schemas import declared_tools

USER = {"role": "user", "content": "q"}
ASKED = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [tool_call("look", '{"at": "Köln", "days": [1, null]}')]},
    {"role": "tool", "tool_call_id": "call_0", "content": "r"},
]
WRITTEN = 'look({"at": "Köln", "days": [1, null]})'


def chat_of(folder: Path, template: str) -> Chat:
    write_chat_files(folder, template=template)
    return Chat.load(folder, Tokenizer.load(folder))


# How a template is told of calls.

_TURNS = "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{% BODY %}<|im_end|>\n{% endfor -%}"


def _calls(arguments: str, join: str = "+") -> str:
    return (
        f"{{% for c in m.tool_calls %}}{{{{ c.function.name {join} '(' {join} {arguments} {join} ')' }}}}{{% endfor %}}"
    )


GIVEN = "c.function.arguments"


@pytest.mark.parametrize(
    "body",
    [
        "{% if m.tool_calls %}" + _calls(f"{GIVEN} | tojson") + "{% endif %}{{ m.content }}",  # an object, as most take
        "{% if m.tool_calls %}" + _calls(GIVEN) + "{% endif %}{{ '' + m.content }}",  # text: DeepSeek V3 and V3.1
        "{% if m.content is none %}" + _calls(GIVEN) + "{% else %}{{ m.content }}{% endif %}",  # the first V3
        "{% if m.tool_calls %}"
        + _calls(GIVEN, "~")
        + "{% endif %}{{ m.content }}",  # an object would come in Python's words
    ],
    ids=["object", "text", "no content", "printed"],
)
def test_every_template_can_show_a_call(body: str, tmp_path: Path) -> None:
    source = _TURNS.replace("{% BODY %}", body)
    prompt = chat_of(tmp_path, source).render(ASKED, add_generation_prompt=False)
    assert prompt.text == (
        f"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n{WRITTEN}<|im_end|>\n<|im_start|>tool\nr<|im_end|>\n"
    )


def test_a_content_beside_a_call_is_left_as_it_is(tmp_path: Path) -> None:
    body = "{% if m.tool_calls %}" + _calls(GIVEN) + "{% endif %}{{ '' + m.content }}"
    chat = chat_of(tmp_path, _TURNS.replace("{% BODY %}", body))
    messages = [USER, {**ASKED[1], "content": "so"}]
    assert f"assistant\n{WRITTEN}so<|im_end|>" in chat.render(messages, add_generation_prompt=False).text


def test_a_template_that_never_ends_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    render = ChatTemplate.render
    monkeypatch.setattr(ChatTemplate, "render", lambda self, given: tried.append(given) or render(self, given))
    monkeypatch.setattr(ramet.chat.template, "SECONDS", 0.2)
    chat = chat_of(tmp_path, "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    assert len(tried) == 1
    with pytest.raises(TemplateError, match="was stopped: it ran for more"):
        chat.render([USER])


def test_a_template_that_changes_a_list_is_refused_as_by_transformers(tmp_path: Path) -> None:
    """llama.cpp's rewritings of Kimi's templates do; the published ones do not."""
    source = "{%- set ids = [] -%}{%- for m in messages -%}{%- set _ = ids.append(m.role) -%}{{ ids }}{%- endfor -%}"
    with pytest.raises(TemplateError, match=r"append.*unsafe"):
        chat_of(tmp_path, source).render([USER])
    with pytest.raises(Exception, match=r"append.*unsafe"):
        PreTrainedTokenizerFast.from_pretrained(tmp_path).apply_chat_template([USER], tokenize=False)


# Whether to think, and how much.


def test_thinking_goes_by_either_name(tmp_path: Path) -> None:
    """Kimi K2.5's and DeepSeek V3.1's templates call it `thinking`."""
    chat = chat_of(tmp_path, "{{ thinking }} {{ enable_thinking }}")
    assert chat.render([USER]).text == " "
    assert chat.render([USER], enable_thinking=False).text == "False False"
    assert chat.render([USER], enable_thinking=False, thinking=True).text == "True False"


FIRST = 'REASONING_EFFORT_MAX = (\n    "Think a lot.\\n"\n    "Really.\\n\\n"\n)\n'
LATER = (
    'REASONING_EFFORT_PROMPTS: Dict[str, str] = {"low": "", "high": "Think a lot.\\n\\n", "max": "All of it.\\n\\n"}\n'
)
PLAIN = "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>"


def deepseek(folder: Path, encoder: str | None) -> Chat:
    """A V4 checkpoint's words, which come with an encoder and without a template."""
    write_tokenizer(folder, chat="deepseek_v4")
    (folder / "chat_template.jinja").unlink()
    (folder / "config.json").write_text('{"model_type": "deepseek_v4"}')
    if encoder is not None:
        (folder / ENCODER).parent.mkdir()
        (folder / ENCODER).write_text(f'"""An encoder."""\nimport os\n\nbos_token = "b"\n{encoder}\nos.abort()\n')
    return Chat.load(folder, Tokenizer.load(folder))


@pytest.mark.parametrize(
    ("encoder", "effort", "words"),
    [
        (None, "low", ""),
        (None, "medium", ""),
        (FIRST, "low", ""),
        (FIRST, "high", ""),
        (FIRST, "max", "Think a lot.\nReally.\n\n"),
        (FIRST, "xhigh", "Think a lot.\nReally.\n\n"),
        (LATER, "low", ""),
        (LATER, "medium", ""),
        (LATER, "high", "Think a lot.\n\n"),
        (LATER, "max", "All of it.\n\n"),
    ],
)
def test_an_effort_is_asked_for_as_the_checkpoint_was_trained(
    encoder: str | None, effort: str, words: str, tmp_path: Path
) -> None:
    chat = deepseek(tmp_path, encoder)
    begin = "<｜begin▁of▁sentence｜>"
    assert chat.render([USER], reasoning_effort=effort).text == PLAIN.replace(begin, begin + words)
    system = {"role": "system", "content": "S"}
    assert chat.render([system, USER], reasoning_effort=effort).text == PLAIN.replace(begin, begin + words + "S")
    silent = PLAIN.replace("<think>", "</think>")
    assert chat.render([USER], reasoning_effort=effort, enable_thinking=False).text == silent
    assert chat.render([USER], reasoning_effort="none").text == silent


@pytest.mark.parametrize(
    "encoder", [None, "REASONING_EFFORT_MAX = f()", "REASONING_EFFORT_PROMPTS = {1: 2}", "(", "\0"]
)
@pytest.mark.parametrize("effort", ["high", "xhigh", "max"])
def test_an_effort_whose_words_are_not_known_is_an_error(encoder: str | None, effort: str, tmp_path: Path) -> None:
    chat = deepseek(tmp_path, encoder)
    assert chat.render([USER]).text == PLAIN
    with pytest.raises(TemplateError, match=f"reasoning effort {effort} stands in its encoding/encoding_dsv4.py"):
        chat.render([USER], reasoning_effort=effort)


@pytest.mark.parametrize("encoder", [None, LATER])
def test_an_effort_that_nobody_knows_is_an_error(encoder: str | None, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"knows the reasoning efforts none, low, .* not ultra"):
        deepseek(tmp_path, encoder).render([USER], reasoning_effort="ultra")


# Kimi K2.5's tools.

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The forecast.\nBy day.",
        "parameters": {
            "type": "object",
            "$defs": {"Unit": {"enum": ["°C", "°F"], "description": "Of heat"}},
            "properties": {
                "unit": {"$ref": "#/$defs/Unit", "default": "°C"},
                "city": {"type": "string", "maxLength": 9, "description": "Where"},
                "days": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 7},
                "more": {"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}}},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
DECLARED = """# Tools

## functions
namespace functions {
// Of heat
interface Unit "°C" | "°F"
// The forecast.
// By day.
type weather = (_: {
  // Where
  // maxLength: 9
  city: string,
  // maxItems: 7
  days?: Array<
    // minimum: 0
    number
  >,
  more?: {
    a?: null | boolean
  },
  // Default: "°C"
  unit?: Unit,
  [k: string]: never
}) => any;
}
"""


def test_kimi_shows_no_reasoning_where_it_is_off(tmp_path: Path) -> None:
    kimi = next(format for format in FORMATS if format.name == "kimi_k25")
    chat = chat_of(tmp_path, kimi.template)
    messages = [USER, {**ASKED[1], "reasoning_content": "Look there."}, ASKED[2]]
    on, off = (chat.render(messages, enable_thinking=think).text for think in (True, False))
    assert "<think>Look there.</think>" in on and on.endswith("<think>")
    assert "Look there" not in off and off.endswith("<think></think>")


def test_tools_are_declared_as_kimi_was_shown_them(tmp_path: Path) -> None:
    assert typescript([sorted_keys(TOOL)]) == DECLARED
    kimi = next(format for format in FORMATS if format.name == "kimi_k25")
    chat = chat_of(tmp_path, kimi.template)
    assert f"<|im_system|>tool_declare<|im_middle|>{DECLARED}<|im_end|>" in chat.render([USER], [TOOL]).text
    assert "tool_declare" not in chat.render([USER]).text


def test_declarations_are_those_of_the_published_encoder() -> None:
    """Schemas with everything that it knows; the digest is of what it writes, as tinker-cookbook 0.6.1 carries it."""
    text = "".join(str(typescript(sorted_keys(declared_tools(seed)))) for seed in range(300))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "9d6fa1e90e50649c9dbbec936f1cfd235f94b895e50941fa4178f37f23d5ab9f"
    )


@pytest.mark.parametrize("schema", [{"const": 1}, {"$ref": "#/$defs/None"}, {"type": "string", "enum": [1]}])
def test_what_cannot_be_declared_is_shown_as_json(schema: dict[str, Any], tmp_path: Path) -> None:
    parameters = {"type": "object", "properties": {"b": schema, "a": {}}}
    tool = {"type": "function", "function": {"parameters": parameters, "name": "f"}}
    kimi = next(format for format in FORMATS if format.name == "kimi_k25")
    shown = (
        chat_of(tmp_path, kimi.template).render([USER], [tool]).text.split("<|im_middle|>")[1].split("<|im_end|>")[0]
    )
    assert shown == json.dumps([tool], sort_keys=True)


# DeepSeek V3 and V3.1, which share a model_type.


def test_templates_of_deepseek_are_told_apart() -> None:
    assert format_of_template("{{ '<｜tool▁sep｜>' }} ```json") is DEEPSEEK_V3
    assert format_of_template("{{ '<｜tool▁sep｜>' }}") is DEEPSEEK_V31
    assert format_of_template("<｜DSML｜tool_calls>") is DEEPSEEK_V4


def test_segments_of_deepseek_v31_end_with_turns_and_results(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat="deepseek_v3")
    (tmp_path / "chat_template.jinja").write_text(DEEPSEEK_V31.template)
    chat = Chat.load(tmp_path, Tokenizer.load(tmp_path))
    calls = [tool_call("look", {"at": "x"}), tool_call("look", {}, "call_1")]
    results = [{"role": "tool", "tool_call_id": f"call_{n}", "content": f"r{n}"} for n in range(2)]
    prompt = chat.render([USER, {"role": "assistant", "content": "so", "tool_calls": calls}, *results])
    assert prompt.texts == [
        "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>",
        '</think>so<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>{"at": "x"}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>look<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
        "<｜tool▁output▁begin｜>r0<｜tool▁output▁end｜><｜tool▁output▁begin｜>r1<｜tool▁output▁end｜>",
    ]
    assert [message and message["role"] for message in prompt.messages] == ["user", "assistant", "tool"]
    assert prompt.generation_prompt == "" and not prompt.opens_reasoning
    assert chat.render([USER], enable_thinking=True).opens_reasoning
