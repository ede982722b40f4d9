"""The segments of a rendered conversation: where they are cut, which message each shows, and their tokens."""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from ramet.chat.format import Format
from ramet.chat.messages import MessageError
from ramet.chat.tokenizer import Tokenizer

_CACHED_CHARACTERS = 1 << 26

MARK = "\ufdd0"
"""Stands inside what is written like a control token in a message. A Unicode noncharacter: no text has it."""


class Segments:
    """Cuts renderings into segments and encodes those, which equals encoding the whole: they meet at a control token.

    Tokens are kept by text, the longest unused dropped first, so that a conversation that grows is encoded only where
    it is new. Safe to use from several threads.
    """

    def __init__(self, tokenizer: Tokenizer, format: Format) -> None:
        self._tokenizer = tokenizer
        self._format = format
        known = [end for end in format.ends if tokenizer.token_id(end) in tokenizer.eos_ids]
        self.ends = tuple(dict.fromkeys([tokenizer.turn_end, *known]))
        """Texts of the tokens that end a reply."""
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
        pattern = self._format.cut_pattern
        if self.ends[0] not in self._format.ends:  # a vocabulary with a name of its own for it
            pattern = re.compile(re.escape(self.ends[0]))
        ends = [0, *(found.end() for found in pattern.finditer(text))]
        return [text[start:end] for start, end in zip(ends, [*ends[1:], len(text)], strict=True)]

    def without_end(self, segment: str) -> str:
        """A segment without what ends the turn in it."""
        for end in self.ends:
            if segment.endswith(end):
                return segment.removesuffix(end)
        return segment

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
    texts: Sequence[str], messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None, format: Format
) -> list[dict[str, Any] | None]:
    """For each segment, the message that it shows; None for all where that cannot be told.

    Templates differ in whether results of tools, or all that stands between two replies, share a segment, and whether
    tools, or nothing at all, make system turns of their own: the way is taken that gives as many segments as there are,
    of the right roles.
    """
    roles = []
    for text in texts:
        header = format.header_pattern.match(text)
        role = header.group("role") if header else None
        roles.append(format.roles.get(role, role) if role else None)
    for share, lead in product((_results, _never, _between_replies), (1, 0, 2)):
        units = _units(messages, tools, share=share, lead=lead)
        if len(units) == len(texts) and all(map(_may_head, roles, units)):
            return units
    return [None] * len(texts)


def _results(last: str, role: str) -> bool:
    return role == last == "tool"


def _never(last: str, role: str) -> bool:
    return False


def _between_replies(last: str, role: str) -> bool:
    return "assistant" not in (last, role)


def _units(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[Any] | None,
    *,
    share: Callable[[str, str], bool],
    lead: int,
) -> list[dict[str, Any] | None]:
    """The messages in the segments that they would have; `lead`: how many system turns are there in any case."""
    units: list[dict[str, Any] | None] = []
    has_system = messages[0]["role"] == "system"
    apart = lead - has_system > 0
    for index, message in enumerate(messages):
        last = units[-1] if units else None
        if index == 0 and tools and has_system and not apart:
            units.append({**message, "tools": tools})
        elif last is not None and share(last["role"], message["role"]):
            units[-1] = {"role": message["role"], "messages": [*last.get("messages", [last]), message]}
        else:
            units.append(message)
    for made_up in range(lead - has_system):
        units.insert(0, {"role": "system", "tools": tools} if tools and not made_up else None)
    return units


def _may_head(role: str | None, unit: dict[str, Any] | None) -> bool:
    if unit is None:  # a system turn that the template makes up
        return role == "system"
    return role is None or role == unit["role"] or (role in ("user", "system") and unit["role"] == "tool")
