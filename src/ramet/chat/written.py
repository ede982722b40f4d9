"""How models wrote the replies that come back as messages, where a template shows them in other words."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ramet.chat.messages import MessageError, for_template, text_of

_CHARACTERS = 1 << 24


class Place:
    """A place in a conversation: what stands before it, as a hash that grows with it."""

    def __init__(self, segments: Iterable[str] = ()) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        for segment in segments:
            self.go_past(segment)

    def go_past(self, segment: str) -> None:
        """To behind the next segment."""
        self._hash.update(segment.encode())

    @property
    def key(self) -> bytes:
        """Equal for equal places."""
        return self._hash.digest()


@dataclass(frozen=True)
class _Reply:
    generation_prompt: str
    text: str


class WrittenReplies:
    """Finds the text that a model wrote from the message that it amounts to.

    A template trims blanks and has its own spacing of JSON, so it may show a reply differently from how it was written.
    A reply is found only at the place in the conversation where it was written, by a message that says the same, in a
    turn that the template begins as it did then (not where it now hides the reasoning). The oldest are forgotten. Safe
    to use from several threads.
    """

    def __init__(self) -> None:
        self._replies: OrderedDict[bytes, dict[str, _Reply]] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def remember(self, place: Place, generation_prompt: str, text: str, message: Mapping[str, Any]) -> None:
        """`text` was written at `place`, behind `generation_prompt`, and was parsed to `message`."""
        meaning = _meaning(message)
        with self._lock:
            here = self._replies.setdefault(place.key, {})
            self._replies.move_to_end(place.key)
            self._characters += len(text) - (len(here[meaning].text) if meaning in here else 0)
            here[meaning] = _Reply(generation_prompt, text)
            while self._characters > _CHARACTERS and len(self._replies) > 1:
                _, dropped = self._replies.popitem(last=False)
                self._characters -= sum(len(reply.text) for reply in dropped.values())

    def find(self, place: Place, segment: str, message: Mapping[str, Any]) -> str | None:
        """What was written, generation prompt included, for `message`, which is shown as `segment` at `place`."""
        with self._lock:
            if place.key not in self._replies:
                return None
            self._replies.move_to_end(place.key)
            reply = self._replies[place.key].get(_meaning(message))
        reasoning = str(message.get("reasoning_content") or "").strip()
        if reply is None or not segment.startswith(reply.generation_prompt) or reasoning not in segment:
            return None
        return reply.generation_prompt + reply.text


def _meaning(message: Mapping[str, Any]) -> str:
    """What of an assistant's message counts: two that are equal in this are shown alike."""
    try:
        (message,) = for_template([message])
    except MessageError:  # no client can send it back
        return ""
    calls = [call.get("function", call) for call in message.get("tool_calls", ())]
    return json.dumps(
        [
            str(message.get("reasoning_content") or "").strip(),
            text_of(message).strip(),
            [(call["name"], call["arguments"]) for call in calls],
        ]
    )
