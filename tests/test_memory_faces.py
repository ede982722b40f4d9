"""The memory through its verbs, the command line, the agent's tools and MCP."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ramet.cli.main import app
from ramet.memory import Memory, MemoryStoreError
from ramet.memory.base import Turn, Vector
from ramet.memory.tools import TOOLS, call
from tests.memory_support import said

runner = CliRunner()


class Letters:
    """An embedder: how often each letter is there."""

    name = "letters"

    def embed(self, texts: list[str]) -> Vector:
        counts = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)


def run(*arguments: str, code: int = 0, given: str | None = None) -> str:
    result = runner.invoke(app, ["memory", *arguments], input=given)
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_verbs() -> None:
    with Memory.open(None, Letters()) as memory:
        first = memory.remember("I moved to Oslo", conversation="ann", speaker="Ann", time=datetime(2023, 5, 8))
        second = memory.remember("My cat is Miso \0\ud800", conversation="ann", node="n1", id="x")
        assert (first.position, second.position, second.time) == (0, 1, None)
        assert memory.remember("My cat is Miso \0\ud800", conversation="ann", node="n1", id="x") == second
        with pytest.raises(MemoryStoreError, match="empty"):
            memory.remember("  ", conversation="ann")
        assert memory.recall("Who moved to Oslo?", 1)[0].turn == first
        assert memory.recall("cat", conversation="nobody") == []
        lines = list(memory.export())
        assert memory.forget([first.id]) == [first.id] and memory.get(first.id) is None
        assert memory.stats().turns == 1 and memory.stats().embedder == "letters"
        with Memory.open(None) as other:
            assert other.import_(lines) == 2 and other.import_(lines) == 0
            assert list(other.export()) == lines
            assert other.forget_conversation("ann") == [first.id, "x"] and other.store.count() == 0


def test_vectors_of_another_embedder_are_not_mixed(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db", Letters()) as memory:
        memory.remember("hello", conversation="c")
        lines = list(memory.export())
    other = Letters()
    other.name = "others"
    with pytest.raises(MemoryStoreError, match="written with the embedder letters"):
        Memory.open(tmp_path / "m.db", other)
    with Memory.open(None, other) as memory:
        lines[1] = json.dumps(json.loads(lines[1]) | {"vector": "AAA="})
        assert memory.import_(lines) == 1
        np.testing.assert_allclose(
            memory.store.vectors(["none", *[t.id for t, _ in memory.store.scan()]])[1][7], 0.378, atol=0.01
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2: a turn is a JSON object"),
        ('{"id": "a", "conversation": "c", "text": "t"}', "'position' must be a whole number"),
        ('{"id": "a", "conversation": "c", "text": "t", "position": 1, "x": 2}', "no field 'x'"),
        ('{"id": "a", "conversation": "c", "text": "t", "position": 1, "time": "now"}', "'time' must be a time"),
        ('{"id": "a", "conversation": "c", "text": "t", "position": 9223372036854775807}', "'a' is at the position"),
        ('{"id": "a", "conversation": "c", "text": "t", "position": -36893488147419103232}', "'a' is at the position"),
    ],
)
def test_lines_that_are_no_turns(line: str, message: str) -> None:
    good = '{"id": "g", "conversation": "c", "position": 0, "text": "t"}'
    with Memory.open(None) as memory, pytest.raises(MemoryStoreError, match=message):
        memory.import_([good, line])


def test_lines_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_bytes(b'{"id": "g", "conversation": "c", "position": 0, "text": "Gr\xfc\xdfe"}\n')
    refused = pytest.raises(MemoryStoreError, match="from line 1 on, not all is text in UTF-8")
    with Memory.open(None) as memory, file.open(encoding="utf-8") as lines, refused:
        memory.import_(lines)


def test_what_is_forgotten_is_not_in_the_file(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db") as memory:
        memory.remember_turns([said(index, f"turn {index}") for index in range(50)])
        secret = memory.remember("the password is xyzzyplugh", conversation="secret", speaker="Zanzibar")
        memory.forget([secret.id])
        for file in tmp_path.iterdir():
            data = file.read_bytes().lower()
            assert all(word not in data for word in (b"xyzzyplugh", b"zanzibar", secret.id.encode())), file


def test_the_command_line(tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "m.db")]
    lexical = [*store, "--lexical"]
    id = run("add", "I moved to Oslo", "-c", "ann", "--speaker", "Ann", "--time", "2023-05-08T13:56", *lexical).strip()
    run("add", "My cat is Miso", "-c", "ann", "--speaker", "Ann", *lexical)
    assert "Ann: I moved to Oslo" in run("search", "who lives in oslo", "-k", "1", *lexical)
    found = json.loads(run("search", "Oslo", "--json", *lexical))
    assert (found["id"], found["time"], found["conversation"]) == (id, "2023-05-08T13:56:00", "ann")
    shown = run("show", id, "--around", "1", *store)
    assert "2023-05-08 13:56" in shown and "Miso" in shown
    run("export", "-o", str(tmp_path / "out.jsonl"), *store)
    assert run("export", *store) == (tmp_path / "out.jsonl").read_text()
    run("import", str(tmp_path / "out.jsonl"), "--store", str(tmp_path / "n.db"), "--lexical")
    assert "2 turns of 1 conversation, 0 facts, 0 summaries" in run("stats", "--store", str(tmp_path / "n.db"))
    assert run("forget", id, *store) == ""
    assert "1 turn of" in run("stats", *store)
    with Memory.open(tmp_path / "m.db") as memory:
        for node in ("n1", "n2", "n1"):
            turn = memory.remember("I moved", conversation="chat", node=node)
    told = runner.invoke(app, ["memory", "forget", turn.id, *store])
    assert told.stdout == "" and "ramet tree prune n1 --directory FOLDER" in " ".join(told.stderr.split())
    told = runner.invoke(app, ["memory", "forget", "-c", "chat", *store])
    assert told.stdout == "" and "ramet tree prune n1 n2 --directory FOLDER" in " ".join(told.stderr.split())
    run("forget", *store, code=2)
    for day in ("2023-05-07", "2023-08-07"):
        run("add", "We met.", "-c", "ben", "--time", day, *lexical)
    for asked in ("2023-05-08", "2023-08-08"):
        found = json.loads(run("search", "Who met yesterday?", "-k", "1", "--json", "--time", asked, *lexical))
        assert found["time"][:7] == asked[:7]
    run("learn", "Who met yesterday?", found["id"], "--time", "2023-08-08", *lexical)
    run("search", "met", "--time", "yesterday", *lexical, code=2)
    run("add", "x", "--time", "yesterday", *lexical, code=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no memory at"), (b"not a database, but long enough to look" * 20, "not an")],
)
def test_files_that_are_no_memory(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "m.db"
    if content is not None:
        file.write_bytes(content)
    result = runner.invoke(app, ["memory", "stats", "--store", str(file)])
    assert result.exit_code == 1 and message in result.stderr.replace("\n", " ")


def test_the_tools_of_an_agent() -> None:
    assert [tool["function"]["name"] for tool in TOOLS] == ["remember", "recall", "forget"]
    with Memory.open(None) as memory:
        id = call(memory, "remember", {"text": "Ann lives in Oslo"}, "ann")["id"]
        assert call(memory, "recall", {"question": "oslo", "count": 3})["turns"][0]["conversation"] == "ann"
        for name, arguments, message in (
            ("recall", {}, "'question' must be text, and be there"),
            ("recall", {"question": "x", "count": 0}, "from 1 to 100"),
            ("recall", {"question": "x", "time": "now"}, "must be a time"),
            ("remember", {"text": "x", "time": "now"}, "must be a time"),
            ("forget", {"ids": "x"}, "list of texts"),
            ("sing", {}, "no tool 'sing'"),
        ):
            assert message in call(memory, name, arguments)["error"]
        assert call(memory, "forget", {"ids": [id]}) == {"removed": [id]}
        turn = memory.remember("Ann lives in Oslo", conversation="ann", node="n1")
        fact = Turn("f", "ann", "", 0, "", "Ann lives in Oslo", kind="fact", sources=(turn.id,))
        memory.store.add([fact, replace(fact, id="g", sources=("f", turn.id))])
        assert [turn.id for turn in memory.with_derived(["g", turn.id, "none", "g"])] == ["g", turn.id, "f"]
        assert call(memory, "forget", {"ids": [turn.id]}) == {"removed": [turn.id, "f", "g"], "nodes": ["n1"]}


def test_mcp(tmp_path: Path) -> None:
    """A real client and the real command, over standard input and output."""
    mcp = pytest.importorskip("mcp")
    from mcp.client.stdio import StdioServerParameters

    arguments = ["-m", "ramet", "memory", "mcp", "--lexical", "--store", str(tmp_path / "m.db")]

    async def talk() -> None:
        async with mcp.Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"remember", "recall", "forget"}
            await client.call_tool("remember", {"text": "Ann lives in Oslo", "speaker": "Ann"})
            found = await client.call_tool("recall", {"question": "Where is Oslo?", "time": "2023-05-08"})
            assert "Ann lives in Oslo" in found.content[0].text

    asyncio.run(talk())
    with Memory.open(tmp_path / "m.db") as memory:
        assert memory.stats().turns == 1
