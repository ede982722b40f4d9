"""Stored sessions without their model: shown, exported, pruned."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ramet.cli.main import app
from ramet.cli.tree import parse_age
from ramet.models.random import write_random_checkpoint
from ramet.tree.stored import open_stored, stored_trees

SYSTEM = "You look after a garden. " * 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Path:
    """A folder in which one chat has left a system message and two branches of a turn each."""
    monkeypatch.setenv("RAMET_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    words = ["chat", "--model", str(checkpoint), "--max-tokens", "8", "--system", SYSTEM]
    result = CliRunner().invoke(app, words, input="when to sow beans?\n/back\nand peas?\n/quit\n")
    assert result.exit_code == 0, result.output
    return tmp_path


def tree(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["tree", *words])
    assert result.exit_code == code, result.output
    return result


def exported() -> dict[str, dict[str, Any]]:
    records = [json.loads(line) for line in tree("export").stdout.splitlines()]
    return {record["id"]: record for record in records}


def test_show_draws_every_node_with_its_cost(home: Path) -> None:
    drawn = tree("show").stdout
    assert drawn.startswith("5 nodes, ")
    assert [drawn.count(role) for role in ("system", "user", "assistant")] == [1, 2, 2]
    assert "You look after a garden." in drawn
    assert "KiB" in drawn and re.search(r"\d\.\d\d s", drawn)


def test_show_starts_where_and_goes_as_deep_as_asked(home: Path) -> None:
    user = next(r for r in exported().values() if r["message"]["content"] == "and peas?")
    drawn = tree("show", user["id"][:6]).stdout
    assert "and peas?" in drawn and "beans" not in drawn and "garden" not in drawn
    drawn = tree("show", "--depth", "2").stdout
    assert [drawn.count(role) for role in ("system", "user", "assistant")] == [1, 2, 0]
    assert "no stored node begins with 'zz'" in tree("show", "zz", code=1).stderr


def test_export_holds_everything_parents_first(home: Path, tmp_path: Path) -> None:
    records = exported()
    assert len(records) == 5
    seen: set[str] = set()
    for record in records.values():
        assert record["parent"] is None or record["parent"] in seen
        assert record["tokens"] and record["bill"]["computed"] + record["bill"]["reused"] == len(record["tokens"])
        seen.add(record["id"])
    assert next(iter(records.values()))["message"]["content"].strip() == SYSTEM.strip()
    assert sum(record["bytes"] for record in records.values()) > 0
    tree("export", "-o", str(tmp_path / "out.jsonl"))
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def test_prune_removes_a_branch_and_leaves_the_rest_usable(home: Path, checkpoint: Path) -> None:
    records = exported()
    user = next(r for r in records.values() if r["message"]["content"] == "when to sow beans?")
    assert re.fullmatch(r"2 nodes removed, with \d+\.\d KiB of rows and states\n", tree("prune", user["id"][:8]).stdout)
    left = exported()
    assert len(left) == 3
    assert {r["message"]["content"] for r in left.values() if r["message"]["role"] == "user"} == {"and peas?"}
    # What is left is still reused by the model that made it.
    reply = next(id for id, r in left.items() if r["message"]["role"] == "assistant")
    words = ["chat", "--model", str(checkpoint), "--max-tokens", "4", "--session", reply]
    result = CliRunner().invoke(app, words, input="thanks\n/quit\n")
    assert result.exit_code == 0, result.output
    # The system message was the larger part of the first prompt, and is not computed again.
    assert int(result.stderr.split(" reused")[0].split()[-1].replace(",", "")) > len(SYSTEM)


def test_prune_of_nested_nodes_counts_each_once(home: Path) -> None:
    records = exported()
    ids = [id for id, r in records.items() if r["message"]["role"] in ("user", "assistant")]
    assert "4 nodes removed" in tree("prune", *ids).stdout
    assert len(exported()) == 1


def test_prune_by_age(home: Path) -> None:
    assert "0 nodes removed" in tree("prune", "--older-than", "1h").stdout
    time.sleep(0.05)
    assert "5 nodes removed" in tree("prune", "--older-than", "0.0005m").stdout
    assert list(open_stored(stored_trees(home / "tree")[0]).nodes()) == []


def test_prune_of_an_unknown_or_ambiguous_node_removes_nothing(home: Path) -> None:
    assert "no stored node begins with zz" in tree("prune", "zz", code=1).stderr
    assert "give more of the id" in tree("prune", "", code=1).stderr
    assert len(exported()) == 5


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE meta (name TEXT, value TEXT)")
    before = file.read_bytes()
    assert "was not written by Ramet" in tree("show", "-d", str(tmp_path), code=1).stderr
    assert file.read_bytes() == before


def test_ages() -> None:
    assert [parse_age(text) for text in ("30m", "12h", "7d", "2w", "1.5 h")] == [1800, 43200, 604800, 1209600, 5400]
