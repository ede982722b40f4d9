"""Who, what number and which day a text speaks of, found by rules: names, identifiers, numbers, dates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta

from ramet.memory.words import MONTHS

# Words that open English sentences, or stand alone with a capital, without being names.
_OPENER_WORDS = """
    a about above absolutely actually after again ah all also although always am amazing an and another any anything
    anyway are aren't as at aw awesome aww be because been before being besides both but by bye can can't congrats
    congratulations cool could couldn't definitely despite did didn't do does doesn't doing don't done each either
    enjoy even every everyone everything exactly excuse few finally first for from fun further get give glad go good
    goodbye got great guess ha had haha happy has hasn't have haven't having he he'd he'll he's hello help her here
    here's hers hey hi him his hmm hope hopefully hoping how how's however huh i i'd i'll i'm i've if in indeed instead
    interesting into is isn't it it'd it'll it's its just keep kind last lately least less let let's like likewise lol
    look looking looks lots love made make many may maybe me might mine more most mr mrs ms much must my myself neat
    neither never next nice no nobody none nope nor not nothing now of off oh ok okay on once one only oops or other
    our ours out over perhaps please plus pretty probably quite rather really right same see she she'd she'll she's
    should shouldn't since so some somebody someone something sometimes soon sorry sounds still such sure take talk
    tell than thank thanks that that'd that'll that's the their theirs them then there there's these they they'd they'll
    they're they've this those though through thus till to today together tomorrow tonight too totally true try
    ugh under unfortunately until up upon us use very wait want was wasn't way we we'd we'll we're we've well were
    weren't what what's whatever when when's whenever where where's wherever whether which while who who's whoever whom
    whose why why's will wish with within without won't wonderful would wouldn't wow yay yeah yep yes yesterday yet yo
    you you'd you'll you're you've your yours yup
"""
_OPENERS = frozenset(_OPENER_WORDS.split())

_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_MONTH = {name[:length].lower(): number for number, name in enumerate(MONTHS, 1) for length in (3, len(name))} | {
    "sept": 9
}
# Case is ignored in ASCII only: `ſ` and `ı` would be taken for `s` and `i`, and then be in no table.
_MONTH_WORD = "(?a:(?:" + "|".join(sorted(_MONTH, key=len, reverse=True)) + r")\.?)"
_ORDINAL = r"(\d{1,2})(?:st|nd|rd|th)?"

_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_DAY_MONTH = re.compile(rf"\b{_ORDINAL}(?: of)? ({_MONTH_WORD})(?:,? (\d{{4}}))?\b", re.IGNORECASE)
_MONTH_DAY = re.compile(rf"\b({_MONTH_WORD}) {_ORDINAL}\b(?:,? (\d{{4}})\b)?", re.IGNORECASE)
_MONTH_YEAR = re.compile(rf"\b({_MONTH_WORD}),? (\d{{4}})\b", re.IGNORECASE)
_NEAR = re.compile(r"\b(the day before yesterday|yesterday|last night|today|tonight|this morning|tomorrow)\b", re.I)
_AGO = re.compile(r"\b((?a:a|an|one|two|three|four|five|six)|\d{1,3}) ((?a:day|week|month|year))s? ago\b", re.I)
_LAST_DAY = re.compile(rf"\b((?a:last|next)) ((?a:{'|'.join(_DAYS)}))\b", re.I)
_LAST = re.compile(r"\b((?a:last|next|this)) ((?a:month|year))\b", re.I)

_NEAR_DAYS = {"the day before yesterday": -2, "yesterday": -1, "last night": -1, "tomorrow": 1}
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}

# What comes before an @ or a / has a limit: encoded data would take a time that grows with its length squared.
_IDENTIFIER = re.compile(
    r"https?://[^\s<>\"')]+|[\w.+-]{1,255}+@\w[\w-]*(?:\.[\w-]+)+"
    r"|(?<![\w/])\.{0,2}/?(?:[\w.-]{1,255}+/){1,64}[\w.-]*\w"
    r"|\b[A-Za-z]\w*_\w+\b|\b(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9][\w-]{2,}\b|#\w+"
)
_NUMBER = re.compile(r"(?<![\w.,])([$€£¥]?)(\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(%?)(?![\w])")
_CAPITAL = r"[^\W\d_a-zà-öø-ÿ][\w'’&-]*"
_NAME = re.compile(rf"{_CAPITAL}(?:(?: of(?: the)?)? {_CAPITAL})*")
_OPENING = frozenset('.!?:;…\n"“(*-—–')
_SUBJECT = re.compile(r",|'s|’s| (?:and [A-Z]|is|was|has|had|will|said|says|told|went|loves?|likes?|lives?|works?)\b")

_MARK = re.compile(r"[/@_#\d]")
_DIGIT = re.compile(r"[0-9]")
_NEAR_WORDS = ("yesterday", "today", "tonight", "tomorrow", "last night", "this morning")


def entities(text: str, time: datetime | None = None) -> tuple[str, ...]:
    """The entities of a text in order of mention, each once, in lower case.

    Days are written `2023-05-08`, months `2023-05`, years of relative dates `2022`; 'yesterday' and its like, and days
    without a year, are resolved against `time` and left out without one. Numbers are those of two digits or more,
    without separators.
    """
    found: list[tuple[int, str]] = []
    left, at = list[str](), 0
    for start, end, name in sorted(_dates(text, time)):
        found.append((start, name))
        left += [text[at:start], " " * (end - start)]
        at = end
    rest = "".join([*left, text[at:]])
    if _MARK.search(rest):
        found += [(match.start(), match[0].rstrip(".,-").casefold()) for match in _IDENTIFIER.finditer(rest)]
        rest = _IDENTIFIER.sub(lambda match: " " * len(match[0]), rest)
        for match in _NUMBER.finditer(rest):
            number = match[2].replace(",", "")
            if len(number) > 1 or match[1] or match[3]:
                found.append((match.start(), number))
    for match in _NAME.finditer(rest):
        name = _name(match[0], _opens(rest, match.start()), bool(_SUBJECT.match(rest, match.end())))
        if name:
            found.append((match.start(), name))
    return tuple(dict.fromkeys(name for _, name in sorted(found)))


def _opens(text: str, at: int) -> bool:
    """Whether a sentence begins at `at`."""
    while at and text[at - 1].isspace() and text[at - 1] != "\n":
        at -= 1
    return not at or text[at - 1] in _OPENING


def _name(run: str, opens: bool, acts: bool) -> str:
    """The name in a run of capitalised words, empty if there is none.

    Words that have their capital for other reasons are cut off its front. One word that opens a sentence is taken for a
    name only if it has more capitals than one, or what follows shows that it `acts`.
    """
    words = run.replace("’", "'").split()
    acts = acts or run.endswith(("'s", "’s"))
    cut = 0
    while cut < len(words):
        plain = words[cut].casefold()
        if plain not in _OPENERS and plain not in _DAYS and plain not in _MONTH and plain not in ("of", "the"):
            break
        cut += 1
    words = words[cut:]
    while words and words[-1].casefold() in ("i", "i'm", "i've", "i'll", "i'd"):
        words.pop()
    if not words or (opens and not cut and len(words) == 1 and not acts and words[0][1:] == words[0][1:].lower()):
        return ""
    name = " ".join(words).removesuffix("'s").rstrip("'-&").casefold()
    return name if len(name) > 1 else ""


def _dates(text: str, time: datetime | None) -> list[tuple[int, int, str]]:
    """(start, end, name) of every date, those that were found first not overlapped by later ones."""
    found: list[tuple[int, int, str]] = []
    taken = bytearray(len(text))

    def keep(match: re.Match[str], name: str | None) -> None:
        start, end = match.span()
        if name is not None and not any(taken[start:end]):
            found.append((start, end, name))
            taken[start:end] = b"\1" * (end - start)

    # Most texts hold nothing that could begin a date: cheap tests spare them the patterns.
    dated = _DIGIT.search(text)
    for match in _ISO.finditer(text) if dated else ():
        keep(match, _day(int(match[1]), int(match[2]), int(match[3])))
    for pattern, day, month in ((_DAY_MONTH, 1, 2), (_MONTH_DAY, 2, 1)) if dated else ():
        for match in pattern.finditer(text):
            year = int(match[3]) if match[3] else time.year if time is not None else None
            if year is not None:
                keep(match, _day(year, _MONTH[match[month].rstrip(".").lower()], int(match[day])))
    for match in _MONTH_YEAR.finditer(text) if dated else ():
        keep(match, f"{match[2]}-{_MONTH[match[1].rstrip('.').lower()]:02}")
    for match, name in _relative(text, time) if time is not None else ():
        keep(match, name)
    return found


def relative_dates(text: str, time: datetime) -> list[str]:
    """The dates that a text names by how far they are from `time`, such as 'yesterday', as `entities` writes them."""
    return [name for _, name in _relative(text, time) if name is not None]


def _relative(text: str, time: datetime) -> Iterator[tuple[re.Match[str], str | None]]:
    lower = text.lower()
    for match in _NEAR.finditer(text) if any(word in lower for word in _NEAR_WORDS) else ():
        yield match, _shifted(time, _NEAR_DAYS.get(match[1].lower(), 0))
    for match in _AGO.finditer(text) if " ago" in lower else ():
        count = _COUNTS.get(match[1].lower()) or int(match[1])
        yield match, _ago(time, count, match[2].lower())
    relative = "last " in lower or "next " in lower or "this " in lower
    for match in _LAST_DAY.finditer(text) if relative else ():
        ahead = (_DAYS.index(match[2].lower()) - time.weekday() - 1) % 7 + 1
        yield match, _shifted(time, ahead if match[1].lower() == "next" else ahead - 7 or -7)
    for match in _LAST.finditer(text) if relative else ():
        step = {"last": -1, "this": 0, "next": 1}[match[1].lower()]
        yield match, _ago(time, -step, match[2].lower())


def _day(year: int, month: int, day: int) -> str | None:
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def _shifted(time: datetime, days: int) -> str | None:
    try:
        return (time.date() + timedelta(days=days)).isoformat()
    except OverflowError:
        return None


def _ago(time: datetime, count: int, unit: str) -> str | None:
    if unit in ("day", "week"):
        return _shifted(time, -count * (7 if unit == "week" else 1))
    if unit == "year":
        return f"{time.year - count:04}" if 0 < time.year - count < 10_000 else None
    months = time.year * 12 + time.month - 1 - count
    return f"{months // 12:04}-{months % 12 + 1:02}" if 12 <= months < 120_000 else None
