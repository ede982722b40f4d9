"""Compares the chat formats with other implementations, reply by reply and prompt by prompt. Run by hand:

    python -m benchmarks.chat_formats --sglang FOLDER --templates FOLDER [--json FILE]

`--sglang`: a folder with sglang's package unpacked (`sglang/srt/function_call/`); needs orjson and partial_json_parser.
`--templates`: a folder of published chat templates, as llama.cpp's `models/templates` is.
Replies are those that our templates show for generated conversations; each implementation parses them, and what it
finds is compared with the calls that were rendered. Prompts are rendered by our template and the published one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import random
import sys
import types
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tests.chat_formats import TOOLS, amounts_to, comparable, conversation, parse, written

from ramet.chat import TemplateError
from ramet.chat.format import Format
from ramet.chat.formats import FORMATS
from ramet.chat.messages import for_template
from ramet.chat.template import ChatTemplate

_DETECTORS = {
    "qwen3_5": ("qwen3_coder_detector", "Qwen3CoderDetector"),
    "glm5": ("glm47_moe_detector", "Glm47MoeDetector"),
    "minimax_m2": ("minimax_m2", "MinimaxM2Detector"),
    "kimi_k25": ("kimik2_detector", "KimiK2Detector"),
    "deepseek_v3": ("deepseekv3_detector", "DeepSeekV3Detector"),
    "deepseek_v32": ("deepseekv32_detector", "DeepSeekV32Detector"),
    "deepseek_v4": ("deepseekv4_detector", "DeepSeekV4Detector"),
}
_TEMPLATES = {
    "qwen3_5": "Qwen3.5-4B.jinja",
    "glm5": "GLM-4.7-Flash.jinja",
    "minimax_m2": "MiniMax-M2.jinja",
    "kimi_k25": "Kimi-K2-Thinking.jinja",
    "deepseek_v32": "deepseek-ai-DeepSeek-V3.2.jinja",
    "deepseek_v4": "deepseek-ai-DeepSeek-V4.jinja",
}


class _Function(BaseModel):
    name: str
    description: str | None = None
    parameters: Any = None
    strict: bool = False


class _Tool(BaseModel):
    type: str = "function"
    function: _Function


class _Anything(types.ModuleType):
    """Stands for a module that the detectors import and do not use to parse."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return None

    def get(self, *args: Any) -> bool:
        return False


def _detectors(folder: Path) -> Any:
    """sglang's package of detectors, without the server around it."""
    for name, where in (
        ("sglang", folder / "sglang"),
        ("sglang.srt", folder / "sglang/srt"),
        ("sglang.srt.function_call", folder / "sglang/srt/function_call"),
    ):
        module = types.ModuleType(name)
        module.__path__ = [str(where)]
        sys.modules[name] = module
    for name in ("sglang.srt.entrypoints", "sglang.srt.entrypoints.openai", "sglang.srt.environ", "xgrammar"):
        sys.modules[name] = _Anything(name)
    protocol = types.ModuleType("sglang.srt.entrypoints.openai.protocol")
    vars(protocol).update(Tool=_Tool, ToolChoice=_Tool, Function=_Function)
    sys.modules[protocol.__name__] = protocol
    logging.disable(logging.CRITICAL)
    return lambda module, name: getattr(importlib.import_module(f"sglang.srt.function_call.{module}"), name)()


def _found(detector: Any, reply: str, tools: list[_Tool]) -> list[tuple[str, str]]:
    calls = detector.detect_and_parse(reply, tools).calls
    return [(call.name, repr(json.loads(call.parameters))) for call in calls]


def compare_replies(format: Format, detector_of: Any, count: int) -> dict[str, Any]:
    """How many replies with calls each reads as they were rendered, and the first that the other reads differently."""
    draw = random.Random(7)
    template = ChatTemplate(format.template, format.name)
    tools = [_Tool.model_validate(tool) for tool in TOOLS]
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
            found: Any = _found(detector_of(*_DETECTORS[format.name]), answer, tools)
        except Exception as error:  # whatever another's parser raises is its answer
            found = f"{type(error).__name__}: {error}"
        theirs += found == meant["calls"]
        if found != meant["calls"] and len(examples) < 6:
            examples.append({"reply": answer, "meant": meant["calls"], "found": found})
    return {"tried": tried, "ours": ours, "theirs": theirs, "examples": examples}


def compare_prompts(format: Format, file: Path, count: int) -> dict[str, Any]:
    """How many prompts without tools our template renders as the published one does, and the first that differ."""
    draw = random.Random(8)
    ours, theirs = ChatTemplate(format.template, format.name), ChatTemplate(file.read_text(encoding="utf-8"), file.name)
    equal = refused = 0
    examples = []
    for _ in range(count):
        messages = for_template(conversation(draw, format))
        messages.append({"role": "user", "content": "And?"})
        variables = {**format.named, "messages": messages, "add_generation_prompt": True, "enable_thinking": True}
        mine = ours.render(variables)
        try:
            other = theirs.render(variables)
        except TemplateError as error:
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
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def row(name: str, value: int, peer: int | None, note: str) -> None:
        rows.append({"name": name, "value": value, "unit": "of " + str(options.count), "target": options.count})
        rows[-1] |= {"peer": peer, "note": note}

    detector_of = _detectors(options.sglang) if options.sglang else None
    for format in FORMATS:
        if detector_of is not None:
            told = compare_replies(format, detector_of, options.count)
            counts = f"ours {told['ours']}, sglang {told['theirs']} of {told['tried']}"
            print(f"{format.name}: replies read as rendered: {counts}")
            for example in told["examples"]:
                print(json.dumps(example, ensure_ascii=False))
            row(f"chat {format.name}: replies read as rendered", told["ours"], told["theirs"], "peer: sglang")
        if options.templates and format.name in _TEMPLATES:
            told = compare_prompts(format, options.templates / _TEMPLATES[format.name], options.count)
            print(f"{format.name}: prompts equal to {_TEMPLATES[format.name]}: {told['equal']} of {told['tried']}")
            print(f"  refused by it: {told['refused']}")
            for example in told["examples"]:
                print(json.dumps(example, ensure_ascii=False))
            row(f"chat {format.name}: prompts as published", told["equal"], None, _TEMPLATES[format.name])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
