"""Other implementations' readers of replies and writers of prompts, each run out of a package in a folder."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tests.chat_formats import TOOLS, vocabulary

from ramet.chat.format import Format
from ramet.models.random import write_tokenizer

Encoder = Callable[..., str]
"""The prompt of messages and tools, with reasoning on; some take an `effort`."""
Reader = Callable[[str], list[tuple[str, str]]]
"""The calls in a reply behind its reasoning: names, and arguments as Python writes them."""
Thinker = Callable[[str], str]
"""The reasoning of a reply that begins inside one."""

_SGLANG = {
    "qwen3_5": ("qwen3_coder_detector", "Qwen3CoderDetector"),
    "glm5": ("glm47_moe_detector", "Glm47MoeDetector"),
    "minimax_m2": ("minimax_m2", "MinimaxM2Detector"),
    "kimi_k25": ("kimik2_detector", "KimiK2Detector"),
    "deepseek_v3": ("deepseekv3_detector", "DeepSeekV3Detector"),
    "deepseek_v31": ("deepseekv31_detector", "DeepSeekV31Detector"),
    "deepseek_v32": ("deepseekv32_detector", "DeepSeekV32Detector"),
    "deepseek_v4": ("deepseekv4_detector", "DeepSeekV4Detector"),
}
_VLLM = {
    "qwen3_5": ("parser.qwen3", "Qwen3Parser"),
    "glm5": ("parser.glm47_moe", "Glm47MoeParser"),
    "minimax_m2": ("parser.minimax_m2", "MinimaxM2Parser"),
    "kimi_k25": ("parser.kimi_k2", "KimiK2Parser"),
    "deepseek_v3": ("tool_parsers.deepseekv3_tool_parser", "DeepSeekV3ToolParser"),
    "deepseek_v31": ("tool_parsers.deepseekv31_tool_parser", "DeepSeekV31ToolParser"),
    "deepseek_v32": ("parser.deepseek_v32", "DeepSeekV32Parser"),
    "deepseek_v4": ("parser.deepseek_v4", "DeepSeekV4Parser"),
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
    """Stands for a module that is imported and not used to parse."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name[:1].isupper():  # may be a class, and stand in annotations
            return type(name, (), {"__class_getitem__": classmethod(lambda cls, _: cls)})
        return _Anything(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return None

    def get(self, *args: Any) -> bool:
        return False


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `_Anything` for packages that are not installed."""

    def __init__(self, *packages: str) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        known = name.split(".")[0] in self._packages
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _package(name: str, where: Path) -> None:
    """A package without what its `__init__` does."""
    module = types.ModuleType(name)
    module.__path__ = [str(where)]
    sys.modules[name] = module


def sglang(folder: Path) -> Callable[[Format], Reader]:
    """sglang's detectors, without the server around them. `folder` holds `sglang/`."""
    for name in ("sglang", "sglang.srt", "sglang.srt.function_call"):
        _package(name, folder / name.replace(".", "/"))
    for name in ("sglang.srt.entrypoints", "sglang.srt.entrypoints.openai", "sglang.srt.environ", "xgrammar"):
        sys.modules[name] = _Anything(name)
    protocol = types.ModuleType("sglang.srt.entrypoints.openai.protocol")
    vars(protocol).update(Tool=_Tool, ToolChoice=_Tool, Function=_Function)
    sys.modules[protocol.__name__] = protocol
    logging.disable(logging.CRITICAL)
    tools = [_Tool.model_validate(tool) for tool in TOOLS]

    def reader(format: Format) -> Reader:
        module, name = _SGLANG[format.name]
        detector = getattr(importlib.import_module(f"sglang.srt.function_call.{module}"), name)

        def read(reply: str) -> list[tuple[str, str]]:
            calls = detector().detect_and_parse(reply, tools).calls
            return [(call.name, repr(json.loads(call.parameters))) for call in calls]

        return read

    return reader


def vllm(folder: Path) -> tuple[Callable[[Format], Reader], Callable[[Format], Thinker | None]]:
    """vLLM's parsers of calls and of reasoning, without what runs models. `folder` holds `vllm/`, as its source does.

    They see the text, as a non-streaming answer is read, and not the tokens.
    """
    _package("vllm", folder / "vllm")
    sys.meta_path.append(_Stubs("xgrammar", "zmq", "cpuinfo", "prometheus_client"))
    logging.disable(logging.CRITICAL)
    protocol = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    asked = [{"role": "user", "content": "Q"}]
    request = protocol.ChatCompletionRequest(model="m", messages=asked, tools=TOOLS)

    def fresh(format: Format) -> Callable[[], Any]:
        from transformers import PreTrainedTokenizerFast

        module, name = _VLLM[format.name]
        parser = getattr(importlib.import_module(f"vllm.{module}"), name)
        with tempfile.TemporaryDirectory() as words:
            write_tokenizer(Path(words), chat=vocabulary(format))
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{words}/tokenizer.json")
        return lambda: parser(tokenizer, request.tools)

    def reader(format: Format) -> Reader:
        make = fresh(format)

        def read(reply: str) -> list[tuple[str, str]]:
            parser = make()
            extract = getattr(parser, "extract_tool_calls_from_content", None) or parser.extract_tool_calls
            calls = extract(reply, request).tool_calls
            return [(call.function.name, repr(json.loads(call.function.arguments))) for call in calls]

        return read

    def thinker(format: Format) -> Thinker | None:
        make = fresh(format)
        if not hasattr(make(), "parse"):  # a reader of calls alone
            return None
        return lambda reply: str(make().parse(reply, request)[0] or "")

    return reader, thinker


def transformers() -> Callable[[Format], Reader | None]:
    """transformers' own reading of replies, of which it knows one format here: Qwen3.5's."""
    known = importlib.import_module("transformers.cli.serving.utils")._RESPONSE_TEMPLATE_FALLBACKS
    parse = importlib.import_module("transformers.utils.chat_parsing").parse_response

    def reader(format: Format) -> Reader | None:
        template = next((found for types, found in known.items() if set(types) & set(format.model_types)), None)
        if template is None:
            return None
        before = "<|im_start|>assistant\n<think>\n\n</think>"

        def read(reply: str) -> list[tuple[str, str]]:
            calls = parse(f"{reply}<|im_end|>", template, prefix=before, tools=TOOLS).get("tool_calls", [])
            return [(call["function"]["name"], repr(call["function"]["arguments"])) for call in calls]

        return read

    return reader


def _module(file: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declarer(file: Path) -> Callable[[list[Any]], str | None]:
    """Kimi K2.5's encoder of tools, as its checkpoint and tinker-cookbook have it; None for what it cannot declare."""
    encode = _module(file).encode_tools_to_typescript_style

    def declare(tools: list[Any]) -> str | None:
        try:
            return str(encode(tools))
        except Exception:  # upon which the checkpoint's tokenizer shows JSON
            return None

    return declare


def encoder(file: Path) -> Encoder:
    """DeepSeek's published encoder, as vLLM and sglang carry it: one module. Tools are the first system message's."""
    module = _module(file)

    def encode(messages: list[dict[str, Any]], tools: list[Any], effort: str | None = None) -> str:
        given = [{**message, "reasoning": message.get("reasoning_content")} for message in messages]
        if tools:
            if given[0]["role"] != "system":
                given.insert(0, {"role": "system", "content": ""})
            given[0]["tools"] = tools
        about = {} if effort is None else {"reasoning_effort": effort}
        text: str = module.encode_messages(given, "thinking", **about)
        return text

    return encode
