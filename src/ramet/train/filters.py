"""Filters of generated questions: words such as `from Norway with more than 5 goals`, and what they stand for."""

from __future__ import annotations

from ramet.agent.cells import Cell
from ramet.train.drafts import MONTHS, Draft, say
from ramet.train.phrases import FILTERS
from ramet.train.tables import Field


def _filter(d: Draft, used: set[int]) -> tuple[str, str]:
    """Words and condition of one filter on a column that is not used yet."""
    rng = d.rng
    kinds = (
        ["equal"] * 7
        + ["above"] * 3
        + ["below"] * 2
        + ["year"] * 3
        + ["after", "before", "least", "atmost", "not", "exact"]
    )
    kinds += ["between", "years", "yes", "yes", "no", "missing", "contains"]
    kind = rng.choice(kinds)
    words: dict[str, str] = {}
    if kind in ("equal", "not"):
        column = d.any("text")
        value = d.cell(column)
        words = {"k": column.spec.title, "v": say(value, rng)}
        condition = f"{column.handle} {'=' if kind == 'equal' else '!='} {d.mark(value, column.index)}"
    elif kind == "contains":
        column = d.any("text", "entity")
        value = rng.choice(str(d.cell(column)).split()).lower()
        if len(value) < 4:
            raise IndexError("too short a word to look for")
        words = {"k": column.spec.title, "v": f'"{value}"' if rng.random() < 0.3 else value}
        condition = f"{column.handle} LIKE {d.mark(value, column.index)}"
    elif kind in ("above", "below", "least", "atmost", "exact", "between"):
        column = d.any("number")
        value = d.cell(column)
        if kind == "between":
            low, high = sorted((value, d.cell(column, but=value)))  # type: ignore[type-var]
            words = {"x": column.spec.title, "n": say(low, rng), "m": say(high, rng)}
            condition = f"{column.handle} BETWEEN {d.mark(low)} AND {d.mark(high)}"
        else:
            if isinstance(value, int) and kind != "exact" and rng.random() < 0.6:
                step = 10 ** max(0, len(str(abs(value))) - 1)
                value = round(value / step) * step if value >= 10 else value
            words = {"x": column.spec.title, "n": say(value, rng)}
            operator = {"above": ">", "below": "<", "least": ">=", "atmost": "<=", "exact": "="}[kind]
            condition = f"{column.handle} {operator} {d.mark(value)}"
    elif kind in ("year", "after", "before", "years"):
        column = d.any("year", "date")
        value = d.cell(column)
        period: Cell = value
        said = say(value, rng)
        if column.role == "date":
            text = str(value)
            style = rng.random()
            if style < 0.45 or kind == "years":
                period = said = text[:4]
            elif style < 0.75:
                period, said = text[:7], f"{MONTHS[int(text[5:7]) - 1]} {text[:4]}"
            elif style < 0.85 and kind == "year":
                period, said = f"-{text[5:7]}-", MONTHS[int(text[5:7]) - 1]
        words = {"d": column.spec.title, "y": said}
        if kind == "years":
            other = d.cell(column, but=value)
            low, high = sorted((str(period)[:4], str(other)[:4]))
            words |= {"y": low, "z": high}
            a, b = (d.mark(int(t) if column.role == "year" else t) for t in (low, high))
            condition = f"{column.handle} BETWEEN {a} AND {b}"
        else:
            operator = {"year": "=", "after": ">", "before": "<"}[kind]
            condition = f"{column.handle} {operator} {d.mark(period)}"
    elif kind in ("yes", "no"):
        column = d.any("bool")
        words = {"b": column.spec.title}
        condition = f"{column.handle} = '{kind}'"
    else:
        column = rng.choice([f for f in d.data.fields if None in d.data.cells(f)])
        words = {"a": column.spec.title}
        condition = f"{column.handle} IS NULL"
    if column.index in used:
        raise IndexError("this column has its filter")
    used.add(column.index)
    return d.phrase(FILTERS[kind]).format(**words), condition


def make_filters(d: Draft, *used: Field, chance: float = 0.45, at_least: int = 0) -> tuple[str, str]:
    """Words of zero to two filters, and their conditions joined by AND ('' if none)."""
    count = at_least or int(d.rng.random() < chance)
    count += int(count > 0 and d.rng.random() < 0.2)
    taken = {f.index for f in used}
    parts = [_filter(d, taken) for _ in range(count)]
    return d.rng.choice([" and ", " and ", " "]).join(p[0] for p in parts), " AND ".join(p[1] for p in parts)


def where(condition: str, *more: str) -> str:
    parts = [p for p in (condition, *more) if p]
    return f" WHERE {' AND '.join(parts)}" if parts else ""
