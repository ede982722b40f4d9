"""Compares the chat formats with other implementations, reply by reply and prompt by prompt. Run by hand:

    python -m benchmarks.chat_formats --sglang FOLDER --vllm FOLDER --transformers \\
        --templates FOLDER --encoders FOLDER [--json FILE]

`--sglang`: a folder with sglang's package unpacked (`sglang/srt/function_call/`); needs orjson and partial_json_parser.
`--vllm`: a folder with vLLM's source package unpacked (`vllm/`); needs what its parsers import: regex, cachetools,
msgspec, cbor2, fastapi, aiohttp, openai_harmony, partial_json_parser, ijson, uvloop, pybase64, mistral_common.
`--transformers`: the installed library's reading, of Qwen3.5's format alone; needs fastapi.
`--templates`: a folder of published chat templates, as llama.cpp's `models/templates` is.
`--encoders`: a folder with DeepSeek's published encoders, as vLLM's `vllm/tokenizers` is.
Replies are those that our templates show for generated conversations; each implementation parses them, and what it
finds is compared with the calls that were rendered. Prompts are rendered by our template and the published one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import chat_peers
from benchmarks.chat_peers import Encoder, Reader
from tests.chat_formats import TOOLS, amounts_to, comparable, conversation, parse, written

from ramet.chat import TemplateError
from ramet.chat.format import Format
from ramet.chat.formats import FORMATS
from ramet.chat.messages import for_template
from ramet.chat.template import ChatTemplate

_TEMPLATES = {
    "qwen3_5": "Qwen3.5-4B.jinja",
    "glm5": "GLM-4.7-Flash.jinja",
    "minimax_m2": "MiniMax-M2.jinja",
    "kimi_k25": "Kimi-K2-Thinking.jinja",
    "deepseek_v32": "deepseek-ai-DeepSeek-V3.2.jinja",
    "deepseek_v4": "deepseek-ai-DeepSeek-V4.jinja",
}

_ENCODERS = {"deepseek_v32": "deepseek_v32_encoding.py", "deepseek_v4": "deepseek_v4_encoding.py"}


def compare_replies(format: Format, reader: Reader, count: int) -> dict[str, Any]:
    """How many replies with calls each reads as they were rendered, and the first that the other reads differently."""
    draw = random.Random(7)
    template = ChatTemplate(format.template, format.name)
    ours = theirs = tried = 0
    examples = []
    while tried < count:
        messages = conversation(draw, format)
        if "tool_calls" not in messages[-1]:
            continue
        tried += 1
        reply, in_reasoning = written(template, format, messages)
        meant = comparable(messages[-1])
        ours += amounts_to(parse(format, [reply], in_reasoning=in_reasoning)) == meant
        answer = reply.split("</think>")[-1]
        try:
            found: Any = reader(answer)
        except Exception as error:  # whatever another's parser raises is its answer
            found = f"{type(error).__name__}: {error}"
        theirs += found == meant["calls"]
        if found != meant["calls"] and len(examples) < 6:
            examples.append({"reply": answer, "meant": meant["calls"], "found": found})
    return {"tried": tried, "ours": ours, "theirs": theirs, "examples": examples}


def published(file: Path, format: Format) -> Encoder:
    """A template as an encoder."""
    template = ChatTemplate(file.read_text(encoding="utf-8"), file.name)

    def encode(messages: list[dict[str, Any]], tools: list[Any]) -> str:
        variables = {**format.named, "messages": messages, "add_generation_prompt": True, "enable_thinking": True}
        return template.render(variables | ({"tools": tools} if tools else {}))

    return encode


def compare_prompts(format: Format, theirs: Encoder, count: int, tools: list[Any]) -> dict[str, Any]:
    """How many prompts our template renders as another does, and the first that differ."""
    draw = random.Random(8)
    template = ChatTemplate(format.template, format.name)
    equal = refused = 0
    examples = []
    for _ in range(count):
        messages = for_template(conversation(draw, format))
        calls = messages[-1].get("tool_calls") or ()
        if calls and draw.random() < 0.5:
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": "It is done."} for call in calls]
        else:
            messages.append({"role": "user", "content": "And?"})
        variables = {**format.named, "messages": messages, "add_generation_prompt": True, "enable_thinking": True}
        mine = template.render(variables | ({"tools": tools} if tools else {}))
        try:
            other = theirs(messages, tools)
        except (TemplateError, ValueError) as error:
            refused += 1
            other = str(error)
        equal += mine == other
        if mine != other and len(examples) < 4:
            at = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), 0)
            examples.append({"ours": mine[max(0, at - 60) : at + 80], "theirs": other[max(0, at - 60) : at + 80]})
    return {"tried": count, "equal": equal, "refused": refused, "examples": examples}


def main() -> None:
    """Print what differs; write the counts where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sglang", type=Path)
    parser.add_argument("--vllm", type=Path)
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--encoders", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def row(name: str, value: int, peer: int | None, note: str) -> None:
        rows.append({"name": name, "value": value, "unit": "of " + str(options.count), "target": options.count})
        rows[-1] |= {"peer": peer, "note": note}

    peers: dict[str, Callable[[Format], Reader | None]] = {}
    if options.sglang:
        peers["sglang"] = chat_peers.sglang(options.sglang)
    if options.vllm:
        peers["vLLM"] = chat_peers.vllm(options.vllm)
    if options.transformers:
        peers["transformers"] = chat_peers.transformers()
    for format in FORMATS:
        for name, reader_of in peers.items():
            reader = reader_of(format)
            if reader is None:
                continue
            told = compare_replies(format, reader, options.count)
            counts = f"ours {told['ours']}, {name} {told['theirs']} of {told['tried']}"
            print(f"{format.name}: replies read as rendered: {counts}")
            for example in told["examples"]:
                print(json.dumps(example, ensure_ascii=False))
            row(f"chat {format.name}: replies read as rendered", told["ours"], told["theirs"], f"peer: {name}")
        writers: dict[str, Encoder] = {}
        if options.templates and format.name in _TEMPLATES:
            writers[_TEMPLATES[format.name]] = published(options.templates / _TEMPLATES[format.name], format)
        if options.encoders and format.name in _ENCODERS:
            writers[_ENCODERS[format.name]] = chat_peers.encoder(options.encoders / _ENCODERS[format.name])
        for name, writer in writers.items():
            for tools in ([], TOOLS):
                told = compare_prompts(format, writer, options.count, tools)
                what = f"prompts {'with' if tools else 'without'} tools"
                print(f"{format.name}: {what} equal to {name}: {told['equal']} of {told['tried']}")
                print(f"  refused by it: {told['refused']}")
                for example in told["examples"]:
                    print(json.dumps(example, ensure_ascii=False))
                row(f"chat {format.name}: {what}", told["equal"], None, name)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
