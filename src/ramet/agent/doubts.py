"""What can be told of a query before it is run: what speaks against it, and where a value surely belongs."""

from __future__ import annotations

import re

from ramet.agent.linking import Linked
from ramet.agent.sql import Table

_COLUMN = re.compile(r"\bc(\d+)\b")
_VALUE = re.compile(r"\bv(\d+)\b")
_ARITHMETIC = re.compile(r"\b(SUM|AVG|MIN|MAX)\(c(\d+)\)")
_ROW = re.compile(r"\browid (?:=|<|>|<=|>=) v\d")
_COMPARED = re.compile(r"\bc(\d+) (=|!=|<>|<=|>=|<|>|BETWEEN) v(\d+)(?: AND v(\d+))?")
_AGGREGATE = re.compile(r"SELECT (?:ABS\()*(?:\(SELECT )?(?:COUNT|SUM|AVG|MIN|MAX)\(")
_EQUAL = re.compile(r"\bc(\d+)( (?:=|!=|<>|LIKE|NOT LIKE) v\d+\b| (?:NOT )?IN \(v\d+(?:, v\d+)*\))")
_TEXT = ("name", "kind", "bool")
_KINDS = ("like", "num", "date", "text")


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
    for named in _named(linked):
        if not columns.intersection(named) and not (counted and all(_kind(table, n) == "name" for n in named)):
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


def _named(linked: Linked) -> list[set[int]]:
    """The columns that a linked question names, each with those it may be taken for; not those of its values."""
    named: list[set[int]] = []
    skip, inside = 0, False
    for word in linked.text.split():
        if match := _VALUE.fullmatch(word):
            value = linked.values[int(match[1]) - 1] if 0 < int(match[1]) <= len(linked.values) else None
            skip, inside = len(value.columns) if value else 0, False
        elif match := _COLUMN.fullmatch(word):
            if skip:
                skip -= 1
                continue
            if not inside:
                named.append(set())
            named[-1].add(int(match[1]))
            inside = True
        elif not (skip and word in _KINDS):
            skip, inside = 0, False
    return named


def mended(query: str, linked: Linked) -> str:
    """`query` with each cell of the question compared in a column that has it.

    A cell's columns are known from the table, so `c3 = v1` where only c7 has such a cell can but mean `c7 = v1`.
    """

    def compared(match: re.Match[str]) -> str:
        handles = [int(n) for n in _VALUE.findall(match[2])]
        if any(not 0 < n <= len(linked.values) or linked.values[n - 1].kind not in ("cell", "like") for n in handles):
            return match[0]
        homes = set.intersection(*(set(linked.values[n - 1].columns) for n in handles))
        if not homes or int(match[1]) - 1 in homes:
            return match[0]
        return f"c{min(homes) + 1}{match[2]}"

    return _EQUAL.sub(compared, query)
