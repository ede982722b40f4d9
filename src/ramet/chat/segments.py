"""The segments of a rendered conversation: where they are cut, which message each shows, and their tokens."""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from ramet.chat.messages import MessageError
from ramet.chat.tokenizer import Tokenizer

_HEADER = re.compile(r"\s*<\|im_start\|>(\w+)")
_CACHED_CHARACTERS = 1 << 26

MARK = "\ufdd0"
"""Stands inside what is written like a control token in a message. A Unicode noncharacter: no text has it."""


class Segments:
    """Cuts renderings into segments and encodes those, which equals encoding the whole: they meet at a control token.

    Tokens are kept by text, the longest unused dropped first, so that a conversation that grows is encoded only where
    it is new. Safe to use from several threads.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._specials = sorted(tokenizer.special_texts, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, self._specials)) or "(?!)")
        self._known: OrderedDict[str, array[int]] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def protect(self, value: Any) -> Any:
        """A copy of `value` (JSON) in which nothing reads as a control token. Raises MessageError if it is too deep."""
        try:
            return self._protected(value)
        except RecursionError:
            raise MessageError("the messages or tools are nested too deeply") from None

    def _protected(self, value: Any) -> Any:
        if isinstance(value, str):
            for special in self._specials:
                if special in value:
                    value = value.replace(special, special[0] + MARK + special[1:])
            return value
        if isinstance(value, Mapping):
            return {self._protected(key): self._protected(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._protected(item) for item in value]
        return value

    def unprotect(self, text: str) -> str:
        """`text` as it was before `protect`."""
        if MARK in text:
            for special in self._specials:
                text = text.replace(special[0] + MARK + special[1:], special)
        return text

    def cut(self, text: str) -> list[str]:
        """`text` cut after every end of a turn; the last piece, which may be empty, is not a finished turn."""
        end = self._tokenizer.turn_end
        pieces = text.split(end)
        return [*(piece + end for piece in pieces[:-1]), pieces[-1]]

    def encode(self, piece: str) -> Sequence[int]:
        """The tokens of a protected segment."""
        with self._lock:
            known = self._known.get(piece)
            if known is not None:
                self._known.move_to_end(piece)
                return known
        tokens = array("i", self.encode_new(piece))
        with self._lock:
            if piece not in self._known:
                self._known[piece] = tokens
                self._characters += len(piece)
            while self._characters > _CACHED_CHARACTERS and len(self._known) > 1:
                dropped, _ = self._known.popitem(last=False)
                self._characters -= len(dropped)
        return tokens

    def encode_new(self, piece: str) -> list[int]:
        """The tokens of a protected segment that is not worth keeping."""
        if MARK not in piece:
            return self._tokenizer.encode(piece)
        tokens: list[int] = []
        at = 0
        for special in self._special.finditer(piece):
            tokens += self._tokenizer.encode_plain(self.unprotect(piece[at : special.start()]))
            tokens += self._tokenizer.encode(special.group())
            at = special.end()
        return tokens + self._tokenizer.encode_plain(self.unprotect(piece[at:]))


def assign(
    texts: Sequence[str], messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None
) -> list[dict[str, Any] | None]:
    """For each segment, the message that it shows; None for all where that cannot be told.

    Templates differ in whether results of tools share a turn, and whether tools, or nothing at all, make a system turn
    of their own: the way is taken that gives as many turns as there are, of the right roles.
    """
    roles = [header.group(1) if (header := _HEADER.match(text)) else None for text in texts]
    for share, lead in product((True, False), (True, False)):
        units = _units(messages, tools, share=share, lead=lead)
        if len(units) == len(texts) and all(map(_may_head, roles, units)):
            return units
    return [None] * len(texts)


def _units(
    messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None, *, share: bool, lead: bool
) -> list[dict[str, Any] | None]:
    units: list[dict[str, Any] | None] = []
    for index, message in enumerate(messages):
        last = units[-1] if units else None
        if index == 0 and tools and message["role"] == "system":
            units.append({**message, "tools": tools})
        elif share and message["role"] == "tool" and last is not None and last["role"] == "tool":
            units[-1] = {"role": "tool", "messages": [*last.get("messages", [last]), message]}
        else:
            units.append(message)
    if lead and messages[0]["role"] != "system":
        units.insert(0, {"role": "system", "tools": tools} if tools else None)
    return units


def _may_head(role: str | None, unit: dict[str, Any] | None) -> bool:
    if unit is None:  # a system turn that the template makes up
        return role == "system"
    return role is None or role == unit["role"] or (role == "user" and unit["role"] == "tool")
