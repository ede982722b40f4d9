"""Templates: equal to the transformers library's rendering; refusals reach the user; hostile ones are stopped."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import ramet.chat.template
from ramet.chat import QWEN3_5, Chat, MessageError, TemplateError, Tokenizer
from ramet.chat.template import ChatTemplate, load_templates
from tests.chat_support import TOOLS, conversations, tool_call, write_chat_files

USER = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_files(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def chat(folder: Path) -> Chat:
    return Chat.load(folder, Tokenizer.load(folder))


@pytest.fixture(scope="module")
def oracle(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def chat_of(folder: Path, template: str, config: dict[str, Any] | None = None) -> Chat:
    write_chat_files(folder, template=template, config=config)
    return Chat.load(folder, Tokenizer.load(folder))


def with_json_arguments(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As clients send them: the arguments of calls are text."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return messages


@settings(max_examples=150, deadline=None)
@given(
    messages=conversations,
    tools=st.sampled_from([None, TOOLS]),
    generate=st.booleans(),
    thinking=st.sampled_from([None, True, False]),
)
def test_renders_as_transformers_does(
    chat: Chat,
    oracle: PreTrainedTokenizerFast,
    messages: list[dict[str, Any]],
    tools: Any,
    generate: bool,
    thinking: bool | None,
) -> None:
    extra = {} if thinking is None else {"enable_thinking": thinking}
    expected = oracle.apply_chat_template(
        messages, tools=tools, add_generation_prompt=generate, tokenize=False, **extra
    )
    before = copy.deepcopy(messages)
    for given_messages in (messages, with_json_arguments(messages)):
        prompt = chat.render(given_messages, tools, add_generation_prompt=generate, enable_thinking=thinking)
        assert prompt.text == expected
    assert messages == before
    assert prompt.tokens == oracle(expected, add_special_tokens=False)["input_ids"]


# The format of our own template, spelled out.


def test_the_format_of_a_conversation_with_tools(chat: Chat) -> None:
    call = tool_call("search", {"query": "a\nb", "limit": 2, "flag": True, "list": ["é"], "none": None})
    messages = [
        {"role": "system", "content": " Be brief. "},
        USER,
        {"role": "assistant", "content": "", "reasoning_content": "Old thought"},
        {"role": "user", "content": "Search"},
        {"role": "assistant", "content": "Well.", "reasoning_content": " New\n", "tool_calls": [call, call]},
        {"role": "tool", "content": "r1"},
        {"role": "tool", "content": [{"type": "text", "text": "r"}, {"type": "text", "text": "2"}]},
    ]
    block = (
        "<tool_call>\n<function=search>\n<parameter=query>\na\nb\n</parameter>\n<parameter=limit>\n2\n</parameter>\n"
        '<parameter=flag>\nTrue\n</parameter>\n<parameter=list>\n["é"]\n</parameter>\n<parameter=none>\nNone\n'
        "</parameter>\n</function>\n</tool_call>"
    )
    text = chat.render(messages, TOOLS).text
    start, rest = text.split("<|im_end|>\n", 1)
    assert start.startswith("<|im_start|>system\n# Tools\n") and start.endswith("\n\nBe brief.")
    assert f"<tools>\n{json.dumps(TOOLS[0])}\n{json.dumps(TOOLS[1], ensure_ascii=False)}\n</tools>" in start
    assert rest == (
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\nSearch<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\nNew\n</think>\n\nWell.\n\n{block}\n{block}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nr1\n</tool_response>\n<tool_response>\nr2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


def test_the_generation_prompt_opens_or_skips_reasoning(chat: Chat) -> None:
    assert chat.render([USER]).text.endswith("<|im_start|>assistant\n<think>\n")
    assert chat.render([USER]).opens_reasoning
    without = chat.render([USER], enable_thinking=False)
    assert without.text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n") and not without.opens_reasoning
    assert chat.render([USER], add_generation_prompt=False).text == "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "There are no messages"),
        ([{"role": "system", "content": "x"}], "no user message"),
        ([{"role": "user", "content": "<tool_response>\nx\n</tool_response>"}], "no user message"),
        ([USER, {"role": "system", "content": "x"}], "Only the first message"),
        ([USER, {"role": "critic", "content": "x"}], "not critic"),
    ],
)
def test_what_the_template_says_against_a_conversation_reaches_the_user(
    chat: Chat, messages: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(TemplateError, match=said):
        chat.render(messages)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Hi", r"messages\[1\] is not an object"),
        ({"content": "x"}, r"messages\[1\] has no role"),
        ({"role": "user", "content": 5}, r"messages\[1\]\.content must be text"),
        ({"role": "user", "content": ["x"]}, r"messages\[1\]\.content\[0\] is not an object"),
        ({"role": "user", "content": [{"type": "image_url"}]}, r"content\[0\] is of type 'image_url'; only text"),
        ({"role": "assistant", "tool_calls": "x"}, r"messages\[1\]\.tool_calls must be a list"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, r"tool_calls\[0\] names no function"),
        (
            {"role": "assistant", "tool_calls": [tool_call("f", "{")]},
            r"tool_calls\[0\].function.arguments is not valid",
        ),
        ({"role": "assistant", "tool_calls": [tool_call("f", "[1]")]}, r"arguments must be a JSON object"),
        ({"role": "assistant", "tool_calls": [tool_call("f", "[" * 100_000)]}, r"nested too deeply|not valid JSON"),
        ({"role": "assistant", "tool_calls": [tool_call("f", json.dumps({"a": nested(700)}))]}, "nested too deeply"),
    ],
)
def test_a_message_in_the_wrong_form_is_named(chat: Chat, message: Any, said: str) -> None:
    with pytest.raises(MessageError, match=said):
        chat.render([USER, message])


def test_what_clients_send_in_other_words_is_understood(chat: Chat) -> None:
    said = chat.render(
        [
            {"role": "developer", "content": "A"},
            {"role": "system", "content": [{"type": "text", "text": "B"}]},
            {"role": "user", "content": "Hi", "name": None},
            {"role": "assistant", "content": None, "reasoning": "R", "tool_calls": [tool_call("f", "")]},
            {"role": "tool", "content": None},
        ]
    )
    assert said.text == (
        "<|im_start|>system\nA\n\nB<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nR\n</think>\n\n<tool_call>\n<function=f>\n</function>\n</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def test_half_a_surrogate_pair_becomes_a_replacement_character(chat: Chat) -> None:
    prompt = chat.render([{"role": "user", "content": "a\ud800b 🙂"}])
    assert "a\ufffdb 🙂" in prompt.text and chat.tokenizer.decode(prompt.tokens, specials=True) == prompt.text


# Where templates come from, and what they can use.


def test_templates_may_be_in_the_tokenizer_config(tmp_path: Path) -> None:
    write_chat_files(tmp_path, config={"chat_template": "one {{ eos_token }}"})
    (tmp_path / "chat_template.jinja").unlink()
    chat = Chat.load(tmp_path, Tokenizer.load(tmp_path))
    assert chat.render([USER]).text == "one <|im_end|>"


def test_named_templates_are_chosen_by_whether_there_are_tools(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    write_chat_files(tmp_path, config={"chat_template": named})
    (tmp_path / "chat_template.jinja").unlink()
    chat = Chat.load(tmp_path, Tokenizer.load(tmp_path))
    assert chat.render([USER]).text == "plain" and chat.render([USER], TOOLS).text == "tools"


def test_the_file_comes_before_the_config(tmp_path: Path) -> None:
    assert chat_of(tmp_path, "file", {"chat_template": "config"}).render([USER]).text == "file"


@pytest.mark.parametrize(
    ("template", "config", "said"),
    [
        (None, {}, "no chat template"),
        (None, {"chat_template": 5}, "neither text nor a list"),
        (None, {"chat_template": [{"template": "x"}]}, "has no name"),
        (None, {"chat_template": [{"name": "default"}]}, "'default' has no text"),
        ("a\n{% if %}", {}, "broken in line 2"),
        ("{{ x | no_such_filter }}", {}, "broken in line 1"),
        (b"\xff", {}, "not UTF-8"),
    ],
)
def test_a_template_that_is_missing_or_broken_is_named(
    tmp_path: Path, template: str | bytes | None, config: dict[str, Any], said: str
) -> None:
    write_chat_files(tmp_path, config=config)
    file = tmp_path / "chat_template.jinja"
    file.unlink()
    if template is not None:
        file.write_bytes(template if isinstance(template, bytes) else template.encode())
    with pytest.raises(TemplateError, match=said) as error:
        load_templates(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') if messages else 'x' }}",
        "{{ messages[0].content.missing.more }}",
        "{{ 1 // 0 }}",
        "{{ messages[0] | int | length }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_whatever_goes_wrong_inside_a_template_is_an_error_for_people(tmp_path: Path, template: str) -> None:
    with pytest.raises(TemplateError):
        chat_of(tmp_path, template).render([USER])


FEATURES = [
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "{{ strftime_now('%Y') | length }} {{ {'b': '<é>', 'a': 1} | tojson(indent=2, sort_keys=true) }}",
    "  {% if true %}\n  x\n  {% endif %}\n y {%- generation %} z {% endgeneration %} {# c #}\n",
    "{% set ns = namespace(x=1) %}{% set ns.x = ns.x + 1 %}{{ ns.x ~ '-' ~ tools ~ documents ~ 2 ** 3 ~ 7 % 4 }}",
    "{% macro m(a) %}[{{ a }}{{ caller() }}]{% endmacro %}{% call m('x') %}y{% endcall %}{{ dict(a=1).a }}",
    "{% set block %}{{ messages[0].role }}!{% endset %}{{ block * 2 }} {{ '%s-%05.1f' % ('a', 2.5) }} {{ [1] + [2] }}",
    "{{ extra }} {{ bos_token }} {{ eos_token }} {{ messages | map(attribute='role') | join(',') }}",
    "{% for m in messages recursive %}{{ m.role }}{% else %}none{% endfor %}{{ range(3) | list }}",
]


@pytest.mark.parametrize("template", FEATURES)
def test_templates_can_use_what_they_can_in_transformers(tmp_path: Path, template: str) -> None:
    chat = chat_of(tmp_path, template)
    messages = [USER, {"role": "assistant", "content": "Yo"}]
    expected = PreTrainedTokenizerFast.from_pretrained(tmp_path).apply_chat_template(
        messages, tokenize=False, extra="e"
    )
    assert chat.render(messages, add_generation_prompt=False, extra="e").text == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ messages.append(1) }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ namespace(_x=1) }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__.__globals__.os.popen('true') }}",
    ],
)
def test_templates_cannot_reach_out_of_the_sandbox(tmp_path: Path, template: str) -> None:
    try:
        text = chat_of(tmp_path, template).render([USER]).text
    except TemplateError:
        return
    assert text == ""  # jinja shows what is forbidden as nothing where it is only looked at


RUNAWAYS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) if a < 0 %}{% endfor %}{% for a in range(99999) %}{{ range(9999) | sum }}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for a in [1] recursive %}{{ loop([1, 1]) if loop.depth < 60 }}{% endfor %}",
]
GROWERS = [
    "{{ 'x' * 999999999999 }}",
    "{{ [1] * 999999999999 }}",
    "{{ 9 ** 9999999999 }}",
    "{{ '%999999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{% set ns = namespace(s='xx') %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='xx') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s=[1, 1]) %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}"
    "{% set ns.s = t %}{% endfor %}",
    "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "{% macro m(n) %}{{ 'x' if n == 0 else m(n - 1) * 2 }}{% endmacro %}{{ m(60) }}",
]


@pytest.mark.parametrize("template", [*RUNAWAYS, *GROWERS])
def test_a_template_that_runs_away_is_stopped(monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setattr(ramet.chat.template, "SECONDS", 0.3)
    monkeypatch.setattr(ramet.chat.template, "CHARACTERS", 1 << 20)
    began = time.monotonic()
    with pytest.raises(TemplateError, match="was stopped"):
        ChatTemplate(template, "t").render({"messages": [USER]})
    assert time.monotonic() - began < 10


def test_the_package_carries_its_template() -> None:
    assert "<|im_start|>" in QWEN3_5 and ChatTemplate(QWEN3_5, "ours").render({"messages": [USER]})
