"""Tables as the agent reads them: files, kinds of columns, read-only SQL, links from questions, handles to SQL."""

from __future__ import annotations

import datetime as dt
import sqlite3
from pathlib import Path

import openpyxl
import pytest

from ramet.agent.cells import plain, read_column, read_date, read_number
from ramet.agent.doubts import doubts, mended
from ramet.agent.linking import Linker
from ramet.agent.sql import QueryError, Table, TableError, load_table
from ramet.agent.table_prompt import answer_text, describe, expand, show_result

ROWS = [
    ["Lionel Rossi", "Ajax", "12", "1990-05-17", "yes"],
    ["Zoe Park", "Ajax", "7", "1988-11-02", "no"],
    ["Omar Khan", "Real Norte", "12", "1990-12-24", "yes"],
    ["Omar Silva", "Real Norte", "3", "1991-01-30", "no"],
]


@pytest.fixture
def table() -> Table:
    return Table.from_cells(["Player", "Club", "Goals scored", "Date of birth", "Captain"], ROWS)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234", 1234), ("1 234 567", 1234567), ("$5.50", 5.5), ("€ 3", 3), ("12 %", 12), ("-3 km", -3),
        ("−0.5", -0.5),
        ("2nd", 2), ("397 ft", 397), ("14,505 ft (4,421 m)", 14505), ("5*", 5), ("62[3]", 62),
        ("67–62", None), ("2:02.44", None), ("5 April", None), ("4x400", None), ("", None), ("n/a", None),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text: str, number: float | None) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2024-03-05", "2024-03-05"), ("5 March 2024", "2024-03-05"), ("March 5th, 2024", "2024-03-05"),
        ("Tuesday, March 5, 2024", "2024-03-05"), ("05/03/2024", "2024-03-05"), ("12/31/2024", "2024-12-31"),
        ("2024/3/5", "2024-03-05"), ("May 2011", "2011-05"), ("2023-02-30", None), ("Ajax 2011", None), ("2011", None),
    ],
)  # fmt: skip
def test_dates_as_people_write_them(text: str, date: str | None) -> None:
    assert read_date(text) == date


def test_kinds_of_columns() -> None:
    assert read_column(["1,200", "7", "-"]) == ("int", [1200, 7, None], 0)
    assert read_column(["1.5 kg", "2 kg"])[:2] == ("real", [1.5, 2])
    assert read_column(["1999", "2004"])[0] == "year"
    assert read_column(["03/04/2024", "12/31/2024"])[1] == ["2024-03-04", "2024-12-31"], "month first, as one must be"
    assert read_column(["yes", "No"])[:2] == ("bool", ["yes", "no"])
    assert read_column(["a", "b", "c"])[0] == "name"
    assert read_column(["a", "b", "a", "b"])[0] == "kind"
    assert read_column(["5 April", "7 May"])[0] == "name"
    assert read_column([*map(str, range(9)), "DNF"])[1:] == ([*range(9), None], 1), "one cell given up, and counted"
    assert read_column([dt.datetime(2024, 3, 5), dt.date(2024, 3, 6)])[1] == ["2024-03-05", "2024-03-06"]
    assert read_column([None, "", "-"])[1] == [None, None, "-"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "city;inhabitants\nMalmö;1\nRome;2\n".encode()),
        ("a.csv", 'city,inhabitants\r\n"Malmö",1\r\nRome,2\r\n'.encode("cp1252")),
        ("a.tsv", "city\tinhabitants\nMalmö\t1\nRome\t2".encode("utf-8-sig")),
        ("a.txt", "city|inhabitants\nMalmö|1\nRome|2".encode("utf-16")),
    ],
)
def test_text_files_of_many_dialects(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    read = load_table(tmp_path / name)
    assert [c.title for c in read.columns] == ["city", "inhabitants"]
    assert read.query("SELECT city FROM t WHERE inhabitants = 1").rows == [("Malmö",)]


def test_backslash_escapes_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"a","b"\n"x \\"y\\" z","1"\n')
    assert load_table(tmp_path / "a.csv", escape="\\").rows == [('x "y" z', 1)]


def test_workbooks_and_databases(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["city", "since", None])
    book.active.append(["Rome", dt.datetime(2024, 3, 5), None])
    book.create_sheet("other").append(["x"])
    book.save(tmp_path / "a.xlsx")
    assert load_table(tmp_path / "a.xlsx").rows == [("Rome", "2024-03-05")]
    with pytest.raises(TableError, match="no sheet 'third'; it has Sheet, other"):
        load_table(tmp_path / "a.xlsx", table="third")
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE cities (city, size)")
        database.execute("INSERT INTO cities VALUES ('Rome', 3), ('Oslo', 1)")
    assert load_table(tmp_path / "a.db").rows == [("Rome", 3), ("Oslo", 1)]
    with pytest.raises(TableError, match="no table 'towns'"):
        load_table(tmp_path / "a.db", table="towns")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (b"\x00\x01\x02rubbish\x00", "not a text file"),
        (b"PK\x03\x04rubbish", "not a readable Excel"),
        (b"SQLite format 3\x00rubbish", "database"),
        (b"\xd0\xcf\x11\xe0rubbish", "xls"),
    ],
)
def test_files_that_are_no_tables_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(TableError, match=complaint) as error:
        load_table(tmp_path / "a.csv")
    assert "a.csv" in str(error.value)
    with pytest.raises(TableError, match="no such file"):
        load_table(tmp_path / "b.csv")


def test_column_names_need_no_quotes() -> None:
    read = Table.from_cells(["Order", "Order", "2011", "Größe (cm)", "", "c3"], [["a", "b", "1", "2", "3", "4"]])
    names = [c.name for c in read.columns]
    assert len(set(names)) == 6
    for name in names:
        read.query(f"SELECT {name} FROM t")


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t", "DROP TABLE t", "INSERT INTO t VALUES (1, 2, 3, 4, 5)", "PRAGMA query_only = OFF",
        "ATTACH '/tmp/x.db' AS x", "SELECT * FROM sqlite_master", "SELECT load_extension('x')",
        "UPDATE t SET goals_scored = 1",
        "SELECT nothing FROM t", "SELEC 1", "SELECT 1; SELECT 2", "", "CREATE TABLE x (a)",
        "SELECT zeroblob(1000000000)",
    ],
)  # fmt: skip
def test_only_reading_is_allowed(table: Table, query: str) -> None:
    if query:
        with pytest.raises(QueryError) as error:
            table.query(query)
        assert 0 < len(str(error.value)) <= 80
    assert table.query("SELECT COUNT(*) FROM t").rows == [(4,)]


def test_endless_queries_end(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramet.agent.sql.MAX_SECONDS", 0.1)
    joined = ", ".join(f"t AS t{i}" for i in range(30))
    with pytest.raises(QueryError, match="took longer"):
        table.query(f"SELECT COUNT(*) FROM {joined}")
    assert table.query("SELECT COUNT(*) FROM t").rows == [(4,)]


def test_expressions_do_not_outgrow_the_memory(table: Table) -> None:
    with pytest.raises(QueryError, match="too big"):
        table.query("SELECT length(hex(printf('%60000000d', 1)))")


def test_what_is_no_text_comes_back_as_text(table: Table) -> None:
    assert table.query("SELECT x'41ff', CAST(club AS BLOB) FROM t LIMIT 1").rows == [("A\ufffd", "Ajax")]
    with pytest.raises(QueryError):
        table.query("SELECT '\ud800'")


def test_endless_cells_and_words() -> None:
    digits = "1" * 5000
    assert read_number(digits) is None
    assert read_number("1" * 20) == float("1" * 20)
    assert read_number(f"{digits}th") is None
    assert read_number("5" + "*" * 60) == 5
    assert read_number("5" + "*" * 60 + "x") is None  # at once
    assert Table.from_cells(["n", "word"], [["1", "a"], [digits, "b"]]).rows[1] == (digits, "b")
    assert Linker(Table.from_cells(["n", "word"], [["1", "a"]])).link(f"how many n over {digits}").values == ()


def test_columns_that_are_left_out_are_told() -> None:
    wide = Table.from_cells([f"h{i}" for i in range(70)], [["x"] * 70])
    assert len(wide.columns) == 64
    assert wide.notes == ["only the first 64 of 70 columns are read"]


def test_results_are_cut(table: Table) -> None:
    result = table.query("SELECT a.player FROM t a, t b, t c, t d")
    assert len(result.rows) == 100 and result.more
    assert show_result(result).endswith("\n100+ rows")


@pytest.mark.parametrize(
    ("question", "linked"),
    [
        ("How many goals did Zoe Park score?", "how many c3 int goals did v1 c1 name c3 int score"),
        ("which players are from Real Norte", "which c1 name players are from v1 c2 kind"),
        (
            "Which players play for ajax with more than 5 goals?",
            "which c1 name players play for v1 c2 kind with more than v2 num c3 int goals",
        ),
        ("goals of Lionel", "c3 int goals of v1 c1 name"),
        ("goals of Omar", "c3 int goals of v1 like c1 name"),
        ("goals of Loinel Rossi", "c3 int goals of v1 c1 name"),
        ("who was born after May 1990", "who was born after v1 date"),
        ("top three players", "top v1 num c3 int c1 name players"),
        ('clubs with "nort" in them', "c2 kind clubs with v1 text in them"),
        ("goals scored >= 7", "c3 int goals scored at least v1 num c3 int"),
    ],
)  # fmt: skip
def test_questions_are_linked(table: Table, question: str, linked: str) -> None:
    assert Linker(table).link(question).text == linked


@pytest.mark.parametrize(
    ("question", "query", "rows"),
    [
        ("goals of Zoe Park", "SELECT c3 FROM t WHERE c1 = v1", [(7,)]),
        ("goals of Omar", "SELECT SUM(c3) FROM t WHERE c1 = v1", [(15,)]),
        ("born in 1990", "SELECT COUNT(*) FROM t WHERE c4 = v1", [(2,)]),
        ("born after 1990", "SELECT c1 FROM t WHERE c4 > v1", [("Omar Silva",)]),
        ("born before 1990", "SELECT c1 FROM t WHERE c4 < v1", [("Zoe Park",)]),
        ("born between 1988 and 1990", "SELECT COUNT(*) FROM t WHERE c4 BETWEEN v1 AND v2", [(3,)]),
        ("born in May 1990", "SELECT c1 FROM t WHERE c4 = v1", [("Lionel Rossi",)]),
        ("born in December", "SELECT c1 FROM t WHERE c4 = v1", [("Omar Khan",)]),
        ("born on November 2, 1988", "SELECT c1 FROM t WHERE c4 = v1", [("Zoe Park",)]),
        ("top 2", "SELECT c1 FROM t ORDER BY c3 ASC LIMIT v1", [("Omar Silva",), ("Zoe Park",)]),
        ("not Ajax", "SELECT COUNT(*) FROM t WHERE c2 != v1", [(2,)]),
    ],
)
def test_handles_become_names_and_literals(table: Table, question: str, query: str, rows: list[tuple[object]]) -> None:
    linked = Linker(table).link(question)
    assert table.query(expand(query, table, linked.values)).rows == rows


def test_handles_inside_text_stay(table: Table) -> None:
    assert expand("SELECT c1 FROM t WHERE c2 = 'c1 v1'", table, ()) == "SELECT player FROM t WHERE club = 'c1 v1'"


@pytest.mark.parametrize(("query", "complaint"), [("SELECT c9 FROM t", "c9"), ("SELECT c1 FROM t WHERE c1 = v3", "v3")])
def test_handles_that_stand_for_nothing_are_errors(table: Table, query: str, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        expand(query, table, ())


def test_missing_cells_never_come_first() -> None:
    read = Table.from_cells(["a", "b"], [["x", ""], ["y", "2"], ["z", "1"]])
    assert read.query(expand("SELECT c1 FROM t ORDER BY c2 ASC LIMIT 1", read, ())).rows == [("z",)]


def test_what_the_model_sees(table: Table) -> None:
    assert describe(table) == "c1 name player c2 kind club c3 int goals scored c4 date date of birth c5 bool captain"
    assert show_result(table.query("SELECT player, goals_scored FROM t LIMIT 2")) == "Lionel Rossi | 12\nZoe Park | 7"
    assert show_result(table.query("SELECT 1 FROM t WHERE 0")) == "no rows"
    query = "SELECT COUNT(*) > 0 FROM t"
    assert answer_text(query, table.query(query)) == "yes"
    assert answer_text("SELECT AVG(c3)", table.query("SELECT AVG(goals_scored) FROM t")) == "8.5"
    assert plain("  Größe_(cm) 1,200! ") == "große cm 1,200"


@pytest.mark.parametrize(
    ("question", "query", "expected"),
    [
        ("goals of Zoe Park", "SELECT c3 FROM t WHERE c1 = v1", 0),
        ("how many players have 12 goals", "SELECT COUNT(*) FROM t WHERE c3 = v1", 0),
        ("goals of Zoe Park", "SELECT c3 FROM t", 1),
        ("goals of Zoe Park", "SELECT c3 FROM t WHERE c2 = v1", 1),
        ("goals of Zoe Park", "SELECT c2 FROM t WHERE c1 = v1", 1),
        ("average goals of Ajax", "SELECT AVG(c1) FROM t WHERE c2 = v1", 2),
        ("players with more than 5 goals", "SELECT c1 FROM t WHERE c1 > v1", 2),
    ],
)
def test_what_speaks_against_a_query(table: Table, question: str, query: str, expected: int) -> None:
    assert doubts(query, table, Linker(table).link(question)) == expected


@pytest.mark.parametrize(
    ("question", "query", "expected"),
    [
        ("goals of Zoe Park", "SELECT c3 FROM t WHERE c2 = v1", "SELECT c3 FROM t WHERE c1 = v1"),
        ("goals of Ajax", "SELECT SUM(c3) FROM t WHERE c1 IN (v1)", "SELECT SUM(c3) FROM t WHERE c2 IN (v1)"),
        ("players born in 1990", "SELECT c1 FROM t WHERE c2 = v1", "SELECT c1 FROM t WHERE c4 = v1"),
        ("average goals of the players", "SELECT AVG(c1) FROM t", "SELECT AVG(c3) FROM t"),
        (
            "clubs with more than 1 player",
            "SELECT c2 FROM t WHERE c1 > v1",
            "SELECT c2 FROM t GROUP BY c2 HAVING COUNT(*) > v1",
        ),
        ("goals over 5", "SELECT c1 FROM t WHERE c3 > v1", "SELECT c1 FROM t WHERE c3 > v1"),
    ],
)
def test_queries_that_types_leave_one_reading_for(table: Table, question: str, query: str, expected: str) -> None:
    assert mended(query, table, Linker(table).link(question)) == expected


@pytest.mark.parametrize(
    ("question", "query", "mended_query"),
    [
        ("players with at least 5 goals", "SELECT c1 FROM t WHERE c3 > v1", "SELECT c1 FROM t WHERE c3 >= v1"),
        ("players with no fewer than 5 goals", "SELECT c1 FROM t WHERE c3 < v1", "SELECT c1 FROM t WHERE c3 >= v1"),
        ("players with 5 goals or fewer", "SELECT c1 FROM t WHERE c3 = v1", "SELECT c1 FROM t WHERE c3 <= v1"),
        ("players with under 5 goals", "SELECT c1 FROM t WHERE c3 >= v1", "SELECT c1 FROM t WHERE c3 < v1"),
        ("players who did not go over 5 goals", "SELECT c1 FROM t WHERE c3 <= v1", "SELECT c1 FROM t WHERE c3 <= v1"),
        ("players meeting or exceeding 5 goals", "SELECT c1 FROM t WHERE c3 >= v1", "SELECT c1 FROM t WHERE c3 >= v1"),
        ("players with from 5 to 8 goals", "SELECT c1 FROM t WHERE c3 >= v1", "SELECT c1 FROM t WHERE c3 >= v1"),
        ("top 5 players by goals", "SELECT c1 FROM t WHERE c3 < v1", "SELECT c1 FROM t WHERE c3 < v1"),
        ("who didn't score 5 goals or more", "SELECT c1 FROM t WHERE c3 < v1", "SELECT c1 FROM t WHERE c3 < v1"),
        ("players who did not score at least 5", "SELECT c1 FROM t WHERE c3 < v1", "SELECT c1 FROM t WHERE c3 < v1"),
        ("goals over 5 and more people", "SELECT c1 FROM t WHERE c3 > v1", "SELECT c1 FROM t WHERE c3 > v1"),
    ],
)  # fmt: skip
def test_a_number_is_compared_as_the_words_say(table: Table, question: str, query: str, mended_query: str) -> None:
    assert mended(query, table, Linker(table).link(question)) == mended_query


@pytest.mark.parametrize(
    ("question", "linked"),
    [
        ("the oldest player", "the c4 int oldest c1 name player"),
        ("the oldest player with 5 goals", "the oldest c1 name player with v1 num c3 int c3 int goals"),
        ("the heaviest player", "the heaviest c1 name player"),
    ],
)
def test_an_adjective_is_linked_to_the_column_it_speaks_of(tmp_path: Path, question: str, linked: str) -> None:
    file = tmp_path / "players.csv"
    file.write_text("player,club,goals,age\nZoe Park,Ajax,5,30\nOmar Sy,Real Norte,7,21\n")
    assert Linker(load_table(file)).link(question).text == linked
