"""Generated questions over a generated table, each with the SQL that answers it, over the handles the linker gave."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ramet.agent.cells import Cell
from ramet.agent.linking import Linked, Linker
from ramet.agent.table_prompt import expand
from ramet.train.phrases import FILTERS, QUESTIONS, fill
from ramet.train.tables import Field, Generated
from ramet.train.variations import MORE, reword, with_filter_first

_MARK = re.compile(r"⟨(\d+)⟩")
_MONTHS = "January February March April May June July August September October November December".split()


@dataclass(frozen=True)
class Question:
    text: str
    """As a person writes it."""
    linked: Linked
    query: str
    """Over handles."""
    sql: str
    """Over names and literals."""
    intent: str


@dataclass
class _Draft:
    """A question in the making; `literals` are the values that `⟨i⟩` stands for in SQL, each with its column."""

    rng: random.Random
    data: Generated
    varied: bool = False
    """Whether the further phrasings of `variations` are used too."""
    literals: list[tuple[Cell, int | None]] = field(default_factory=list)

    def mark(self, value: Cell, column: int | None = None) -> str:
        self.literals.append((value, column))
        return f"⟨{len(self.literals) - 1}⟩"

    def fields(self, *roles: str, kinds: str = "") -> list[Field]:
        return [f for f in self.data.fields if f.role in roles and (not kinds or f.spec.kind.rstrip(".") in kinds)]

    def any(self, *roles: str, kinds: str = "", but: Field | None = None) -> Field:
        return self.rng.choice([f for f in self.fields(*roles, kinds=kinds) if f is not but])  # IndexError: no such column

    def cell(self, column: Field, but: Cell = None) -> Cell:
        cells = [c for c in self.data.cells(column) if c is not None and c != but]
        return self.rng.choice(cells)  # type: ignore[return-value]

    def phrase(self, phrases: dict[str, tuple[list[str], list[str]]], name: str) -> str:
        return fill(self.rng, self.template(phrases, name))

    def template(self, phrases: dict[str, tuple[list[str], list[str]]], name: str) -> str:
        train, test = phrases[name]
        if self.varied and name in MORE and self.rng.random() < 0.5:
            return self.rng.choice(MORE[name])
        return self.rng.choice(train if self.data.split == "train" else test)


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
        return [value, f"{_MONTHS[month - 1]} {day}, {year}", f"{day} {_MONTHS[month - 1]} {year}", f"{_MONTHS[month - 1]} {day} {year}"][style]
    return str(value)


def _filter(d: _Draft, used: set[int]) -> tuple[str, str]:
    """Words and condition of one filter on a column that is not used yet."""
    rng = d.rng
    kinds = ["equal"] * 7 + ["above"] * 3 + ["below"] * 2 + ["year"] * 3 + ["after", "before", "least", "atmost", "not", "exact"]
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
                period, said = text[:7], f"{_MONTHS[int(text[5:7]) - 1]} {text[:4]}"
            elif style < 0.85 and kind == "year":
                period, said = f"-{text[5:7]}-", _MONTHS[int(text[5:7]) - 1]
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
    return d.phrase(FILTERS, kind).format(**words), condition


def _filters(d: _Draft, *used: Field, chance: float = 0.45, at_least: int = 0) -> tuple[str, str]:
    """Words of zero to two filters, and their conditions joined by AND ('' if none)."""
    count = at_least or int(d.rng.random() < chance)
    count += int(count > 0 and d.rng.random() < 0.2)
    taken = {f.index for f in used}
    parts = [_filter(d, taken) for _ in range(count)]
    return d.rng.choice([" and ", " and ", " "]).join(p[0] for p in parts), " AND ".join(p[1] for p in parts)


def _where(condition: str, *more: str) -> str:
    parts = [p for p in (condition, *more) if p]
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _names(e: Field, **fields: Field) -> dict[str, str]:
    words = {"e": e.spec.title, "es": plural(e.spec.title)}
    for name, column in fields.items():
        words |= {name: column.spec.title, f"{name}s": plural(column.spec.title)}
    return words


Built = tuple[str, dict[str, str], str]
"""Phrase name, words for its slots, SQL with marks."""


def _lookup(d: _Draft) -> Built:
    e = d.any("entity")
    a = d.any("text", "number", "year", "date", "bool", "entity", but=e)
    key = d.cell(e)
    sql = f"SELECT {a.handle} FROM t WHERE {e.handle} = {d.mark(key, e.index)}"
    words = _names(e, a=a, x=a, d=a) | {"v": say(key, d.rng)}
    name = "lookup"
    if a.role == "number":
        name = d.rng.choice(["lookup", "lookup_count" if a.spec.kind.startswith("n") else "lookup_number"])
        if name == "lookup_number":
            words["most"] = "large"
    elif a.role in ("year", "date"):
        name = d.rng.choice(["lookup", "when"])
    return name, words, sql


def _lookup_filtered(d: _Draft) -> Built:
    e = d.any("entity")
    f, condition = _filters(d, e, at_least=1)
    return "lookup_filtered", _names(e) | {"f": f}, f"SELECT {e.handle} FROM t{_where(condition)}"


def _lookup_column(d: _Draft) -> Built:
    e = d.any("entity")
    a = d.any("text", "number", "year", "date", but=e)
    f, condition = _filters(d, e, a, at_least=1)
    return "lookup_column", _names(e, a=a) | {"f": f}, f"SELECT {a.handle} FROM t{_where(condition)}"


def _count(d: _Draft) -> Built:
    e = d.any("entity")
    f, condition = _filters(d, e, at_least=1)
    return "count", _names(e) | {"f": f}, f"SELECT COUNT(*) FROM t{_where(condition)}"


def _count_value(d: _Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    value = d.cell(k)
    sql = f"SELECT COUNT(*) FROM t WHERE {k.handle} = {d.mark(value, k.index)}"
    return "count_value", _names(e, k=k) | {"v": say(value, d.rng)}, sql


def _rows(d: _Draft) -> Built:
    return "how_many_rows", _names(d.any("entity")), "SELECT COUNT(*) FROM t"


def _distinct(d: _Draft) -> Built:
    k = d.any("text")
    f, condition = _filters(d, k, chance=0.3)
    if d.rng.random() < 0.55:
        return "distinct", _names(k, k=k) | {"f": f}, f"SELECT COUNT(DISTINCT {k.handle}) FROM t{_where(condition)}"
    return "list_distinct", _names(k, k=k) | {"f": f}, f"SELECT DISTINCT {k.handle} FROM t{_where(condition)}"


def _aggregate(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = _filters(d, e, x)
    name = d.rng.choice(["sum", "sum", "avg", "avg", "max", "min"])
    return name, _names(e, x=x) | {"f": f}, f"SELECT {name.upper()}({x.handle}) FROM t{_where(condition)}"


def _extreme(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = _filters(d, e, x, chance=0.35)
    up = d.rng.random() < 0.35
    words = _names(e, x=x) | {"f": f}
    choices = ["argmin" if up else "argmax"] * 2
    if e.spec.kind == "who":
        choices.append("argmin_who" if up else "argmax_who")
    if x.spec.adjectives:
        choices += ["most_adjective"] * 2
        words["most"] = x.spec.adjectives[up]
    sql = f"SELECT {e.handle} FROM t{_where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'} LIMIT 1"
    name = d.rng.choice(choices)
    if name == "most_adjective" and x.spec.adjectives:
        # `best rank` is a low number and `best rating` a high one: only the words of the column can tell.
        reverse = (x.spec.title == "rank") or (x.spec.adjectives[0] == "fastest" and x.spec.title == "personal best")
        if reverse:
            sql = sql.replace(" ASC ", " ~ ").replace(" DESC ", " ASC ").replace(" ~ ", " DESC ")
    return name, words, sql


def _ask_of_extreme(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    a = d.any("text", "year", "date", but=e)
    f, condition = _filters(d, e, x, a, chance=0.25)
    up = d.rng.random() < 0.35
    sql = f"SELECT {a.handle} FROM t{_where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'} LIMIT 1"
    return "ask_of_argmin" if up else "ask_of_argmax", _names(e, x=x, a=a) | {"f": f}, sql


def _recent(d: _Draft) -> Built:
    e, when = d.any("entity"), d.any("year", "date")
    f, condition = _filters(d, e, when, chance=0.3)
    up = d.rng.random() < 0.45
    words = _names(e, d=when) | {"f": f}
    if d.rng.random() < 0.35:
        return ("earliest_value" if up else "latest_value"), words, f"SELECT {'MIN' if up else 'MAX'}({when.handle}) FROM t{_where(condition)}"
    sql = f"SELECT {e.handle} FROM t{_where(condition)} ORDER BY {when.handle} {'ASC' if up else 'DESC'} LIMIT 1"
    return "earliest" if up else "latest", words, sql


def _nth(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = _filters(d, e, x, chance=0.2)
    n = d.rng.choice([1, 1, 2])
    sql = f"SELECT {e.handle} FROM t{_where(condition)} ORDER BY {x.handle} DESC LIMIT 1 OFFSET {n}"
    return ["second", "third"][n - 1], _names(e, x=x) | {"f": f}, sql


def _top(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = _filters(d, e, x, chance=0.2)
    up = d.rng.random() < 0.35
    n = d.rng.randint(2, 7)
    said = str(n) if d.rng.random() < 0.5 else "zero one two three four five six seven".split()[n]
    sql = f"SELECT {e.handle} FROM t{_where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'} LIMIT {d.mark(n)}"
    return "bottom" if up else "top", _names(e, x=x) | {"f": f, "n": said}, sql


def _order(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = _filters(d, e, x, chance=0.25)
    up = d.rng.random() < 0.45
    sql = f"SELECT {e.handle} FROM t{_where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'}"
    return "order_up" if up else "order", _names(e, x=x) | {"f": f}, sql


def _group_extreme(d: _Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    f, condition = _filters(d, e, k, chance=0.15)
    name = d.rng.choice(["group_count_max"] * 3 + ["group_count_min", "group_sum_max", "group_sum_max", "group_avg_max", "group_avg_min"])
    words = _names(e, k=k) | {"f": f}
    amount = "COUNT(*)"
    if "count" not in name:
        x = d.any("number")
        words |= {"x": x.spec.title}
        amount = f"{'SUM' if 'sum' in name else 'AVG'}({x.handle})"
    direction = "ASC" if name.endswith("min") else "DESC"
    return name, words, f"SELECT {k.handle} FROM t{_where(condition)} GROUP BY {k.handle} ORDER BY {amount} {direction} LIMIT 1"


def _group(d: _Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    f, condition = _filters(d, e, k, chance=0.15)
    name = d.rng.choice(["group_count", "group_sum", "group_avg", "group_max"])
    words = _names(e, k=k) | {"f": f}
    amount = "COUNT(*)"
    if name != "group_count":
        x = d.any("number")
        words |= {"x": x.spec.title}
        amount = f"{name[6:].upper()}({x.handle})"
    return name, words, f"SELECT {k.handle}, {amount} FROM t{_where(condition)} GROUP BY {k.handle}"


def _having(d: _Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    n = d.rng.randint(2, 4)
    said = str(n) if d.rng.random() < 0.6 else "zero one two three four".split()[n]
    group = f"SELECT {k.handle} FROM t GROUP BY {k.handle} HAVING COUNT(*) > {d.mark(n)}"
    if d.rng.random() < 0.3:
        return "having_count", _names(e, k=k) | {"n": said}, f"SELECT COUNT(*) FROM ({group})"
    return "having", _names(e, k=k) | {"n": said}, group


def _two(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    first = d.cell(e)
    second = d.cell(e, but=first)
    v, w = d.mark(first, e.index), d.mark(second, e.index)
    of = f"(SELECT {x.handle} FROM t WHERE {e.handle} = "
    name = d.rng.choice(["difference"] * 3 + ["sum_two", "more_of_two", "more_of_two", "less_of_two", "is_more", "is_less"])
    sql = {
        "difference": f"SELECT {of}{v}) - {of}{w})",
        "sum_two": f"SELECT SUM({x.handle}) FROM t WHERE {e.handle} IN ({v}, {w})",
        "more_of_two": f"SELECT {e.handle} FROM t WHERE {e.handle} IN ({v}, {w}) ORDER BY {x.handle} DESC LIMIT 1",
        "less_of_two": f"SELECT {e.handle} FROM t WHERE {e.handle} IN ({v}, {w}) ORDER BY {x.handle} ASC LIMIT 1",
        "is_more": f"SELECT {of}{v}) > {of}{w})",
        "is_less": f"SELECT {of}{v}) < {of}{w})",
    }[name]
    if name == "difference":
        sql = f"SELECT ABS({of}{v}) - {of}{w}))"
    return name, _names(e, x=x) | {"v": say(first, d.rng), "w": say(second, d.rng)}, sql


def _exists(d: _Draft) -> Built:
    e = d.any("entity")
    f, condition = _filters(d, e, at_least=1)
    return "exists", _names(e) | {"f": f}, f"SELECT COUNT(*) > 0 FROM t{_where(condition)}"


def _is_value(d: _Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    row = d.rng.choice([r for r in d.data.table.rows if r[k.index] is not None])
    key, value = row[e.index], row[k.index] if d.rng.random() < 0.5 else d.cell(k)
    condition = f"{e.handle} = {d.mark(key, e.index)} AND {k.handle} = {d.mark(value, k.index)}"
    return "is_value", _names(e, k=k) | {"v": str(key), "w": str(value)}, f"SELECT COUNT(*) > 0 FROM t WHERE {condition}"


def _neighbour(d: _Draft) -> Built:
    e = d.any("entity")
    key = d.cell(e)
    after = d.rng.random() < 0.5
    sql = f"SELECT {e.handle} FROM t WHERE rowid = (SELECT rowid FROM t WHERE {e.handle} = {d.mark(key, e.index)}) {'+' if after else '-'} 1"
    return "next" if after else "previous", _names(e) | {"v": say(key, d.rng)}, sql


def _end(d: _Draft) -> Built:
    a = d.any("entity") if d.rng.random() < 0.7 else d.any("text")
    f, condition = _filters(d, a, chance=0.3)
    first = d.rng.random() < 0.5
    sql = f"SELECT {a.handle} FROM t{_where(condition)} ORDER BY rowid {'ASC' if first else 'DESC'} LIMIT 1"
    return "first" if first else "last", _names(a, a=a) | {"f": f}, sql


def _same(d: _Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    key = d.cell(e)
    v = d.mark(key, e.index)
    condition = f"{k.handle} = (SELECT {k.handle} FROM t WHERE {e.handle} = {v}) AND {e.handle} != {v}"
    counted = d.rng.random() < 0.3
    what = "COUNT(*)" if counted else e.handle
    return "same_count" if counted else "same", _names(e, k=k) | {"v": say(key, d.rng)}, f"SELECT {what} FROM t WHERE {condition}"


def _above_average(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    counted = d.rng.random() < 0.4
    what = "COUNT(*)" if counted else e.handle
    sql = f"SELECT {what} FROM t WHERE {x.handle} > (SELECT AVG({x.handle}) FROM t)"
    return "count_above_average" if counted else "above_average", _names(e, x=x) | {"f": ""}, sql


def _range(d: _Draft) -> Built:
    x = d.any("number")
    f, condition = _filters(d, x, chance=0.2)
    return "range", _names(x, x=x) | {"f": f}, f"SELECT MAX({x.handle}) - MIN({x.handle}) FROM t{_where(condition)}"


def _pair(d: _Draft) -> Built:
    e, x = d.any("entity"), d.any("number", "text", "year", "date")
    f, condition = _filters(d, e, x, chance=0.5)
    return "pair", _names(e, x=x) | {"f": f}, f"SELECT {e.handle}, {x.handle} FROM t{_where(condition)}"


def _either(d: _Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    first = d.cell(k)
    second = d.cell(k, but=first)
    v, w = d.mark(first, k.index), d.mark(second, k.index)
    words = _names(e, k=k) | {"v": say(first, d.rng), "w": say(second, d.rng)}
    name = d.rng.choice(["either", "either", "either_list", "count_more"])
    if name == "count_more":
        sql = f"SELECT ABS((SELECT COUNT(*) FROM t WHERE {k.handle} = {v}) - (SELECT COUNT(*) FROM t WHERE {k.handle} = {w}))"
    else:
        sql = f"SELECT {'COUNT(*)' if name == 'either' else e.handle} FROM t WHERE {k.handle} IN ({v}, {w})"
    return name, words, sql


_INTENTS: list[tuple[Callable[[_Draft], Built], float]] = [
    (_lookup, 9), (_lookup_filtered, 8), (_lookup_column, 4), (_count, 8), (_count_value, 3), (_rows, 1), (_distinct, 4),
    (_aggregate, 9), (_extreme, 10), (_ask_of_extreme, 5), (_recent, 4), (_nth, 2), (_top, 3), (_order, 2),
    (_group_extreme, 6), (_group, 3), (_having, 2), (_two, 7), (_exists, 3), (_is_value, 2), (_neighbour, 4), (_end, 4),
    (_same, 3), (_above_average, 2), (_range, 1.5), (_pair, 2), (_either, 4),
]  # fmt: skip


def make_question(rng: random.Random, data: Generated, linker: Linker, *, varied: bool = False) -> Question:
    """One question that the linker's handles can answer. A draft that the table cannot serve is thrown away.

    `varied` adds the phrasings and changes of form of `variations`; it is for training only.
    """
    build, weights = zip(*_INTENTS, strict=True)
    while True:
        d = _Draft(rng, data, varied)
        try:
            name, words, marked = rng.choices(build, weights)[0](d)
        except (IndexError, TypeError):
            continue
        template = d.template(QUESTIONS, name)
        if varied:
            template, words = with_filter_first(rng, template, words)
        text = " ".join(fill(rng, template).format(**words).split())
        if varied:
            text = reword(rng, text)
        if rng.random() < 0.06:
            text = _slip(rng, text)
        linked = linker.link(text)
        query = _with_handles(marked, d.literals, linked)
        if query is not None:
            style = rng.random()
            shown = text.capitalize() + "?" if style < 0.5 else text
            return Question(shown, linked, query, expand(query, data.table, linked.values), name)


def _with_handles(marked: str, literals: list[tuple[Cell, int | None]], linked: Linked) -> str | None:
    """The query with each mark replaced by the handle that stands for its value; None if the linker missed one."""
    handles: list[str] = []
    for value, column in literals:
        for i, found in enumerate(linked.values, 1):
            same = found.value == value or str(found.value) == str(value)
            if same and (column is None or found.kind != "cell" or column in found.columns):
                handles.append(f"v{i}")
                break
        else:
            return None
    return _MARK.sub(lambda m: handles[int(m[1])], marked)


def _slip(rng: random.Random, text: str) -> str:
    """A slip of the finger in one of the longer words: two neighbouring letters swapped, or one lost."""
    words = text.split()
    places = [i for i, w in enumerate(words) if len(w) >= 5 and w.isalpha()]
    if places:
        i = rng.choice(places)
        at = rng.randint(1, len(words[i]) - 3)
        w = words[i]
        words[i] = w[:at] + w[at + 1] + w[at] + w[at + 2 :] if rng.random() < 0.5 else w[:at] + w[at + 1 :]
    return " ".join(words)
