"""What a model may write under the grammar of calls is a call in its family's format, whatever it prefers to write."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ramet.chat import Chat, Note, Parser, TemplateError, Tokenizer, assistant_message
from ramet.chat.format import Format
from ramet.chat.formats import DEEPSEEK_V4, FORMATS
from ramet.engine.grammar import GrammarCompiler
from ramet.engine.tool_grammar import tool_calls
from ramet.models.random import write_tokenizer
from tests.chat_formats import vocabulary

SCHEMA = {
    "type": "object",
    "properties": {
        "short": {"type": "string", "maxLength": 3},
        "count": {"type": "integer", "enum": [1, 22]},
        "text": {"type": "string"},
    },
    "required": ["short", "count"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "act", "parameters": SCHEMA}}, {"name": "any"}]


def write(tokenizer: Tokenizer, format: Format, grammar: Any, seed: int) -> str | None:
    """The text of a writer who picks allowed tokens at random, and closes what may be closed now and then."""
    draw = random.Random(seed)
    matcher = GrammarCompiler(tokenizer).compile(grammar)
    ends = set(tokenizer.eos_ids)
    layout = format.layout
    closing = (layout.parameter[2], '"', "}", layout.section[1], "</think>", layout.section[0] + layout.call[0])
    wishes = [tokenizer.encode(text) for text in closing]
    tokens: list[int] = []
    wish: list[int] = []
    for _ in range(3000):
        allowed = set(np.flatnonzero(matcher.allowed()).tolist())
        if allowed & ends and (allowed <= ends or draw.random() < 0.3):
            return tokenizer.decode(tokens)
        if not wish and draw.random() < 0.25:
            wish = list(draw.choice(wishes))
        wish = wish if wish and wish[0] in allowed else []
        tokens.append(wish.pop(0) if wish else draw.choice(sorted(allowed - ends)))
        if matcher.feed(tokens[-1]):
            return tokenizer.decode(tokens)
    return None


@pytest.mark.parametrize("choice", ["required", "auto"])
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_what_may_be_written_is_a_call_that_fits_its_schema(format: Format, choice: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat=vocabulary(format))
    tokenizer = Tokenizer.load(tmp_path)
    done = 0
    for seed in range(6):
        reasons = seed % 2 == 0 and format.name != "deepseek_v3"
        text = write(tokenizer, format, tool_calls(TOOLS, choice=choice, after_reasoning=reasons, format=format), seed)
        if text is None:
            continue
        done += 1
        parser = Parser(TOOLS, format=format, in_reasoning=reasons)
        events = [*parser.feed(text), *parser.finish()]
        assert not any(isinstance(event, Note) for event in events), text
        message = assistant_message(events)
        assert choice == "auto" or (message["tool_calls"] and message["content"] is None)
        for call in message.get("tool_calls", ()):
            if call["function"]["name"] == "act":
                arguments = json.loads(call["function"]["arguments"])
                assert {"short", "count"} <= set(arguments) <= set(SCHEMA["properties"])
                assert len(arguments["short"]) <= 3 and arguments["count"] in (1, 22)
    assert done >= 4


def test_a_family_that_publishes_no_template_has_ours(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat="deepseek_v4")
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer = Tokenizer.load(tmp_path)
    with pytest.raises(TemplateError, match="no chat template"):
        Chat.load(tmp_path, tokenizer)
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v4"}')
    chat = Chat.load(tmp_path, tokenizer)
    assert chat.format is DEEPSEEK_V4
    prompt = chat.render([{"role": "user", "content": "<｜Assistant｜>"}])
    assert prompt.text == "<｜begin▁of▁sentence｜><｜User｜><｜Assistant｜><｜Assistant｜><think>"
    assert prompt.tokens.count(tokenizer.token_id("<｜Assistant｜>")) == 1  # what a user writes is no token
    assert prompt.opens_reasoning
