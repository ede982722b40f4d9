"""Which words of a question name columns or cells of a table: found by code, so that the model only has to point.

Columns get the handles `c1, c2, ...`, each followed by its kind; values of the question get `v1, v2, ...`. A value is a
cell (`v1 c3 name`), part of several cells (`v1 like c3 name`), a number (`v1 num`), a year, month or day (`v1 date`),
or a quoted text (`v1 text`). An adjective that speaks of a column (`the oldest`) is linked to it too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ramet.agent.adjectives import ADJECTIVES
from ramet.agent.cells import MONTHS, Cell, plain
from ramet.agent.sql import Table

MAX_LINKED_COLUMNS = 24
MAX_WORDS = 60
"""Words of a question that are read; the rest is dropped."""
_MAX_SPAN = 9
_COLUMNS_PER_LINK = 2
_LONGEST_NUMBER = 30
"""Characters; what has more digits is a name or a slip, and no number that SQL could compare."""


def _words(text: str) -> list[str]:
    return text.split()


_NUMBER_WORDS = dict(
    zip(_words("two three four five six seven eight nine ten eleven twelve"), range(2, 13), strict=True)
)
_COMMON = frozenset(
    _words(
        "a about above across after again all also am among an and another any are as at average be been before being "
        "below best between both bottom but by came can come compare consecutive could count did differ difference "
        "different do does each earlier earliest either else end equal even ever every exactly fewer fewest find "
        "first follow for former from gave get give go greater greatest had has have he her here high higher highest "
        "his how i if in included including instead into is it its just kind kinds know large larger largest last "
        "late later latest least less list listed long longest longer low lower lowest many max maximum me mean "
        "mention min minimum more most much my name named names near neither next no none nor not number of off old "
        "older oldest on once one only open or order other out over overall own part per place please previous prior "
        "put rank ranked record recorded recent same say second see set she short show shown since small smaller "
        "smallest so some sort such sum table take tell than that the their them then there these they this those "
        "through time times to top total totals two under unique until up us use value values versus very was we went "
        "were what when where whether which while who whom whose will win wins with within without won would year "
        "years yes yet you your third fourth biggest big lot lots row rows entry entries item items"
    )
)
"""Words that name no cell by themselves."""
_WORD = re.compile(r"\d{4}-\d{2}(?:-\d{2})?|\d+(?:[.,]\d+)+|\w+")
_SYMBOLS = ((">=", " at least "), ("<=", " at most "), (">", " more than "), ("<", " less than "), ("≥", " at least "),
            ("≤", " at most "), ("!=", " is not "))  # fmt: skip
_QUOTED = re.compile(r"\"([^\"]{1,60})\"|“([^”]{1,60})”|(?<!\w)'([^']{2,60})'(?!\w)")

LinkKind = Literal["cell", "like", "num", "date", "text"]


@dataclass(frozen=True)
class Value:
    """A literal of the question: its text or number, how it was found, and the columns where it occurs (indices)."""

    kind: LinkKind
    value: str | int | float
    columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Linked:
    """A question with its handles written into it."""

    text: str
    values: tuple[Value, ...]
    named: tuple[frozenset[int], ...] = ()
    """The columns that it names, each with those it may be taken for (indices); not those of its values."""


@dataclass
class _Span:
    """Words of the question, `[start, end)`, and the value or the columns that they stand for."""

    start: int
    end: int
    score: float
    value: Value | None = None
    columns: tuple[int, ...] = ()
    implied: bool = False
    """Whether the columns are not named but spoken of, by an adjective."""


def stem(word: str) -> str:
    """A word without its plural ending: `cities` and `city`, `goals` and `goal` meet."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@dataclass
class Linker:
    """Finds the columns and cells of one table in questions. Building its index reads the table once."""

    table: Table
    _cells: dict[tuple[str, ...], dict[int, set[str]]] = field(init=False)
    _numbers: dict[float, set[int]] = field(init=False)

    def __post_init__(self) -> None:
        self._cells = defaultdict(lambda: defaultdict(set))
        self._numbers = defaultdict(set)
        parts: dict[tuple[str, ...], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for index, column in enumerate(self.table.columns[:MAX_LINKED_COLUMNS]):
            cells: set[Cell] = {row[index] for row in self.table.rows}
            for cell in cells:
                if isinstance(cell, str):
                    if column.kind in ("date", "bool"):
                        continue
                    words = tuple(plain(cell).split())
                    if not words:
                        continue
                    self._cells[words][index].add(cell)
                    for size in range(1, min(len(words), 5)):
                        for start in range(len(words) - size + 1):
                            parts[words[start : start + size]][index].add(cell)
                elif cell is not None:
                    self._numbers[float(cell)].add(index)
        self._parts = parts

    @cached_property
    def _titles(self) -> list[tuple[str, ...]]:
        columns = self.table.columns[:MAX_LINKED_COLUMNS]
        return [tuple(stem(w) for w in plain(c.title).split()) for c in columns]

    @cached_property
    def _vocabulary(self) -> dict[int, list[str]]:
        """Words of cells and titles by length, to forgive a slip of the finger."""
        words: dict[int, set[str]] = defaultdict(set)
        for key in (*self._cells, *(tuple(plain(c.title).split()) for c in self.table.columns)):
            for word in key:
                if len(word) >= 5 and word.isalpha():
                    words[len(word)].add(word)
        return {n: sorted(w) for n, w in words.items()}

    @cached_property
    def _known(self) -> set[str]:
        known = {w for key in self._cells for w in key}
        known.update(w for title in self._titles for w in title)
        return known

    @cached_property
    def _has_dates(self) -> bool:
        return any(c.kind == "date" for c in self.table.columns)

    def link(self, question: str) -> Linked:
        """The question in lower case, each value replaced by its handle and each column preceded by its own."""
        question = question.strip().rstrip("?.! ")
        quoted: dict[int, str] = {}
        for match in _QUOTED.finditer(question):
            quoted[match.start()] = next(g for g in match.groups() if g)
        words: list[str] = []
        fixed: list[_Span] = []
        position = 0
        for start in [*sorted(quoted), len(question)]:
            words.extend(_WORD.findall(_fold(question[position:start])))
            if start in quoted:
                inner = quoted[start]
                size = len(_WORD.findall(_fold(inner)))
                if size:
                    cell = self._cell_span(tuple(plain(inner).split()))
                    value = cell[1] if cell else Value("text", inner.strip())
                    fixed.append(_Span(len(words), len(words) + size, 100, value))
                    words.extend(_WORD.findall(_fold(inner)))
                position = start + len(inner) + 2
        words = [w[:-2] if w.endswith("'s") else w for w in words][:MAX_WORDS]
        spans = self._choose([*fixed, *self._candidates(words)])
        if not any(self._is_number(span) for span in spans):
            spans = self._choose([*spans, *self._adjectives(words)])
        return self._write(words, spans)

    def _is_number(self, span: _Span) -> bool:
        return span.value is None and any(self.table.columns[i].kind in ("int", "real") for i in span.columns)

    def _adjectives(self, words: list[str]) -> Iterator[_Span]:
        """Adjectives that speak of a column of numbers. What the question names outright leaves no room for them."""
        for at, word in enumerate(words):
            spoken_of = ADJECTIVES.get(word, frozenset())
            columns = tuple(
                i
                for i, title in enumerate(self._titles)
                if self.table.columns[i].kind in ("int", "real") and not spoken_of.isdisjoint(title)
            )
            if 0 < len(columns) <= _COLUMNS_PER_LINK:
                yield _Span(at, at + 1, 0.5, columns=columns, implied=True)

    def _candidates(self, words: list[str]) -> Iterator[_Span]:
        fixed_words = [self._corrected(w) for w in words]
        stems = [stem(w) for w in fixed_words]
        yield from self._dates(words)
        for start in range(len(words)):
            for end in range(start + 1, min(start + _MAX_SPAN, len(words)) + 1):
                size = end - start
                key = tuple(fixed_words[start:end])
                if size > 1 or key[0] not in _COMMON:
                    found = self._cell_span(key)
                    if found is not None:
                        yield _Span(start, end, size * found[0], found[1])
                named = self._column_span(tuple(stems[start:end]))
                if named is not None:
                    yield _Span(start, end, size * named[0], columns=named[1])
            number = self._number(words[start])
            if number is not None:
                yield _Span(start, start + 1, 0.8, number)

    def _corrected(self, word: str) -> str:
        """The word, or the only word of the table one slip away from it."""
        if len(word) < 5 or not word.isalpha() or word in _COMMON or word in self._known or stem(word) in self._known:
            return word
        near = [
            other
            for length in (len(word) - 1, len(word), len(word) + 1)
            for other in self._vocabulary.get(length, ())
            if other[0] == word[0] and _one_slip(word, other)
        ]
        return near[0] if len(near) == 1 else word

    def _cell_span(self, words: tuple[str, ...]) -> tuple[float, Value] | None:
        """Score and value of words that are a cell, or part of cells."""
        whole = self._cells.get(words)
        if whole:
            columns = sorted(whole)[:_COLUMNS_PER_LINK]
            cell = min(whole[columns[0]])
            if words[0].isdigit() and len(words) == 1:
                return 1.0, Value("cell", cell, tuple(columns))
            return 1.2, Value("cell", cell, tuple(columns))
        part = self._parts.get(words)
        if not part or all(w in _COMMON or len(w) < 3 or w.isdigit() for w in words):
            return None
        columns = sorted(part, key=lambda c: len(part[c]))[:_COLUMNS_PER_LINK]
        if len(part[columns[0]]) == 1:
            return 0.9, Value("cell", min(part[columns[0]]), (columns[0],))
        return 0.9, Value("like", " ".join(words), tuple(sorted(columns)))

    def _column_span(self, stems: tuple[str, ...]) -> tuple[float, tuple[int, ...]] | None:
        whole = tuple(i for i, title in enumerate(self._titles) if title == stems)
        if whole:
            return 1.1, whole[:_COLUMNS_PER_LINK]
        if all(w in _COMMON or len(w) < 3 for w in stems):
            return None
        part = tuple(i for i, title in enumerate(self._titles) if _contains(title, stems))
        return (0.85, part) if 0 < len(part) <= _COLUMNS_PER_LINK else None

    def _number(self, word: str) -> Value | None:
        number: int | float
        if len(word) > _LONGEST_NUMBER:
            return None
        if word in _NUMBER_WORDS:
            number = _NUMBER_WORDS[word]
        elif re.fullmatch(r"\d+|\d{1,3}(,\d{3})+", word):
            number = int(word.replace(",", ""))
        elif re.fullmatch(r"\d+(st|nd|rd|th)", word):
            number = int(word[:-2])
        elif re.fullmatch(r"(\d{1,3}(,\d{3})+|\d+)\.\d+", word):
            number = float(word.replace(",", ""))
        else:
            return None
        return Value("num", number, tuple(sorted(self._numbers.get(float(number), ())))[:_COLUMNS_PER_LINK])

    def _dates(self, words: list[str]) -> Iterator[_Span]:
        if not self._has_dates:
            return
        for i, word in enumerate(words):
            if re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", word):
                yield _Span(i, i + 1, 20, Value("date", word))
            elif word in MONTHS and (word != "may" or _is_month(words, i)):
                month, start, end = MONTHS[word], i, i + 1
                day = year = None
                if end < len(words) and (found := _day(words[end])):
                    day, end = found, end + 1
                elif start > 0 and (found := _day(words[start - 1])):
                    day, start = found, start - 1
                if end < len(words) and re.fullmatch(r"\d{4}", words[end]):
                    year, end = int(words[end]), end + 1
                text = f"{year}-{month:02}" if year else f"-{month:02}-"
                if day:
                    text = f"{year}-{month:02}-{day:02}" if year else f"-{month:02}-{day:02}"
                yield _Span(start, end, 20, Value("date", text))
            elif re.fullmatch(r"1[0-9]\d\d|20\d\d|21\d\d", word):
                columns = tuple(sorted(self._numbers.get(float(word), ())))[:_COLUMNS_PER_LINK]
                yield _Span(i, i + 1, 1.05, Value("date", word, columns))

    @staticmethod
    def _choose(spans: list[_Span]) -> list[_Span]:
        """The best spans that do not overlap: by score, then longer, then earlier."""
        chosen: list[_Span] = []
        for span in sorted(spans, key=lambda s: (-s.score, s.start - s.end, s.start)):
            if all(span.end <= other.start or span.start >= other.end for other in chosen):
                chosen.append(span)
        return sorted(chosen, key=lambda s: s.start)

    def _write(self, words: list[str], spans: list[_Span]) -> Linked:
        values: list[Value] = []
        pieces: list[str] = []
        position = 0
        for span in spans:
            pieces.extend(words[position : span.start])
            columns = span.value.columns if span.value else span.columns
            handles = [word for i in columns for word in (f"c{i + 1}", self.table.columns[i].kind)]
            if span.value is None:
                pieces.extend([*handles, *words[span.start : span.end]])
            else:
                if span.value not in values:
                    values.append(span.value)
                name = f"v{values.index(span.value) + 1}"
                pieces.extend([name, *([] if span.value.kind == "cell" else [span.value.kind]), *handles])
            position = span.end
        pieces.extend(words[position:])
        named = tuple(frozenset(s.columns) for s in spans if s.value is None and not s.implied)
        return Linked(" ".join(pieces), tuple(values), named)


def _fold(text: str) -> str:
    for symbol, said in _SYMBOLS:
        text = text.replace(symbol, said)
    text = text.lower().replace("’", "'").replace("'s ", " ").replace("_", " ")
    return text if text.isascii() else plain(text)


def _is_month(words: list[str], i: int) -> bool:
    """Whether `may` at `i` is the month: after a preposition, or before a number."""
    after = i > 0 and words[i - 1] in ("in", "since", "of", "after", "before")
    return after or any(word.isdigit() for word in words[i + 1 : i + 2])


def _day(word: str) -> int | None:
    match = re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?", word)
    return int(match[1]) if match and 1 <= int(match[1]) <= 31 else None


def _contains(title: tuple[str, ...], part: tuple[str, ...]) -> bool:
    n = len(part)
    return len(title) > n and any(title[i : i + n] == part for i in range(len(title) - n + 1))


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter inserted, dropped, changed or two neighbours swapped make `a` of `b`."""
    if len(a) > len(b):
        a, b = b, a
    i = 0
    while i < len(a) and a[i] == b[i]:
        i += 1
    if len(a) == len(b):
        return a[i + 1 :] == b[i + 1 :] or (
            i + 1 < len(a) and a[i] == b[i + 1] and a[i + 1] == b[i] and a[i + 2 :] == b[i + 2 :]
        )
    return len(b) - len(a) == 1 and a[i:] == b[i + 1 :]
