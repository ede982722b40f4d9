"""The table agent through a server: the same answers as in one process, and errors that say what is wrong."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import openpyxl
import pytest
import uvicorn
from typer.testing import CliRunner

from ramet.agent.ask import TableAgent
from ramet.agent.replies import AskError, LocalModel, RemoteModel
from ramet.agent.sql import Table
from ramet.cli.main import app
from ramet.engine.runtime import Runtime
from ramet.models.random import write_random_checkpoint
from ramet.server.app import create_app
from ramet.server.settings import Settings

from .test_agent_ask import ROWS, call, running

SCRIPT = {call(f"SELECT c1 FROM t WHERE c3 > {age}"): 0.2 for age in (20, 26, 40, 99)} | {call("SELECT c9 FROM t"): 0.2}


@contextmanager
def served(runtime: Runtime, api_key: str | None = None) -> Iterator[str]:
    """A server around `runtime`; gives its URL."""
    settings = Settings(runtime.path, model_name="scripted", api_key=api_key)
    http = create_app(runtime, settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(http, log_level="warning", lifespan="off", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        http.state.service.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


def test_a_server_gives_the_answers_of_the_engine_in_it(checkpoint: Path) -> None:
    table = Table.from_cells(["name", "city", "age"], ROWS)
    with running(checkpoint, lambda _: SCRIPT) as runtime:
        local = TableAgent(LocalModel(runtime), table, branches=8).ask("who is old?")
    with running(checkpoint, lambda _: SCRIPT) as runtime, served(runtime) as url:
        model = RemoteModel(url)
        remote = TableAgent(model, table, branches=8).ask("who is old?")
        nodes = model.nodes()
        assert {node.id for node in nodes} == {node.id for node in runtime.tree.nodes()}

    def course(branches: tuple[object, ...]) -> list[list[tuple[str | None, str | None]]]:
        return [[(a.sql, a.error) for a in b.attempts] for b in branches]  # type: ignore[attr-defined]

    assert course(remote.branches) == course(local.branches)
    assert len({attempt for branch in course(remote.branches) for attempt in branch}) > 2
    assert remote.best is not None and local.best is not None
    assert (remote.best.text, remote.best.share) == (local.best.text, local.best.share)
    assert remote.computed + remote.reused == local.computed + local.reused
    assert {a.node for b in remote.branches for a in b.attempts} <= {node.id for node in nodes}


def test_ask_through_a_server_from_the_command_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "people.csv"
    table.write_text("name,city,age\n" + "".join(f"{name},{city},{age}\n" for name, city, age in ROWS))
    query = "SELECT c1 FROM t ORDER BY c3 DESC LIMIT 1"
    with running(checkpoint, lambda _: {call(query): 1.0}) as runtime, served(runtime, "sesame") as url:
        words = ["ask", str(table), "Who is oldest?", "--server", url, "--tree"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1
        assert "API key" in result.stderr or "api key" in result.stderr
        monkeypatch.setenv("RAMET_API_KEY", "sesame")
        result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "SELECT name FROM t ORDER BY age DESC LIMIT 1" in result.stdout
    assert "Answer: Cem" in result.stdout
    assert "Not sure" not in result.stdout
    tree = result.stdout[result.stdout.index("prompt tokens:") :]
    assert "×5 ✔" in tree
    assert tree.count("user") == 1


def test_every_kind_of_file_gives_the_same_answer(checkpoint: Path, tmp_path: Path) -> None:
    header = ("name", "city", "age")
    lines = [header, *ROWS]
    (tmp_path / "people.csv").write_text("\n".join(",".join(map(str, line)) for line in lines))
    (tmp_path / "semicolons.csv").write_text("\r\n".join(";".join(map(str, line)) for line in lines), encoding="utf-16")
    (tmp_path / "people.tsv").write_text("\n".join("\t".join(map(str, line)) for line in lines))
    workbook = openpyxl.Workbook()
    workbook.active.append(["a note"])
    sheet = workbook.create_sheet("people")
    for line in lines:
        sheet.append(line)
    workbook.save(tmp_path / "people.xlsx")
    with closing(sqlite3.connect(tmp_path / "people.db")) as database, database:
        database.execute("CREATE TABLE other (x)")
        database.execute("CREATE TABLE people (name TEXT, city TEXT, age INTEGER)")
        database.executemany("INSERT INTO people VALUES (?, ?, ?)", ROWS)
    files = [["people.csv"], ["semicolons.csv"], ["people.tsv"], ["people.xlsx", "--sheet", "people"],
             ["people.db", "--table", "people"]]  # fmt: skip
    script = {call("SELECT c1, c3 FROM t WHERE c3 < 30"): 1.0}
    with running(checkpoint, lambda _: script) as runtime, served(runtime) as url:
        for name, *options in files:
            words = ["ask", str(tmp_path / name), "Who is young?", "--server", url, "--json", *options]
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, result.output
            answer = json.loads(result.stdout)
            assert (answer["columns"], answer["rows"]) == (["name", "age"], [["Ben", 25], ["Dua", 25]])
            assert (answer["sure"], answer["agreement"]) == (True, 1.0)
            assert answer["sql"] == "SELECT name, age FROM t WHERE age < 30"


def test_no_server_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with pytest.raises(AskError, match=r"no server of Ramet answers at .*ramet serve"):
        RemoteModel(f"http://127.0.0.1:{port}")
    with pytest.raises(AskError, match="no server"):
        RemoteModel("not a url")


def test_a_server_and_a_model_are_one_too_many(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("name,age\nAda,3\n")
    result = CliRunner().invoke(app, ["ask", str(table), "Who?", "--server", "http://127.0.0.1:1", "--model", "x"])
    assert result.exit_code == 2
    assert "either --model or --server" in result.stderr
