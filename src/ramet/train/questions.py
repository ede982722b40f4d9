"""Generated questions over a generated table, each with the SQL that answers it, over the handles the linker gave."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from ramet.agent.cells import Cell
from ramet.agent.linking import Linked, Linker
from ramet.agent.table_prompt import expand
from ramet.train.drafts import Draft, plural, say
from ramet.train.filters import make_filters, where
from ramet.train.phrases import QUESTIONS, fill
from ramet.train.tables import Field, Generated
from ramet.train.variations import reword, with_filter_first

_MARK = re.compile(r"⟨(\d+)⟩")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


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


def _names(e: Field, **fields: Field) -> dict[str, str]:
    words = {"e": e.spec.title, "es": plural(e.spec.title)}
    for name, column in fields.items():
        words |= {name: column.spec.title, f"{name}s": plural(column.spec.title)}
    return words


Built = tuple[str, dict[str, str], str]
"""Phrase name, words for its slots, SQL with marks."""


def _lookup(d: Draft) -> Built:
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


def _lookup_filtered(d: Draft) -> Built:
    e = d.any("entity")
    f, condition = make_filters(d, e, at_least=1)
    return "lookup_filtered", _names(e) | {"f": f}, f"SELECT {e.handle} FROM t{where(condition)}"


def _lookup_column(d: Draft) -> Built:
    e = d.any("entity")
    a = d.any("text", "number", "year", "date", but=e)
    f, condition = make_filters(d, e, a, at_least=1)
    return "lookup_column", _names(e, a=a) | {"f": f}, f"SELECT {a.handle} FROM t{where(condition)}"


def _count(d: Draft) -> Built:
    e = d.any("entity")
    f, condition = make_filters(d, e, at_least=1)
    return "count", _names(e) | {"f": f}, f"SELECT COUNT(*) FROM t{where(condition)}"


def _count_value(d: Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    value = d.cell(k)
    sql = f"SELECT COUNT(*) FROM t WHERE {k.handle} = {d.mark(value, k.index)}"
    return "count_value", _names(e, k=k) | {"v": say(value, d.rng)}, sql


def _rows(d: Draft) -> Built:
    return "how_many_rows", _names(d.any("entity")), "SELECT COUNT(*) FROM t"


def _distinct(d: Draft) -> Built:
    k = d.any("text")
    f, condition = make_filters(d, k, chance=0.3)
    if d.rng.random() < 0.55:
        return "distinct", _names(k, k=k) | {"f": f}, f"SELECT COUNT(DISTINCT {k.handle}) FROM t{where(condition)}"
    return "list_distinct", _names(k, k=k) | {"f": f}, f"SELECT DISTINCT {k.handle} FROM t{where(condition)}"


def _aggregate(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = make_filters(d, e, x)
    name = d.rng.choice(["sum", "sum", "avg", "avg", "max", "min"])
    return name, _names(e, x=x) | {"f": f}, f"SELECT {name.upper()}({x.handle}) FROM t{where(condition)}"


def _extreme(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = make_filters(d, e, x, chance=0.35)
    up = d.rng.random() < 0.35
    words = _names(e, x=x) | {"f": f}
    choices = ["argmin" if up else "argmax"] * 2
    if e.spec.kind == "who":
        choices.append("argmin_who" if up else "argmax_who")
    if x.spec.adjectives:
        choices += ["most_adjective"] * 2
        words["most"] = x.spec.adjectives[up]
    sql = f"SELECT {e.handle} FROM t{where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'} LIMIT 1"
    name = d.rng.choice(choices)
    if name == "most_adjective" and x.spec.adjectives:
        # `best rank` is a low number and `best rating` a high one: only the words of the column can tell.
        reverse = (x.spec.title == "rank") or (x.spec.adjectives[0] == "fastest" and x.spec.title == "personal best")
        if reverse:
            sql = sql.replace(" ASC ", " ~ ").replace(" DESC ", " ASC ").replace(" ~ ", " DESC ")
    return name, words, sql


def _ask_of_extreme(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    a = d.any("text", "year", "date", but=e)
    f, condition = make_filters(d, e, x, a, chance=0.25)
    up = d.rng.random() < 0.35
    sql = f"SELECT {a.handle} FROM t{where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'} LIMIT 1"
    return "ask_of_argmin" if up else "ask_of_argmax", _names(e, x=x, a=a) | {"f": f}, sql


def _recent(d: Draft) -> Built:
    e, when = d.any("entity"), d.any("year", "date")
    f, condition = make_filters(d, e, when, chance=0.3)
    up = d.rng.random() < 0.45
    words = _names(e, d=when) | {"f": f}
    if d.rng.random() < 0.35:
        return (
            ("earliest_value" if up else "latest_value"),
            words,
            f"SELECT {'MIN' if up else 'MAX'}({when.handle}) FROM t{where(condition)}",
        )
    sql = f"SELECT {e.handle} FROM t{where(condition)} ORDER BY {when.handle} {'ASC' if up else 'DESC'} LIMIT 1"
    return "earliest" if up else "latest", words, sql


def _nth(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = make_filters(d, e, x, chance=0.2)
    n = d.rng.choice([1, 1, 2])
    sql = f"SELECT {e.handle} FROM t{where(condition)} ORDER BY {x.handle} DESC LIMIT 1 OFFSET {n}"
    return ["second", "third"][n - 1], _names(e, x=x) | {"f": f}, sql


def _top(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = make_filters(d, e, x, chance=0.2)
    up = d.rng.random() < 0.35
    n = d.rng.randint(2, 7)
    said = str(n) if d.rng.random() < 0.5 else _NUMBERS[n]
    sql = f"SELECT {e.handle} FROM t{where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'} LIMIT {d.mark(n)}"
    return "bottom" if up else "top", _names(e, x=x) | {"f": f, "n": said}, sql


def _order(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    f, condition = make_filters(d, e, x, chance=0.25)
    up = d.rng.random() < 0.45
    sql = f"SELECT {e.handle} FROM t{where(condition)} ORDER BY {x.handle} {'ASC' if up else 'DESC'}"
    return "order_up" if up else "order", _names(e, x=x) | {"f": f}, sql


def _group_extreme(d: Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    f, condition = make_filters(d, e, k, chance=0.15)
    name = d.rng.choice(
        ["group_count_max"] * 3
        + ["group_count_min", "group_sum_max", "group_sum_max", "group_avg_max", "group_avg_min"]
    )
    words = _names(e, k=k) | {"f": f}
    amount = "COUNT(*)"
    if "count" not in name:
        x = d.any("number")
        words |= {"x": x.spec.title}
        amount = f"{'SUM' if 'sum' in name else 'AVG'}({x.handle})"
    direction = "ASC" if name.endswith("min") else "DESC"
    return (
        name,
        words,
        f"SELECT {k.handle} FROM t{where(condition)} GROUP BY {k.handle} ORDER BY {amount} {direction} LIMIT 1",
    )


def _group(d: Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    f, condition = make_filters(d, e, k, chance=0.15)
    name = d.rng.choice(["group_count", "group_sum", "group_avg", "group_max"])
    words = _names(e, k=k) | {"f": f}
    amount = "COUNT(*)"
    if name != "group_count":
        x = d.any("number")
        words |= {"x": x.spec.title}
        amount = f"{name[6:].upper()}({x.handle})"
    return name, words, f"SELECT {k.handle}, {amount} FROM t{where(condition)} GROUP BY {k.handle}"


def _having(d: Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    n = d.rng.randint(2, 4)
    said = str(n) if d.rng.random() < 0.6 else _NUMBERS[n]
    group = f"SELECT {k.handle} FROM t GROUP BY {k.handle} HAVING COUNT(*) > {d.mark(n)}"
    if d.rng.random() < 0.3:
        return "having_count", _names(e, k=k) | {"n": said}, f"SELECT COUNT(*) FROM ({group})"
    return "having", _names(e, k=k) | {"n": said}, group


def _two(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    first = d.cell(e)
    second = d.cell(e, but=first)
    v, w = d.mark(first, e.index), d.mark(second, e.index)
    of = f"(SELECT {x.handle} FROM t WHERE {e.handle} = "
    name = d.rng.choice(
        ["difference"] * 3 + ["sum_two", "more_of_two", "more_of_two", "less_of_two", "is_more", "is_less"]
    )
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


def _exists(d: Draft) -> Built:
    e = d.any("entity")
    f, condition = make_filters(d, e, at_least=1)
    return "exists", _names(e) | {"f": f}, f"SELECT COUNT(*) > 0 FROM t{where(condition)}"


def _is_value(d: Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    row = d.rng.choice([r for r in d.data.table.rows if r[k.index] is not None])
    key, value = row[e.index], row[k.index] if d.rng.random() < 0.5 else d.cell(k)
    condition = f"{e.handle} = {d.mark(key, e.index)} AND {k.handle} = {d.mark(value, k.index)}"
    return (
        "is_value",
        _names(e, k=k) | {"v": str(key), "w": str(value)},
        f"SELECT COUNT(*) > 0 FROM t WHERE {condition}",
    )


def _neighbour(d: Draft) -> Built:
    e = d.any("entity")
    key = d.cell(e)
    after = d.rng.random() < 0.5
    row = f"(SELECT rowid FROM t WHERE {e.handle} = {d.mark(key, e.index)})"
    sql = f"SELECT {e.handle} FROM t WHERE rowid = {row} {'+' if after else '-'} 1"
    return "next" if after else "previous", _names(e) | {"v": say(key, d.rng)}, sql


def _end(d: Draft) -> Built:
    a = d.any("entity") if d.rng.random() < 0.7 else d.any("text")
    f, condition = make_filters(d, a, chance=0.3)
    first = d.rng.random() < 0.5
    sql = f"SELECT {a.handle} FROM t{where(condition)} ORDER BY rowid {'ASC' if first else 'DESC'} LIMIT 1"
    return "first" if first else "last", _names(a, a=a) | {"f": f}, sql


def _same(d: Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    key = d.cell(e)
    v = d.mark(key, e.index)
    condition = f"{k.handle} = (SELECT {k.handle} FROM t WHERE {e.handle} = {v}) AND {e.handle} != {v}"
    counted = d.rng.random() < 0.3
    what = "COUNT(*)" if counted else e.handle
    return (
        "same_count" if counted else "same",
        _names(e, k=k) | {"v": say(key, d.rng)},
        f"SELECT {what} FROM t WHERE {condition}",
    )


def _above_average(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number")
    counted = d.rng.random() < 0.4
    what = "COUNT(*)" if counted else e.handle
    sql = f"SELECT {what} FROM t WHERE {x.handle} > (SELECT AVG({x.handle}) FROM t)"
    return "count_above_average" if counted else "above_average", _names(e, x=x) | {"f": ""}, sql


def _range(d: Draft) -> Built:
    x = d.any("number")
    f, condition = make_filters(d, x, chance=0.2)
    return "range", _names(x, x=x) | {"f": f}, f"SELECT MAX({x.handle}) - MIN({x.handle}) FROM t{where(condition)}"


def _pair(d: Draft) -> Built:
    e, x = d.any("entity"), d.any("number", "text", "year", "date")
    f, condition = make_filters(d, e, x, chance=0.5)
    return "pair", _names(e, x=x) | {"f": f}, f"SELECT {e.handle}, {x.handle} FROM t{where(condition)}"


def _either(d: Draft) -> Built:
    e, k = d.any("entity"), d.any("text")
    first = d.cell(k)
    second = d.cell(k, but=first)
    v, w = d.mark(first, k.index), d.mark(second, k.index)
    words = _names(e, k=k) | {"v": say(first, d.rng), "w": say(second, d.rng)}
    name = d.rng.choice(["either", "either", "either_list", "count_more"])
    if name == "count_more":
        one, other = (f"(SELECT COUNT(*) FROM t WHERE {k.handle} = {x})" for x in (v, w))
        sql = f"SELECT ABS({one} - {other})"
    else:
        sql = f"SELECT {'COUNT(*)' if name == 'either' else e.handle} FROM t WHERE {k.handle} IN ({v}, {w})"
    return name, words, sql


_INTENTS: list[tuple[Callable[[Draft], Built], float]] = [
    (_lookup, 9), (_lookup_filtered, 8), (_lookup_column, 4), (_count, 8), (_count_value, 3), (_rows, 1),
    (_distinct, 4),
    (_aggregate, 9), (_extreme, 10), (_ask_of_extreme, 5), (_recent, 4), (_nth, 2), (_top, 3), (_order, 2),
    (_group_extreme, 6), (_group, 3), (_having, 2), (_two, 7), (_exists, 3), (_is_value, 2), (_neighbour, 4), (_end, 4),
    (_same, 3), (_above_average, 2), (_range, 1.5), (_pair, 2), (_either, 4),
]  # fmt: skip


def make_question(rng: random.Random, data: Generated, linker: Linker, *, stage: int = 0) -> Question:
    """One question that the linker's handles can answer. A draft that the table cannot serve is thrown away.

    `stage` above 0 adds phrasings and changes of form; it is for training only.
    """
    build, weights = zip(*_INTENTS, strict=True)
    while True:
        d = Draft(rng, data, stage)
        try:
            name, words, marked = rng.choices(build, weights)[0](d)
        except (IndexError, TypeError):
            continue
        template = d.template(QUESTIONS[name])
        if stage:
            template, words = with_filter_first(rng, template, words)
        text = " ".join(fill(rng, template).format(**words).split())
        if stage:
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
