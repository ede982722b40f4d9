"""OpenAI Responses: from a reply's pieces to output items and the events that announce them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from ramet.chat import ReasoningDelta, TextDelta, Tokenizer, ToolCallArguments, ToolCallStart
from ramet.engine import FinishEvent
from ramet.server.chat_api import token_logprobs
from ramet.server.reply import Piece

Event = dict[str, Any]


class Output:
    """The output items of one reply as they grow. Every change is told as the events that a stream would carry."""

    def __init__(self, tokenizer: Tokenizer, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self.items: list[dict[str, Any]] = []
        self._open = False
        self._calls: dict[int, int] = {}
        """Position in `items` of each call, by the parser's index."""

    def add(self, piece: Piece) -> list[Event]:
        """Take in the reply's next piece."""
        events: list[Event] = []
        entries = token_logprobs(piece.logprobs, self._tokenizer) if self._logprobs else []
        for event in piece.events:
            match event:
                case TextDelta(text=text):
                    events += self._into("message")
                    self._part["text"] += text
                    if self._logprobs:
                        self._part["logprobs"] += entries
                    about = {"content_index": 0, "delta": text, "logprobs": entries}
                    events.append(self._event("response.output_text.delta", **about))
                    entries = []
                case ReasoningDelta(text=text):
                    events += self._into("reasoning")
                    self._part["text"] += text
                    events.append(self._event("response.reasoning_text.delta", content_index=0, delta=text))
                case ToolCallStart(index=index, id=id, name=name):
                    events += self._close()
                    self._calls[index] = len(self.items)
                    item = {"type": "function_call", "call_id": id, "name": name, "arguments": ""}
                    events += self._begin("fc", item)
                case ToolCallArguments(index=index, json=text):
                    self.items[self._calls[index]]["arguments"] += text
                    events.append(self._event("response.function_call_arguments.delta", delta=text))
        return events

    def finish(self, finish: FinishEvent) -> list[Event]:
        """The reply is over: close what is open."""
        return self._close("incomplete" if finish.reason == "length" else "completed")

    @property
    def _part(self) -> dict[str, Any]:
        part: dict[str, Any] = self.items[-1]["content"][0]
        return part

    def _event(self, type: str, **about: Any) -> Event:
        return {"type": type, "item_id": self.items[-1]["id"], "output_index": len(self.items) - 1, **about}

    def _into(self, kind: str) -> list[Event]:
        """Make the last item an open one of `kind`."""
        if self._open and self.items[-1]["type"] == kind:
            return []
        events = self._close()
        if kind == "message":
            events += self._begin("msg", {"type": "message", "role": "assistant", "content": []})
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            events += self._begin("rs", {"type": "reasoning", "summary": [], "content": []})
            part = {"type": "reasoning_text", "text": ""}
        self.items[-1]["content"].append(part)
        events.append(self._event("response.content_part.added", content_index=0, part=dict(part)))
        return events

    def _begin(self, prefix: str, item: dict[str, Any]) -> list[Event]:
        self.items.append({"id": f"{prefix}_{secrets.token_hex(16)}", "status": "in_progress", **item})
        self._open = True
        return [self._item_event("response.output_item.added")]

    def _close(self, status: str = "completed") -> list[Event]:
        if not self._open:
            return []
        self._open = False
        item = self.items[-1]
        item["status"] = status
        events: list[Event] = []
        if item["type"] == "function_call":
            arguments = {"name": item["name"], "arguments": item["arguments"]}
            events.append(self._event("response.function_call_arguments.done", **arguments))
        else:
            part = self._part
            if item["type"] == "message":
                about = {"content_index": 0, "text": part["text"], "logprobs": part["logprobs"]}
                events.append(self._event("response.output_text.done", **about))
            else:
                events.append(self._event("response.reasoning_text.done", content_index=0, text=part["text"]))
            events.append(self._event("response.content_part.done", content_index=0, part=dict(part)))
        return [*events, self._item_event("response.output_item.done")]

    def _item_event(self, type: str) -> Event:
        item = dict(self.items[-1])
        if "content" in item:
            item["content"] = [dict(part) for part in item["content"]]
        return {"type": type, "output_index": len(self.items) - 1, "item": item}


def usage(finish: FinishEvent, reasoning_tokens: int) -> Mapping[str, Any]:
    """The `usage` field."""
    used = finish.usage
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.reused, "cache_write_tokens": used.computed},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }
