"""How a checkpoint's template wants to be told of calls: published ones differ in what they take without an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ramet.chat.template import ChatTemplate, TemplateError, TemplateStoppedError

_NAME, _KEY, _VALUE = "ramet_probe", "ramet_key", "ramet_value"


@dataclass(frozen=True)
class CallMessages:
    """What of an assistant's message with calls a template is given."""

    as_text: bool = False
    """Arguments as JSON text, as DeepSeek V3's and V3.1's templates join them, and not as an object."""
    empty: Mapping[str, str | None] = field(default_factory=dict)
    """In place of an absent content: nothing, or an empty text or None, where a template asks for that."""

    @classmethod
    def of(cls, template: ChatTemplate, variables: Mapping[str, Any]) -> CallMessages:
        """The first way in which `template` shows a call, tried out; the usual one for a template that shows none."""
        for as_text in (False, True):
            for content in ({}, {"content": ""}, {"content": None}):
                way = cls(as_text, content)
                try:
                    text = template.render({**variables, "messages": way.told(_PROBE)})
                except TemplateStoppedError:
                    return cls()  # whoever renders will hear of it
                except TemplateError:
                    continue
                # An object that is printed, and not written as JSON, shows Python's quotes.
                if all(part in text for part in (_NAME, _KEY, _VALUE)) and f"'{_KEY}'" not in text:
                    return way
        return cls()

    def told(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Copies of `messages`, as `messages.for_template` gives them, whose calls the template can show."""
        return [self._told(message) for message in messages]

    def _told(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if not message.get("tool_calls"):
            return dict(message)
        calls = [self._call(call) for call in message["tool_calls"]]
        empty = self.empty if message.get("content") in (None, "", []) else {}
        return {**message, **empty, "tool_calls": calls}

    def _call(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.as_text:
            return call
        if "function" in call:
            return {**call, "function": self._call(call["function"])}
        return {**call, "arguments": json.dumps(call["arguments"], ensure_ascii=False)}


_PROBE: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "0", "type": "function", "function": {"name": _NAME, "arguments": {_KEY: _VALUE}}}],
    },
    {"role": "tool", "tool_call_id": "0", "content": "r"},
]
