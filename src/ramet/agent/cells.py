"""What a column of strings holds: numbers, years, dates, truth values, names or kinds; its cells as SQLite values."""

from __future__ import annotations

import datetime as dt
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

Kind = Literal["name", "kind", "int", "real", "year", "date", "bool"]
"""`name`: text, (almost) all cells different; `kind`: text with repeats; `date`: ISO text, maybe only to the month."""

Cell = str | int | float | None

MISSING = frozenset(
    {"", "-", "–", "—", "−", "n/a", "na", "nan", "null", "none", "?", "...", "…", "unknown", "tba", "tbd"}
)
NUMERIC_SHARE = 0.85
"""A column is numeric (or of dates) from this share of readable cells on; the others then count as missing."""

_NUMBER = re.compile(
    r"""^[~≈]?\s*(?P<sign>[-+−–]?)\s*(?:[$€£¥₹]|[A-Z]{2,3}\$?\s)?\s*
        (?P<digits>\d{1,3}(?:[,\u00a0\u202f ]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
        \s*(?P<unit>%|[a-zA-Zµ°$€£¥₹²³/.]{0,12})?\s*(?:\[[^\]]*\]|\([^)]*\)|\*|†)*$""",
    re.VERBOSE,
)
_ORDINAL = re.compile(r"^(\d{1,18})(?:st|nd|rd|th)$", re.IGNORECASE)
MONTHS = {
    name: index
    for index, names in enumerate(
        ["january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug",
         "september sep sept", "october oct", "november nov", "december dec"], 1
    )
    for name in names.split()
}  # fmt: skip
"""Month names and their usual short forms, lower case, to 1..12."""

_ISO = re.compile(r"^(\d{4})-(\d{1,2})(?:-(\d{1,2}))?(?:[T ].*)?$")
_SLASHED = re.compile(r"^(\d{1,4})[/.](\d{1,2})[/.](\d{1,4})$")
_DAY_FIRST = re.compile(r"^(?:\w+day,?\s+)?(\d{1,2})(?:st|nd|rd|th)?\s+([A-Za-z]+)\.?,?\s+(\d{4})$")
_MONTH_FIRST = re.compile(r"^(?:\w+day,?\s+)?([A-Za-z]+)\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})$")
_MONTH_ONLY = re.compile(r"^([A-Za-z]+)\.?,?\s+(\d{4})$")


def plain(text: str) -> str:
    """Lower case, accents dropped; all but letters and digits (and `.` or `,` inside numbers) becomes single spaces."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(re.findall(r"\d+(?:[.,]\d+)+|\w+", text.lower().replace("_", " ")))


def read_number(text: str) -> int | float | None:
    """`1,234`, `$5.50`, `12 %`, `-3 km`, `2nd` as a number; None where it is none."""
    text = text.strip()
    if ordinal := _ORDINAL.match(text):
        return int(ordinal[1])
    match = _NUMBER.match(text)
    if match is None or (match["unit"] or "").rstrip(".").lower() in MONTHS:
        return None
    digits = re.sub(r"[,\u00a0\u202f ]", "", match["digits"])
    value: int | float = float(digits) if "." in digits or len(digits) > 18 else int(digits)
    if value == math.inf:
        return None
    return -value if match["sign"] in ("-", "−", "–") else value


def read_date(text: str, *, day_first: bool = True) -> str | None:
    """A date in a usual written form as ISO `yyyy-mm-dd` or `yyyy-mm`; None where it is none.

    `day_first` decides only `03/04/2024`-like dates, where both readings are possible.
    """
    text = text.strip()
    year = month = 0
    day: int | None = None
    if match := _ISO.match(text):
        year, month, day = int(match[1]), int(match[2]), int(match[3]) if match[3] else None
    elif match := _SLASHED.match(text):
        a, b, c = int(match[1]), int(match[2]), int(match[3])
        if a > 31:
            year, month, day = a, b, c
        else:
            year = c if c > 99 else 2000 + c
            day, month = (a, b) if (day_first and b <= 12) or a > 12 else (b, a)
    elif match := _DAY_FIRST.match(text):
        year, month, day = int(match[3]), MONTHS.get(match[2].lower(), 0), int(match[1])
    elif match := _MONTH_FIRST.match(text):
        year, month, day = int(match[3]), MONTHS.get(match[1].lower(), 0), int(match[2])
    elif match := _MONTH_ONLY.match(text):
        year, month = int(match[2]), MONTHS.get(match[1].lower(), 0)
    else:
        return None
    try:
        checked = dt.date(year, month, day or 1)
    except ValueError:
        return None
    return checked.isoformat() if day else checked.isoformat()[:7]


def _written_day_first(texts: Sequence[str]) -> bool:
    """Whether a column's slashed dates put the day first: no second field may exceed 12."""
    return not any((m := _SLASHED.match(t)) and int(m[1]) <= 12 and int(m[2]) > 12 for t in texts)


def read_column(cells: Sequence[object]) -> tuple[Kind, list[Cell], int]:
    """The kind of a column, its cells as SQLite values, and how many cells were given up as unreadable.

    Cells are strings, or what a spreadsheet or a database gives: numbers, booleans, dates, None.
    """
    texts = [_as_text(cell) for cell in cells]
    present = [t for t in texts if t.lower() not in MISSING]
    if present:
        lowered = {t.lower() for t in present}
        if len(lowered) == 2 and lowered <= {"yes", "no", "true", "false", "y", "n"}:
            return "bool", [_flag(t) for t in texts], 0
        needed = NUMERIC_SHARE * len(present)
        numbers: list[int | float | None] = [read_number(t) for t in texts]
        readable = sum(n is not None for n in numbers)
        if readable >= needed:
            values: list[Cell] = list(numbers)
            lost = sum(n is None for n, t in zip(numbers, texts, strict=True) if t.lower() not in MISSING)
            if all(isinstance(n, int) for n in numbers if n is not None):
                bare = all(re.fullmatch(r"\d{4}", t) for t in present)
                year = bare and all(1000 <= n <= 2200 for n in numbers if n is not None)
                return ("year" if year else "int"), values, max(lost, 0)
            return "real", values, max(lost, 0)
        day_first = _written_day_first(present)
        dates = [read_date(t, day_first=day_first) for t in texts]
        readable = sum(d is not None for d in dates)
        if readable >= needed:
            return "date", list(dates), len(present) - readable
    values = [t if t else None for t in texts]
    distinct = len({v for v in values if v is not None})
    return ("name" if distinct >= 0.9 * max(len(present), 1) else "kind"), values, 0


def _as_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, dt.datetime):
        return cell.date().isoformat() if cell.time() == dt.time() else cell.isoformat(" ", "seconds")
    if isinstance(cell, dt.date):
        return cell.isoformat()
    return " ".join(str(cell).split())


def _flag(text: str) -> Cell:
    lowered = text.lower()
    return "yes" if lowered in ("yes", "true", "y") else "no" if lowered in ("no", "false", "n") else None
