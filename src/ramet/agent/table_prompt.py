"""How a question about a table is put to the small table model, and how its SQL is read, in training and in use.

The table is the system message, a line of `handle kind title` for each column; a question is a user message with
handles written into it (`how many c3 goals did v1 c1 score`); the reply is a call of the tool `sql` over handles
(`SELECT c3 FROM t WHERE c1 = v1`). `expand` puts names and literals back before SQLite sees it, so a value of any
length costs the model one token and is never misspelt. The tool's rows come back compactly and the model answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ramet.agent.cells import Cell, plain
from ramet.agent.linking import MAX_LINKED_COLUMNS, Linked, Value
from ramet.agent.sql import QueryError, Result, Table

SQL_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sql",
        "description": "Run one SELECT on the table t.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
TOOLS = [SQL_TOOL]

SHOWN_ROWS = 4
"""Rows of a result that the model is shown."""
SHOWN_CELL = 40
"""Characters of a cell that the model is shown."""

_HANDLE = re.compile(r"\b(?:c(\d+)|v(\d+))\b")
_COMPARISON = re.compile(r"\bc(\d+)\s*(=|!=|<>|<=|>=|<|>|NOT LIKE|LIKE)\s*v(\d+)\b", re.IGNORECASE)
_BETWEEN = re.compile(r"\bc(\d+)\s+BETWEEN\s+v(\d+)\s+AND\s+v(\d+)\b", re.IGNORECASE)


def system_message(table: Table) -> dict[str, Any]:
    """The table as the model sees it."""
    return {"role": "system", "content": describe(table)}


def describe(table: Table) -> str:
    columns = table.columns[:MAX_LINKED_COLUMNS]
    return " ".join(f"c{i} {c.kind} {' '.join(plain(c.title).split()[:5])}" for i, c in enumerate(columns, 1))


def user_message(linked: Linked) -> dict[str, Any]:
    return {"role": "user", "content": linked.text}


def call_message(query: str, call_id: str = "call_1") -> dict[str, Any]:
    """The assistant's message that calls the tool with `query` (over handles)."""
    call = {"id": call_id, "type": "function", "function": {"name": "sql", "arguments": {"query": query}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def tool_message(content: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def expand(query: str, table: Table, values: Sequence[Value]) -> str:
    """SQL over names and literals from SQL over handles. Raises `QueryError` for a handle that stands for nothing."""

    def column(number: str) -> str:
        index = int(number) - 1
        if not 0 <= index < len(table.columns):
            raise QueryError(f"no such column: c{number}")
        return table.columns[index].name

    def value(number: str) -> Value:
        index = int(number) - 1
        if not 0 <= index < len(values):
            raise QueryError(f"no such value: v{number}")
        return values[index]

    def compared(match: re.Match[str]) -> str:
        name, operator, found = column(match[1]), match[2].upper(), value(match[3])
        return f"{name} {_condition(operator, found, table.columns[int(match[1]) - 1].kind)}"

    def between(match: re.Match[str]) -> str:
        name, kind = column(match[1]), table.columns[int(match[1]) - 1].kind
        low = _condition(">=", value(match[2]), kind)
        return f"{name} {low} AND {name} {_condition('<=', value(match[3]), kind)}"

    def handle(match: re.Match[str]) -> str:
        return column(match[1]) if match[1] else _literal(value(match[2]).value)

    pieces = re.split(r"('(?:[^']|'')*')", query)
    for i in range(0, len(pieces), 2):
        text = _BETWEEN.sub(between, pieces[i])
        text = _COMPARISON.sub(compared, text)
        text = "".join(
            part if j % 2 else _HANDLE.sub(handle, part) for j, part in enumerate(re.split(r"('(?:[^']|'')*')", text))
        )
        pieces[i] = re.sub(r"\bASC\b(?! NULLS)", "ASC NULLS LAST", text)
    return "".join(pieces)


def _condition(operator: str, value: Value, kind: str) -> str:
    """`operator literal`, the literal fitted to the column: a pattern for LIKE, the right end of a period for dates."""
    text = str(value.value)
    part = value.kind in ("like", "text") or (kind == "date" and len(text) < 10)
    if operator.endswith("LIKE") or (part and operator in ("=", "!=", "<>")):
        operator = {"=": "LIKE", "!=": "NOT LIKE", "<>": "NOT LIKE"}.get(operator, operator)
        whole_month = kind == "date" and len(text) == 4 and text.isdigit()
        return f"{operator} {_literal(f'{text}-%' if whole_month else f'%{text}%')}"
    if kind == "date":
        return f"{operator} {_literal(text + '~' if operator in ('>', '<=') and len(text) < 10 else text)}"
    if value.kind == "date" and text.isdigit():
        return f"{operator} {text if kind in ('int', 'year', 'real') else _literal(text)}"
    if isinstance(value.value, str) or kind in ("int", "year", "real"):
        return f"{operator} {_literal(value.value)}"
    return f"{operator} {_literal(text)}"


def _literal(value: Cell) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def show_result(result: Result) -> str:
    """A result as the model sees it: a row per line, ` | ` between cells, then how many rows were left out."""
    if not result.rows:
        return "no rows"
    lines = [" | ".join(show_cell(cell)[:SHOWN_CELL] for cell in row) for row in result.rows[:SHOWN_ROWS]]
    if len(result.rows) > SHOWN_ROWS:
        lines.append(f"{len(result.rows)}{'+' if result.more else ''} rows")
    return "\n".join(lines)


def show_error(error: QueryError) -> str:
    return f"error: {error}"


def show_cell(cell: Cell) -> str:
    """A cell for reading: no trailing `.0`, at most two decimals, `nothing` for a missing one."""
    if cell is None:
        return "nothing"
    if isinstance(cell, float):
        return f"{cell:.2f}".rstrip("0").rstrip(".")
    return str(cell)


def answer_text(query: str, result: Result) -> str:
    """The answer that a result gives, as the model is taught to say it."""
    if not result.rows:
        return "none"
    if len(result.rows) == 1 and len(result.rows[0]) == 1:
        cell = result.rows[0][0]
        return ("yes" if cell else "no") if is_yes_no(query) and cell in (0, 1) else show_cell(cell)[:SHOWN_CELL]
    if len(result.rows) > SHOWN_ROWS:
        return f"{len(result.rows)}{'+' if result.more else ''} rows"
    return ", ".join(" ".join(show_cell(c)[:SHOWN_CELL] for c in row) for row in result.rows)


def is_yes_no(query: str) -> bool:
    """Whether the query asks a yes-or-no question: its result is a comparison."""
    return re.match(r"SELECT (COUNT\(\*\)|\(SELECT .*\)) [<>=]+ (0|\(SELECT .*\))", query) is not None
