"""A table in SQLite: read from a CSV, TSV, Excel or SQLite file, asked read-only under limits."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ramet.agent.cells import Cell, Kind, plain, read_column
from ramet.errors import RametError

MAX_ROWS = 100
"""Rows of a result that are kept."""
MAX_SECONDS = 2.0
MAX_COLUMNS = 64
MAX_CELL_BYTES = 64 << 20
"""What an expression may grow to: the clock is not looked at inside one."""

_KEYWORDS = {
    "add", "all", "and", "as", "asc", "between", "by", "case", "check", "count", "current", "date", "desc",
    "distinct", "drop", "else", "end", "exists", "from", "group", "having", "if", "in", "index", "into", "is",
    "join", "key", "left", "like", "limit", "match", "no", "not", "null", "of", "offset", "on", "or", "order",
    "plan", "primary", "right", "row", "rowid", "select", "set", "sum", "table", "t", "then", "time", "to", "union",
    "unique", "update", "using", "values", "view", "when", "where", "with",
}  # fmt: skip
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "readfile", "writefile", "randomblob", "zeroblob"})


class TableError(RametError):
    """A file that cannot be read as a table."""


class QueryError(Exception):
    """A query that failed; its text is short and goes back to the model as the tool's answer."""


@dataclass(frozen=True)
class Column:
    name: str
    """As SQL knows it: lower case, letters, digits and underscores, unique in the table."""
    title: str
    """As the file has it."""
    kind: Kind


@dataclass(frozen=True)
class Result:
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    more: bool
    """Whether rows beyond `MAX_ROWS` were left out."""


@dataclass
class Table:
    """A table named `t`, in a private in-memory database that only answers questions."""

    name: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]]
    notes: list[str] = field(default_factory=list)
    """What was given up while reading, in words for a person."""

    def __post_init__(self) -> None:
        self._deadline = 0.0
        database = sqlite3.connect(":memory:", check_same_thread=False)
        types = {"int": "INTEGER", "year": "INTEGER", "real": "REAL"}
        definition = ", ".join(f'"{c.name}" {types.get(c.kind, "TEXT")}' for c in self.columns)
        database.execute(f"CREATE TABLE t ({definition})")
        database.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(self.columns))})", self.rows)
        database.commit()
        database.execute("PRAGMA query_only = ON")
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
        database.set_authorizer(_authorize)
        database.set_progress_handler(lambda: int(time.monotonic() > self._deadline), 10_000)
        self._database = database

    @classmethod
    def from_cells(cls, header: Sequence[object], rows: Iterable[Sequence[object]], *, name: str = "t") -> Table:
        """A table from a header and rows of raw cells: kinds are found, short rows are filled, empty rows dropped."""
        titles = [" ".join(str(h if h is not None else "").split()) for h in header][:MAX_COLUMNS]
        width = len(titles)
        if width == 0:
            raise TableError(f"{name}: the table has no columns")
        kept = [list(row[:width]) + [None] * (width - len(row)) for row in rows]
        kept = [row for row in kept if any(cell is not None and str(cell).strip() for cell in row)]
        columns, values, notes = [], [], []
        if len(header) > MAX_COLUMNS:
            notes.append(f"only the first {MAX_COLUMNS} of {len(header)} columns are read")
        taken: set[str] = set()
        for index, title in enumerate(titles):
            kind, cells, lost = read_column([row[index] for row in kept])
            columns.append(Column(_sql_name(title, index, taken), title or f"column {index + 1}", kind))
            values.append(cells)
            if lost:
                notes.append(
                    f"column {columns[-1].title!r}: {lost} of {len(cells)} cells do not read as {kind}: missing"
                )
        return cls(name, tuple(columns), list(zip(*values, strict=True)) if kept else [], notes)

    def query(self, sql: str) -> Result:
        """Run one SELECT. Raises `QueryError` with a short reason: a wrong name, a forbidden statement, a limit."""
        self._deadline = time.monotonic() + MAX_SECONDS
        try:
            cursor = self._database.execute(sql)
            rows = [tuple(map(_cell, row)) for row in cursor.fetchmany(MAX_ROWS + 1)]
        except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError) as error:
            raise QueryError(_short(error)) from None
        names = tuple(d[0] for d in cursor.description or ())
        cursor.close()
        return Result(names, rows[:MAX_ROWS], len(rows) > MAX_ROWS)

    def close(self) -> None:
        self._database.close()


def load_table(path: str | Path, *, table: str | None = None, escape: str | None = None) -> Table:
    """Read a `.csv`, `.tsv`, `.txt`, `.xlsx` or SQLite file; `TableError` says what is wrong with it.

    `table`: the sheet of a workbook or the table of a database (default: the first). `escape`: the character that
    escapes quotes inside quoted fields, for CSV dialects that do not double them.
    """
    path = Path(path)
    if not path.is_file():
        raise TableError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3\0"):
        header, rows = _read_sqlite(path, table)
    elif start.startswith(b"PK\x03\x04"):
        header, rows = _read_excel(path, table)
    elif start.startswith(b"\xd0\xcf\x11\xe0"):
        raise TableError(f"{path}: an old Excel file (.xls); save it as .xlsx or .csv first")
    else:
        header, rows = _read_text(path, escape)
    return Table.from_cells(header, rows, name=path.stem)


def _read_text(path: Path, escape: str | None) -> tuple[list[object], list[list[object]]]:
    data = path.read_bytes()
    text = _decode(data)
    if not text.strip():
        raise TableError(f"{path}: the file is empty")
    if "\0" in text:
        raise TableError(f"{path}: not a text file; a table is CSV, TSV, Excel (.xlsx) or SQLite")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    csv.field_size_limit(16 * 2**20)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, escapechar=escape, doublequote=escape is None
    )
    try:
        rows: list[list[object]] = [list(row) for row in reader if row]
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: {error}") from None
    return rows[0], rows[1:]


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _delimiter(text: str) -> str:
    """The candidate that cuts the first lines into the most fields with the same number in each."""
    lines = [line for line in text[:65536].splitlines() if line.strip()][:20]
    best, best_score = ",", 0.0
    for candidate in (",", ";", "\t", "|"):
        widths = [len(row) for row in csv.reader(lines, delimiter=candidate) if row]
        common = max(set(widths), key=widths.count) if widths else 1
        score = 0.0 if common < 2 else common * (widths.count(common) / len(widths)) ** 2
        if score > best_score:
            best, best_score = candidate, score
    return best


def _read_excel(path: Path, sheet: str | None) -> tuple[list[object], list[list[object]]]:
    from openpyxl import load_workbook

    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever the broken part raised
        raise TableError(f"{path}: not a readable Excel workbook ({error})") from None
    try:
        if sheet is not None and sheet not in workbook.sheetnames:
            raise TableError(f"{path}: no sheet {sheet!r}; it has {', '.join(workbook.sheetnames)}")
        rows: list[list[object]] = [
            list(r) for r in workbook[sheet or workbook.sheetnames[0]].iter_rows(values_only=True)
        ]
    finally:
        workbook.close()
    rows = [row for row in rows if any(cell is not None for cell in row)]
    if not rows:
        raise TableError(f"{path}: the sheet is empty")
    while rows[0] and all(row[-1] is None for row in rows if len(row) == len(rows[0])):
        rows = [row[:-1] for row in rows]
    return rows[0], rows[1:]


def _read_sqlite(path: Path, table: str | None) -> tuple[list[object], list[list[object]]]:
    try:
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            listing = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
            names: list[str] = [name for (name,) in database.execute(listing)]
            if not names:
                raise TableError(f"{path}: the database has no tables")
            if table is not None and table not in names:
                raise TableError(f"{path}: no table {table!r}; it has {', '.join(names)}")
            quoted = (table or names[0]).replace('"', '""')
            cursor = database.execute(f'SELECT * FROM "{quoted}"')
            rows: list[list[Any]] = [list(row) for row in cursor]
            return [d[0] for d in cursor.description], rows
        finally:
            database.close()
    except sqlite3.Error as error:
        raise TableError(f"{path}: {error}") from None


def _sql_name(title: str, index: int, taken: set[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", plain(title)).strip("_")[:40] or f"column_{index + 1}"
    if name[0].isdigit() or name in _KEYWORDS or re.fullmatch(r"[cv]\d+", name):
        name = f"{name}_" if not name[0].isdigit() else f"n_{name}"
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    taken.add(unique)
    return unique


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action not in _ALLOWED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_READ and first not in ("t", ""):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and second in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _cell(value: Any) -> Cell:
    """A value of a result; bytes, which only an expression can make, as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _short(error: Exception) -> str:
    text = str(error)
    if "not authorized" in text or "prohibited" in text:
        return "only SELECT on t is allowed"
    if "interrupted" in text:
        return f"took longer than {MAX_SECONDS:g} s"
    return text[:80]
