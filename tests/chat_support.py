"""A small tokenizer of Qwen's kind, in a folder like a checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from ramet.chat import QWEN3_5

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PLAIN = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")

_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = (
    "The tool is called with its parameters, and what it returns comes back to the model.",
    "system user assistant tool function name parameters required description type object properties string integer",
    "What is the weather in Paris today? It is sunny: 21 degrees, and 12 km/h of wind from the west.",
    '{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}',
    "def main():\n    print('hello, world')\n\n\nif __name__ == '__main__':\n    main()\n",
    "<function=search>\n<parameter=query>\nvalue\n</parameter>\n</function>\n",
    "Grüße aus Köln, 東京, Москва, 🙂🙃 and café",
)


def build_tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE of 600 tokens, NFC, with Qwen's way of cutting text into pieces and its control tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in PLAIN])
    return tokenizer


def write_chat_files(folder: Path, *, template: str = QWEN3_5, config: dict[str, Any] | None = None) -> Path:
    """The files of a checkpoint that concern its chat format."""
    tokenizer = build_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", **(config or {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    ends = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def function_tool(name: str, **properties: Any) -> dict[str, Any]:
    """A tool in OpenAI's form whose parameters have these schemas."""
    parameters = {"type": "object", "properties": properties}
    return {
        "type": "function",
        "function": {"name": name, "description": f"Does <{name}> & more", "parameters": parameters},
    }


TOOLS = [
    function_tool("search", query={"type": "string"}, limit={"type": "integer"}),
    function_tool("größe", value={"type": "object"}),
]


def tool_call(name: str, arguments: dict[str, Any] | str, call_id: str = "call_0") -> dict[str, Any]:
    """A call in OpenAI's form."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


_texts = st.text(max_size=24) | st.sampled_from(
    [
        "",
        " ",
        "Hello there.\n",
        "a\n\nb",
        "Grüße 🙂 東京",
        "<think>\nmm\n</think>\n\nso",
        "<tool_response>\nx\n</tool_response>",
    ]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=4,
)
_contents = _texts | st.lists(st.builds(lambda text: {"type": "text", "text": text}, _texts), max_size=3)
_calls = st.builds(
    tool_call, st.sampled_from(["search", "größe"]), st.dictionaries(st.text("abc_é", min_size=1), _values, max_size=3)
)


def _without_none(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None}


_assistants = st.builds(
    lambda content, reasoning, calls: _without_none(
        {"role": "assistant", "content": content, "reasoning_content": reasoning, "tool_calls": calls}
    ),
    st.none() | _contents,
    st.none() | _texts,
    st.none() | st.lists(_calls, max_size=3),
)
_users = st.builds(lambda content: {"role": "user", "content": content}, _contents)
_results = st.builds(lambda content: {"role": "tool", "tool_call_id": "call_0", "content": content}, _contents)
_systems = st.builds(lambda content: {"role": "system", "content": content}, _texts)
conversations = st.builds(
    lambda system, question, rest: [*system, {"role": "user", "content": f"Q: {question}"}, *rest],
    st.lists(_systems, max_size=1),
    _texts,
    st.lists(_users | _assistants | _assistants | _results, max_size=7),
)
"""Conversations in OpenAI's chat form that Qwen3.5's format can show; call arguments are objects."""
