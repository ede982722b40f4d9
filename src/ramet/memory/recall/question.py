"""What a question asks for, read off its words by rules: content words, the months, days and years it names, 'when'."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from ramet.memory.entities import relative_dates
from ramet.memory.words import MONTHS, terms

_COMMON = """
    a about after all also an and any anything are as at be because been before being but by can could did do does doing
    done for from get got had has have having he her hers him his how i if in into is it its just kind like long many
    may me might more most much my new of often on one or other our out over recent recently said she should so some
    something such than that the their theirs them then there these they thing this those to too type up us very was we
    well were what when where which while who whom whose why will with would you your yours s t ve re d ll m
"""
COMMON = frozenset(terms(_COMMON))
"""Index terms that say nothing about what a question is about."""

_ANY_MONTH = f"((?a:{'|'.join(MONTHS)}))"
_MONTH = re.compile(rf"\b{_ANY_MONTH}\b(?:\s+(\d{{1,2}})(?:st|nd|rd|th)?\b)?", re.IGNORECASE)
_DAY_MONTH = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_ANY_MONTH}\b", re.IGNORECASE)
_MAY = re.compile(r"\b(?:in|on|of|since|until|before|after|during|late|early|mid) May\b|\bMay,? \d|\d (?:of )?May\b")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_WHEN = re.compile(r"\bwhen\b|\b(?:what|which) (?:day|date|month|year|time|week)\b|\bhow long\b", re.IGNORECASE)
_TIMED = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|since|week|weekend|month|year|days?|(?:19|20)\d\d"
    rf"|{'|'.join(MONTHS[:4] + MONTHS[5:])}|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b",
    re.IGNORECASE,
)
_WHO = re.compile(
    r"\b(?:who|whom|whose|where|which|names?|named|called|city|cities|country|countries|states?|towns?)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r" (?<=[a-z,;] )([A-Z][a-z]+)")
"""A capital inside a sentence; in languages that write all nouns so it tells little, and does no harm."""
_ANY_NAME = re.compile(r"(?<=[^\W\d_A-Z] |[,;] )[^\W\d_a-z][^\W\d_A-Z]+")
"""The same in any letters; which of them are capitals is still to be seen."""
_HOW_MANY = re.compile(r"\bhow (?:many|much|long|old|often)\b", re.IGNORECASE)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|few|couple|dozen|once|twice)\b", re.IGNORECASE
)
_FIRST_PERSON = "I I'm I've I'd I'll I\u2019m I\u2019ve I\u2019d I\u2019ll me my My mine myself we We our Our us"
_OWN = frozenset(word + end for word in _FIRST_PERSON.split() for end in ("", *".,;:!?"))
_MOST_NAMES = 3
_NEAR = 3
"""Days: what happened on one is mostly told in the next few."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, read."""

    content: tuple[str, ...]
    """Its index terms without common words and without the speakers it names, each once."""
    speaker: str | None
    """The one known speaker whom it names; None where it names none or several."""
    when: bool
    """It asks for a time."""
    who: bool
    """It asks for a name: of a person, a place or a thing."""
    how_many: bool
    years: frozenset[int]
    months: frozenset[int]
    days: tuple[tuple[int, int], ...]
    """(month, day)."""

    @classmethod
    def read(cls, text: str, speakers: Iterable[str], time: datetime | None = None) -> Asked:
        """Read a question that is asked at `time`; `speakers` are the names that it may call."""
        words = terms(text)
        named = {
            speaker: own for speaker in speakers if (own := set(terms(speaker))) and _calls(text, words, speaker, own)
        }
        names = set().union(*named.values())
        if len(named) > 1:  # by a name that they share: who is called by all of theirs
            named = {speaker: own for speaker, own in named.items() if own.issubset(words)}
        content = tuple(dict.fromkeys(word for word in words if word not in COMMON and word not in names))
        speaker = next(iter(named)) if len(named) == 1 else None
        found = [(m[1], m[2]) for m in _MONTH.finditer(text)] + [(m[2], m[1]) for m in _DAY_MONTH.finditer(text)]
        may = _MAY.search(text) is not None
        dates = [
            (MONTHS.index(month.capitalize()) + 1, int(day or 0))
            for month, day in found
            if month.casefold() != "may" or may
        ]
        years = {int(year) for year in _YEAR.findall(text)}
        for name in relative_dates(text, time) if time is not None else ():
            year, month, day = (*map(int, name.split("-")), 0, 0)[:3]
            years.add(year)
            dates += [(month, day)] if month else []
        return cls(
            content,
            speaker,
            bool(_WHEN.search(text)),
            bool(_WHO.search(text)),
            bool(_HOW_MANY.search(text)),
            frozenset(years),
            frozenset(month for month, _ in dates),
            tuple((month, day) for month, day in dates if 1 <= day <= 31),
        )

    @property
    def names_a_date(self) -> bool:
        """Or a part of one: without, no turn is `dated`."""
        return bool(self.years or self.months or self.days)

    def dated(self, time: datetime | None) -> float:
        """How many of year, month and day that it names fit a turn's time, 0 to 3."""
        if time is None:
            return 0.0
        told = time.toordinal()
        about = map(date.fromordinal, range(max(told - _NEAR, 1), min(told + 1, date.max.toordinal()) + 1))
        near = any((day.month, day.day) in self.days for day in about)
        return float((time.year in self.years) + (time.month in self.months) + near)


def _calls(text: str, words: Sequence[str], speaker: str, own: set[str]) -> bool:
    """Whether a question calls a speaker, whose name has the terms `own`.

    One who is called by common words alone, such as Will or You, is if the name is written so inside a sentence.
    """
    if own - COMMON:
        return not (own - COMMON).isdisjoint(words)
    return re.search(rf"(?<=\w ){re.escape(speaker)}(?!\w)", text) is not None and not speaker.islower()


def names_told(text: str, known: Collection[str]) -> int:
    """How many names a text tells, but for those that are `known`, word by word; 3 stands for more."""
    if text.isascii():
        told = _NAME.findall(text)
    else:
        told = [name for name in _ANY_NAME.findall(text) if name[0].isupper() and name[1:].islower()]
    return min(sum(name not in known for name in told), _MOST_NAMES) if told else 0


def tells_number(text: str) -> bool:
    """Whether a text has a number."""
    return _NUMBER.search(text) is not None


def tells_own(text: str) -> bool:
    """Whether whoever says a text speaks of themself."""
    return not _OWN.isdisjoint(text.split())


def tells_time(text: str) -> bool:
    """Whether a text has words that place something in time."""
    return _TIMED.search(text) is not None
