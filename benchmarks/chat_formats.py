"""Compares the chat formats with other implementations, reply by reply and prompt by prompt. Run by hand:

    python -m benchmarks.chat_formats --sglang FOLDER --vllm FOLDER --transformers \\
        --templates FOLDER --encoders FOLDER --declarations FILE [--count 200] [--json FILE]

`--sglang`: a folder with sglang's package unpacked (`sglang/srt/function_call/`); needs orjson and partial_json_parser.
`--vllm`: a folder with vLLM's source package unpacked (`vllm/`); needs what its parsers import: regex, cachetools,
msgspec, cbor2, fastapi, aiohttp, openai_harmony, partial_json_parser, ijson, uvloop, pybase64, mistral_common.
`--transformers`: the installed library's reading, of Qwen3.5's format alone; needs fastapi.
`--templates`: a folder of published chat templates, as llama.cpp's `models/templates` is.
`--encoders`: a folder with DeepSeek's published encoders, as vLLM's `vllm/tokenizers` is.
`--declarations`: Kimi K2.5's `tool_declaration_ts.py`, also in tinker-cookbook (`kimi_k2_5_tool_declaration_ts.py`).
Replies are those that our templates show for generated conversations, with the format's own markers in texts and
values, and without (`plain`); each implementation parses them, and what it finds is compared with the calls that were
rendered. vLLM's reading of reasoning is compared too, blanks around it aside. Prompts are rendered by our template and
the published one, and for DeepSeek V4 with each effort that its encoder names.
"""

from __future__ import annotations

import argparse
import json
import random
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import chat_peers
from benchmarks.chat_peers import Encoder, Reader, Thinker
from tests.chat_formats import FORGETS, TOOLS, amounts_to, comparable, conversation, parse, written
from tests.tool_schemas import declared_tools

from ramet.chat import TemplateError
from ramet.chat.call_messages import CallMessages
from ramet.chat.declarations import sorted_keys, typescript
from ramet.chat.efforts import efforts_in
from ramet.chat.format import Format
from ramet.chat.formats import FORMATS
from ramet.chat.messages import for_template
from ramet.chat.template import ChatTemplate

_TEMPLATES = {
    "qwen3_5": "Qwen3.5-4B.jinja",
    "glm5": "GLM-4.7-Flash.jinja",
    "minimax_m2": "MiniMax-M2.jinja",
    "kimi_k25": "moonshotai-Kimi-K2-Thinking.jinja",
    "deepseek_v32": "deepseek-ai-DeepSeek-V3.2.jinja",
    "deepseek_v4": "deepseek-ai-DeepSeek-V4.jinja",
    "deepseek_v31": "deepseek-ai-DeepSeek-V3.1.jinja",
}
_LEFT_OPEN = {"kimi_k25": "<think>"}
"""What ours begins a reply with, and Kimi K2 Thinking's leaves to the model."""

_ENCODERS = {"deepseek_v32": "deepseek_v32_encoding.py", "deepseek_v4": "deepseek_v4_encoding.py"}


def compare_replies(format: Format, reader: Reader, count: int, *, plain: bool) -> dict[str, Any]:
    """How many replies with calls each reads as they were rendered, and the first that the other reads differently.

    `unlike_none` and `unlike_blanks`: how many differ only in a null that was written `None`, or in blanks at the ends
    of texts.
    """
    draw = random.Random(7)
    template = ChatTemplate(format.template, format.name)
    ours = theirs = tried = nones = blanks = 0
    examples = []
    while tried < count:
        messages = conversation(draw, format, plain=plain)
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
        found, calls = _numbers(found), _numbers(meant["calls"])
        theirs += found == calls
        if found != calls:
            nones += _as(found, lambda value: None if value == "None" else value) == _as(calls)
            blanks += _as(found, _stripped) == _as(calls, _stripped)
            examples.append({"reply": answer, "meant": calls, "found": found})
    about = {"unlike_none": nones, "unlike_blanks": blanks, "examples": examples[:6]}
    return {"tried": tried, "ours": ours, "theirs": theirs, **about}


def _numbers(calls: Any) -> Any:
    """Calls in which a float that is written as a whole number, which is the same number, is one."""
    if not isinstance(calls, list):
        return calls
    return [(name, arguments.replace("1000000000000000000000", "1e+21")) for name, arguments in calls]


def _as(calls: Any, change: Callable[[Any], Any] = lambda value: value) -> Any:
    """Calls with their arguments as objects, each value changed."""
    if not isinstance(calls, list):
        return calls
    return [(name, {key: change(each) for key, each in literal_eval(given).items()}) for name, given in calls]


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def compare_reasoning(format: Format, thinker: Thinker, count: int) -> dict[str, Any]:
    """How many reasonings each reads as they were rendered, blanks around them aside."""
    draw = random.Random(7)
    template = ChatTemplate(format.template, format.name)
    ours = theirs = tried = 0
    examples = []
    while tried < count:
        messages = conversation(draw, format)
        meant = messages[-1].get("reasoning_content")
        if not meant:
            continue
        tried += 1
        reply, in_reasoning = written(template, format, messages)
        ours += amounts_to(parse(format, [reply], in_reasoning=in_reasoning))["reasoning"] == meant
        try:
            found = thinker(reply)
        except Exception as error:  # whatever another's parser raises is its answer
            found = f"{type(error).__name__}: {error}"
        theirs += found.strip() == meant
        if found.strip() != meant and len(examples) < 4:
            examples.append({"reply": reply, "meant": meant, "found": found})
    return {"tried": tried, "ours": ours, "theirs": theirs, "examples": examples}


def compare_declarations(declare: Callable[[list[Any]], str | None], count: int) -> dict[str, Any]:
    """How many lists of tools are declared alike, and how many neither can declare."""
    pairs = [(typescript(tools), declare(tools)) for tools in (sorted_keys(declared_tools(n)) for n in range(count))]
    return {"equal": sum(a == b for a, b in pairs), "neither": sum(a is None and b is None for a, b in pairs)}


def published(file: Path, format: Format) -> Encoder:
    """A template as an encoder."""
    template = ChatTemplate(file.read_text(encoding="utf-8"), file.name)
    calls = CallMessages.of(template, format.named)

    def encode(messages: list[dict[str, Any]], tools: list[Any]) -> str:
        variables = {
            **format.named,
            "messages": calls.told(messages),
            "add_generation_prompt": True,
            "enable_thinking": True,
        }
        return template.render(variables | ({"tools": tools} if tools else {}))

    return encode


def compare_prompts(
    format: Format,
    theirs: Encoder,
    count: int,
    tools: list[Any],
    efforts: dict[str, str] | None = None,
    effort: str | None = None,
) -> dict[str, Any]:
    """How many prompts our template renders as another does, and the first that differ.

    `efforts` are those of the other, of which `effort` is asked for.
    """
    draw = random.Random(8)
    template = ChatTemplate(format.template, format.name, {"efforts": efforts})
    about = {} if effort is None else {"effort": effort}
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
        variables |= {"reasoning_effort": effort, **({"tools": tools} if tools else {})}
        mine = template.render(variables).removesuffix(_LEFT_OPEN.get(format.name, ""))
        try:
            other = theirs(messages, tools, **about)
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
    parser.add_argument("--declarations", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def row(name: str, value: int, peer: int | None, note: str) -> None:
        rows.append({"name": name, "value": value, "unit": "of " + str(options.count), "target": options.count})
        rows[-1] |= {"peer": peer, "note": note}

    peers: dict[str, Callable[[Format], Reader | None]] = {}
    thinker_of: Callable[[Format], Thinker | None] = lambda format: None  # noqa: E731
    if options.sglang:
        peers["sglang"] = chat_peers.sglang(options.sglang)
    if options.vllm:
        peers["vLLM"], thinker_of = chat_peers.vllm(options.vllm)
    if options.transformers:
        peers["transformers"] = chat_peers.transformers()
    for format in FORMATS:
        for name, reader_of in peers.items():
            reader = reader_of(format)
            if reader is None:
                continue
            for plain in (False, True):
                what = f"{'plain ' if plain else ''}replies read as rendered"
                told = compare_replies(format, reader, options.count, plain=plain)
                counts = f"ours {told['ours']}, {name} {told['theirs']} of {told['tried']}"
                print(f"{format.name}: {what}: {counts}", flush=True)
                print(f"  but for None {told['unlike_none']}, but for blanks {told['unlike_blanks']}")
                for example in told["examples"]:
                    print(json.dumps(example, ensure_ascii=False))
                row(f"chat {format.name}: {what}", told["ours"], told["theirs"], f"peer: {name}")
        thinker = thinker_of(format) if format.name not in FORGETS else None
        if thinker is not None:
            told = compare_reasoning(format, thinker, options.count)
            print(
                f"{format.name}: reasoning: ours {told['ours']}, vLLM {told['theirs']} of {told['tried']}", flush=True
            )
            for example in told["examples"]:
                print(json.dumps(example, ensure_ascii=False))
            row(f"chat {format.name}: reasoning read as rendered", told["ours"], told["theirs"], "peer: vLLM")
        if options.declarations and format.name == "kimi_k25":
            told = compare_declarations(chat_peers.declarer(options.declarations), options.count)
            print(f"{format.name}: declarations equal {told['equal']}, of them none {told['neither']}")
            row(f"chat {format.name}: declarations", told["equal"], None, options.declarations.name)
        writers: dict[str, Encoder] = {}
        if options.templates and (options.templates / _TEMPLATES.get(format.name, "-")).is_file():
            writers[_TEMPLATES[format.name]] = published(options.templates / _TEMPLATES[format.name], format)
        if options.encoders and format.name in _ENCODERS:
            writers[_ENCODERS[format.name]] = chat_peers.encoder(options.encoders / _ENCODERS[format.name])
        for name, writer in writers.items():
            source = options.encoders / name if options.encoders else None
            efforts = efforts_in(source.read_text()) if source is not None and source.is_file() else None
            for tools, effort in [([], None), (TOOLS, None), *((TOOLS, effort) for effort in efforts or ())]:
                told = compare_prompts(format, writer, options.count, tools, efforts, effort)
                what = f"prompts {'with' if tools else 'without'} tools{f', effort {effort}' if effort else ''}"
                print(f"{format.name}: {what} equal to {name}: {told['equal']} of {told['tried']}")
                print(f"  refused by it: {told['refused']}")
                for example in told["examples"]:
                    print(json.dumps(example, ensure_ascii=False))
                row(f"chat {format.name}: {what}", told["equal"], None, name)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
