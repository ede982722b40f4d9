"""A question in the making: the columns and cells it is about, its words, and its SQL with marks for the values."""

from __future__ import annotations

import calendar
import random
import re
from dataclasses import dataclass, field

from ramet.agent.cells import Cell
from ramet.train.phrases import Phrasings, fill, fill_further
from ramet.train.tables import Field, Generated

MONTHS = list(calendar.month_name)[1:]


@dataclass
class Draft:
    """`literals` are the values that `⟨i⟩` stands for in SQL, each with its column."""

    rng: random.Random
    data: Generated
    stage: int = 0
    """Beside the plain phrasings: from 1 on further ones and changes of form."""
    literals: list[tuple[Cell, int | None]] = field(default_factory=list)

    def mark(self, value: Cell, column: int | None = None) -> str:
        self.literals.append((value, column))
        return f"⟨{len(self.literals) - 1}⟩"

    def fields(self, *roles: str, kinds: str = "") -> list[Field]:
        return [f for f in self.data.fields if f.role in roles and (not kinds or f.spec.kind.rstrip(".") in kinds)]

    def any(self, *roles: str, kinds: str = "", but: Field | None = None) -> Field:
        return self.rng.choice(
            [f for f in self.fields(*roles, kinds=kinds) if f is not but]
        )  # IndexError: no such column

    def cell(self, column: Field, but: Cell = None) -> Cell:
        cells = [c for c in self.data.cells(column) if c is not None and c != but]
        return self.rng.choice(cells)  # type: ignore[return-value]

    def phrase(self, phrasings: Phrasings) -> str:
        return fill(self.rng, self.template(phrasings))

    def template(self, phrasings: Phrasings) -> str:
        if self.stage >= 1 and phrasings.further and self.rng.random() < 0.7:
            return fill_further(self.rng, phrasings)
        return self.rng.choice(phrasings.plain if self.data.split == "train" else phrasings.held_out)


def plural(noun: str) -> str:
    words = noun.split()
    last = words[-1]
    if last.endswith("s") and not last.endswith("ss"):
        pass
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    else:
        last += "s"
    return " ".join([*words[:-1], last])


def say(value: Cell, rng: random.Random) -> str:
    """A value as a person may write it."""
    if isinstance(value, int) and value >= 10000 and rng.random() < 0.4:
        return f"{value:,}"
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        year, month, day = (int(x) for x in value.split("-"))
        style = rng.randrange(4)
        return [
            value,
            f"{MONTHS[month - 1]} {day}, {year}",
            f"{day} {MONTHS[month - 1]} {year}",
            f"{MONTHS[month - 1]} {day} {year}",
        ][style]
    return str(value)
