"""Text as the lexical index sees it: which words a turn is found by."""

from __future__ import annotations

import re
import threading
import unicodedata
from datetime import datetime

import Stemmer

from ramet.memory.base import Turn

FORMAT = 2
"""Goes up when the terms or entities of a text, or how their lists are kept, change: an older index does not fit."""

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

_LONGEST = 64
"""Characters of a word that count; longer ones are keys and encoded data."""

_STEMS = 1 << 17
"""Words whose stems are kept."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"\d+(?:[.,]\d+)+|[{_CJK}]+|[^\W_{_CJK}]+(?:'[^\W_{_CJK}]+)*")
_ASCII_WORD = re.compile(r"\d+(?:[.,]\d+)+|[a-z0-9]+(?:'[a-z0-9]+)*", re.ASCII)
"""What `_WORD` finds in lower case ASCII."""
_IS_CJK = re.compile(rf"[{_CJK}]")
_stemmer = Stemmer.Stemmer("english")
_stemming = threading.Lock()
"""A stemmer serves one thread at a time."""


def indexed_text(turn: Turn) -> str:
    """What a turn is found by, and what is embedded: `[8 May 2023] Caroline: Hello`."""
    return heading(turn.speaker, turn.time) + turn.text


def heading(speaker: str, time: datetime | None) -> str:
    """What `indexed_text` has before the text: `[8 May 2023] Caroline: `. No term reaches from one into the other."""
    said_by = f"{speaker}: " if speaker else ""
    return f"[{show_date(time)}] {said_by}" if time is not None else said_by


def show_date(time: datetime) -> str:
    """`8 May 2023`."""
    return f"{time.day} {MONTHS[time.month - 1]} {time.year}"


def terms(text: str) -> list[str]:
    """The index terms of a text, in order, repeated as they are: lower case, no accents, English stems.

    Runs of Chinese, Japanese and Korean characters give their pairs (one character alone: itself).
    """
    if text.isascii():
        return list(map(_stems.__getitem__, _ASCII_WORD.findall(text.lower())))
    decomposed = unicodedata.normalize("NFKD", text)
    text = unicodedata.normalize("NFC", "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f"))
    words = _WORD.findall(text.replace("\u2019", "'").casefold())
    found: list[str] = []
    for word in words:
        if _IS_CJK.match(word):
            found += [word[i : i + 2] for i in range(len(word) - 1)] or [word]
        else:
            found.append(_stems[word])
    return found


class _Stems(dict[str, str]):
    """Stems of words, those that were asked for kept."""

    def __missing__(self, word: str) -> str:
        if word[0].isdigit():
            stem = word[:_LONGEST].replace(",", "")
        else:
            with _stemming:
                stem = str(_stemmer.stemWord(word[:_LONGEST])) or word
        if len(self) >= _STEMS:
            self.clear()
        self[word] = stem
        return stem


_stems = _Stems()
