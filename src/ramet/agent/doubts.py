"""What can be told of a query before it is run: what speaks against it, and where a value surely belongs."""

from __future__ import annotations

import re

from ramet.agent.comparisons import said_of
from ramet.agent.linking import Linked, Value
from ramet.agent.sql import Table

_COLUMN = re.compile(r"\bc(\d+)\b")
_VALUE = re.compile(r"\bv(\d+)\b")
_ARITHMETIC = re.compile(r"\b(SUM|AVG|MIN|MAX)\(c(\d+)\)")
_ROW = re.compile(r"\browid (?:=|<|>|<=|>=) v\d")
_COMPARED = re.compile(r"\bc(\d+) (=|!=|<>|<=|>=|<|>|BETWEEN) v(\d+)(?: AND v(\d+))?")
_AGGREGATE = re.compile(r"SELECT (?:ABS\()*(?:\(SELECT )?(?:COUNT|SUM|AVG|MIN|MAX)\(")
_EQUAL = re.compile(r"\bc(\d+)( (?:=|!=|<>|LIKE|NOT LIKE) v\d+\b| (?:NOT )?IN \(v\d+(?:, v\d+)*\))")
_ORDERED = re.compile(r"\bc(\d+) (=|<=|>=|<|>) v(\d+)\b")
_MORE_ROWS = re.compile(r"SELECT c(\d+) FROM t WHERE c(\d+) (>=|>|<|<=) v(\d+)")
_RANKS = re.compile("rank|position|place|pos\\b|seed|standing")
"""Titles of columns where a lower number is the higher one."""
_TEXT = ("name", "kind", "bool")


def doubts(query: str, table: Table, linked: Linked) -> int:
    """How many things speak against `query` (over handles) as the answer to a question; 0 is not proof.

    A value of the question that it does not use; a column that the question names and it does not touch (other than
    the column of names, in a count, a sum or the like); a sum or a comparison over text; a cell looked for in a column
    that has no such cell.
    """
    columns = {int(n) for n in _COLUMN.findall(query)}
    values = {int(n) for n in _VALUE.findall(query)}
    found = sum(i not in values for i in range(1, len(linked.values) + 1))
    counted = _AGGREGATE.match(query) is not None
    for indices in linked.named:
        named = {i + 1 for i in indices}
        if not columns & named and not (counted and all(_kind(table, n) == "name" for n in named)):
            found += 1
    for function, n in _ARITHMETIC.findall(query):
        found += _kind(table, int(n)) in (_TEXT if function in ("MIN", "MAX") else (*_TEXT, "date"))
    found += len(_ROW.findall(query))
    for column, operator, *compared in _COMPARED.findall(query):
        for handle in compared:
            if not handle or not 0 < int(handle) <= len(linked.values):
                continue
            value = linked.values[int(handle) - 1]
            if operator in ("=", "!=", "<>"):
                found += value.kind in ("cell", "like") and int(column) - 1 not in value.columns
            else:
                found += _kind(table, int(column)) in _TEXT or value.kind in ("cell", "like", "text")
    return found


def _kind(table: Table, number: int) -> str:
    return table.columns[number - 1].kind if 0 < number <= len(table.columns) else "name"


def mended(query: str, table: Table, linked: Linked) -> str:
    """`query` with what its types leave but one reading for put right.

    A cell is compared in a column that has it; a date in the only column of dates, where it met text; a column of text
    with `more than 3` counts its rows; a sum over text is one over the only number that the question names and the
    query leaves out; and a number is compared as the question's words say (`at least`, `or fewer`).
    """

    def value_of(handle: str) -> Value | None:
        return linked.values[int(handle) - 1] if 0 < int(handle) <= len(linked.values) else None

    def at_home(match: re.Match[str]) -> str:
        values = [value_of(n) for n in _VALUE.findall(match[2])]
        homes = [set(v.columns) if v is not None and v.kind in ("cell", "like") else set() for v in values]
        common = set.intersection(*homes)
        return match[0] if not common or int(match[1]) - 1 in common else f"c{min(common) + 1}{match[2]}"

    def on_a_date(match: re.Match[str]) -> str:
        value = value_of(match[3])
        if value is None or value.kind != "date" or value.columns or _kind(table, int(match[1])) not in _TEXT:
            return match[0]
        dates = [i for i, column in enumerate(table.columns, 1) if column.kind == "date"]
        return f"c{dates[0]} {match[2]} v{match[3]}" if len(dates) == 1 else match[0]

    def of_a_number(match: re.Match[str]) -> str:
        if _kind(table, int(match[2])) not in _TEXT:
            return match[0]
        used = {int(n) for n in _COLUMN.findall(query)}
        named = {i + 1 for indices in linked.named for i in indices} - used
        numbers = [n for n in named if _kind(table, n) in ("int", "real")]
        return f"{match[1]}(c{numbers[0]})" if len(numbers) == 1 else match[0]

    def as_said(match: re.Match[str]) -> str:
        value = value_of(match[3])
        number = value is not None and value.kind == "num" and _kind(table, int(match[1])) in ("int", "real")
        number = number and not _RANKS.search(table.columns[int(match[1]) - 1].title.lower())
        said = said_of(linked.text, int(match[3])) if number else None
        return f"c{match[1]} {said} v{match[3]}" if said else match[0]

    query = _EQUAL.sub(at_home, query)
    query = _ORDERED.sub(as_said, query)
    query = _ORDERED.sub(on_a_date, query)
    query = _ARITHMETIC.sub(of_a_number, query)
    having = _MORE_ROWS.fullmatch(query)
    if having and _kind(table, int(having[2])) == "name" and (value := value_of(having[4])) and value.kind == "num":
        return f"SELECT c{having[1]} FROM t GROUP BY c{having[1]} HAVING COUNT(*) {having[3]} v{having[4]}"
    return query
