"""Generated tables: a domain, some of its columns, invented rows. Train and test share neither domains nor values."""

from __future__ import annotations

import datetime as dt
import random
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from ramet.agent.sql import Table
from ramet.train.domains import TEST, TRAIN, ColumnSpec

Split = Literal["train", "test"]


def _read_words() -> dict[str, list[str]]:
    text = files("ramet.train").joinpath("words.txt").read_text(encoding="utf-8")
    lists = [part.split("\n", 1) for part in text.split("== ")[1:]]
    return {name: [word.strip() for word in words.replace("\n", " ").split(",")] for name, words in lists}


_WORDS = _read_words()
_CODAS = ["", "", "", "n", "r", "l", "s", "k", "m", "x", "nd", "rt", "ck"]


def of_split(word: str, split: Split) -> bool:
    """Whether a value word may be used: a fifth of all words, by a hash of their letters, is for tests alone."""
    return (zlib.crc32(word.encode()) % 5 == 0) == (split == "test")


@cache
def _pool(words: tuple[str, ...], split: Split) -> tuple[str, ...]:
    return tuple(w for w in words if of_split(w, split))


def pseudo_word(rng: random.Random, split: Split) -> str:
    while True:
        word = "".join(
            rng.choice(_WORDS["onset"]) + rng.choice(_WORDS["vowel"]) + rng.choice(_CODAS)
            for _ in range(rng.randint(2, 3))
        )
        if of_split(word, split):
            return word


def _from(rng: random.Random, words: list[str], split: Split) -> str:
    return rng.choice(_pool(tuple(words), split))


def person(rng: random.Random, split: Split) -> str:
    last = _from(rng, _WORDS["last"], split) if rng.random() < 0.6 else pseudo_word(rng, split)
    return f"{_from(rng, _WORDS['first'], split)} {last}".title()


def place(rng: random.Random, split: Split) -> str:
    return (_from(rng, _WORDS["place"], split) if rng.random() < 0.6 else pseudo_word(rng, split)).title()


def thing(rng: random.Random, split: Split) -> str:
    style = rng.random()
    if style < 0.4:
        return f"{_from(rng, _WORDS['adjective'], split)} {_from(rng, _WORDS['noun'], split)}".title()
    if style < 0.55:
        return f"The {_from(rng, _WORDS['noun'], split)} of {pseudo_word(rng, split)}".title()
    if style < 0.85:
        return pseudo_word(rng, split).title()
    return f"{pseudo_word(rng, split)} {rng.choice(_pool(tuple(_WORDS['noun']), split))}".title()


def code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2))
    return f"{letters}{rng.randint(100, 9999)}"


@dataclass(frozen=True)
class Field:
    """A column of a generated table, with what questions need to know of it."""

    spec: ColumnSpec
    index: int
    role: Literal["entity", "text", "number", "year", "date", "bool"]

    @property
    def handle(self) -> str:
        return f"c{self.index + 1}"


@dataclass(frozen=True)
class Generated:
    table: Table
    fields: tuple[Field, ...]
    split: Split

    def cells(self, field: Field) -> list[object]:
        return [row[field.index] for row in self.table.rows]


def make_table(rng: random.Random, split: Split, *, wide: bool = False) -> Generated:
    """A table of 5 to 24 rows and 3 to 9 columns; about one in five has a column of invented name as well.

    `wide` gives a third of the tables up to 17 columns, of two domains.
    """
    while True:
        domain = rng.choice(TRAIN if split == "train" else TEST)
        specs = list(domain.columns)
        entity = next(s for s in specs if s.kind in ("who", "what"))
        others = [s for s in specs if s is not entity]
        rng.shuffle(others)
        chosen = others[: rng.randint(2, len(others))]
        if wide and rng.random() < 0.35:
            more = rng.choice(TRAIN if split == "train" else TEST).columns
            titles = {s.title for s in specs}
            chosen = others + [s for s in more if s.kind not in ("who", "what") and s.title not in titles]
        for _ in range(rng.choices([0, 1, 2], [6, 2, 1])[0]):
            chosen.append(_invented(rng, split))
        rng.shuffle(chosen)
        chosen.insert(0 if rng.random() < 0.6 else rng.randint(0, len(chosen)), entity)
        count = rng.randint(5, 24)
        columns = [_cells(rng, spec, count, split) for spec in chosen]
        table = Table.from_cells([_styled(rng, s.title) for s in chosen], list(zip(*columns, strict=True)))
        roles = {"int": "number", "real": "number", "year": "year", "date": "date", "bool": "bool"}
        fields = []
        for i, spec in enumerate(chosen):
            role = roles.get(table.columns[i].kind) or ("entity" if spec.kind in ("who", "what") else "text")
            expected = {"n": "number", "m": "number", "n.": "number", "m.": "number", "cat": "text"}.get(
                spec.kind, spec.kind
            )
            if expected in ("who", "what"):
                expected = "entity"
            if role == expected:
                fields.append(Field(spec, i, role))  # type: ignore[arg-type]
        if len(fields) >= 3:
            return Generated(table, tuple(fields), split)
        table.close()


def _invented(rng: random.Random, split: Split) -> ColumnSpec:
    word = pseudo_word(rng, split)
    if rng.random() < 0.3:
        word = f"{word} {pseudo_word(rng, split)}"
    kind = rng.choice(["n", "m", "m.", "cat", "cat", "year", "date"])
    high = rng.choice([10, 100, 1000, 50000])
    return ColumnSpec(word, kind, (), 0, high)


def _styled(rng: random.Random, title: str) -> str:
    style = rng.random()
    return title.replace(" ", "_") if style < 0.3 else title.title() if style < 0.8 else title


def _cells(rng: random.Random, spec: ColumnSpec, count: int, split: Split) -> list[object]:
    missing = rng.random() < 0.12 and spec.kind not in ("who", "what")
    cells = _values(rng, spec, count, split)
    return [None if missing and rng.random() < 0.15 else cell for cell in cells]


def _values(rng: random.Random, spec: ColumnSpec, count: int, split: Split) -> list[object]:
    source = spec.pool[0] if spec.pool and spec.pool[0].startswith("@") else ""

    def one() -> str:
        if source == "@code":
            return code(rng)
        if spec.kind == "who" or source == "@who":
            return person(rng, split)
        return place(rng, split) if source == "@place" else thing(rng, split)

    if spec.kind in ("who", "what"):
        distinct: dict[str, None] = {}
        while len(distinct) < count:
            distinct[one()] = None
        names: list[object] = list(distinct)
        if source == "@place" and rng.random() < 0.3:
            rng.shuffle(names)
        return names
    if spec.kind == "cat":
        size = min(rng.randint(2, 7), max(2, count // 2))
        pool = list(spec.pool) if spec.pool and not source else list({one(): None for _ in range(size)})
        pool = rng.sample(pool, min(size, len(pool)))
        if rng.random() < 0.7:
            pool = [p.title() for p in pool]
        return [rng.choice(pool) for _ in range(count)]
    if spec.kind == "bool":
        return [rng.choice(("yes", "no")) for _ in range(count)]
    if spec.kind == "year":
        start = rng.randint(1820, 2005)
        ordered = [rng.randint(start, min(start + 60, 2025)) for _ in range(count)]
        return [*sorted(ordered)] if rng.random() < 0.4 else [*ordered]
    if spec.kind == "date":
        start = dt.date(rng.randint(1930, 2022), 1, 1).toordinal()
        form = rng.choice(["%Y-%m-%d", "%Y-%m-%d", "%d %B %Y", "%B %d, %Y"])
        days = [dt.date.fromordinal(start + rng.randint(0, 1400)) for _ in range(count)]
        days = sorted(days) if rng.random() < 0.4 else days
        return [d.strftime(form) for d in days]
    return _numbers(rng, spec, count)


def _numbers(rng: random.Random, spec: ColumnSpec, count: int) -> list[object]:
    if spec.kind.endswith("."):
        return [f"{rng.uniform(spec.low, spec.high):.1f}" for _ in range(count)]
    low, high = int(spec.low), int(spec.high)
    numbers = [rng.randint(low, high) for _ in range(count)]
    if high > 5000:
        numbers = [n - n % 10 if rng.random() < 0.5 else n for n in numbers]
    style = rng.random()
    if high > 5000 and style < 0.3:
        return [f"{n:,}" for n in numbers]
    return list(numbers)
