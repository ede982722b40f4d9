"""The table agent: what it does with good queries, wrong ones, empty results, and branches that disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramet.agent.ask import Answer, TableAgent
from ramet.agent.replies import AskError, LocalModel
from ramet.agent.sql import Table
from ramet.chat import Chat, Tokenizer
from ramet.engine import Engine
from ramet.engine.runtime import Runtime
from ramet.models.random import write_random_checkpoint
from ramet.tree import Tree

from .scripted import Script, ScriptedModel

ROWS = [("Ada", "Oslo", 31), ("Ben", "Oslo", 25), ("Cem", "Bern", 47), ("Dua", "Rome", 25)]


def call(query: str) -> str:
    """A reply that calls the tool."""
    return f"<tool_call>\n<function=sql>\n<parameter=query>\n{query}\n</parameter>\n</function>\n</tool_call>"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture
def table() -> Table:
    return Table.from_cells(["name", "city", "age"], ROWS)


@contextmanager
def running(checkpoint: Path, script: Script, *, context_length: int = 4096) -> Iterator[Runtime]:
    """The real engine, tree, tokenizer and template around a model that follows `script`."""
    tokenizer = Tokenizer.load(checkpoint)
    model = ScriptedModel(tokenizer, script, context_length=context_length)
    tree = Tree(model.layout, model.fingerprint, ram_bytes=1 << 26)
    engine = Engine(model, tree, tokenizer)
    engine.start()
    with Runtime(checkpoint, model, tokenizer, Chat.load(checkpoint, tokenizer), tree, engine) as runtime:
        yield runtime


def answer(checkpoint: Path, table: Table, script: Script, question: str = "who is oldest?") -> Answer:
    with running(checkpoint, script) as runtime:
        return TableAgent(LocalModel(runtime), table).ask(question)


def always(replies: Mapping[str, float]) -> Script:
    return lambda _: replies


def test_branches_that_agree_give_a_sure_answer(checkpoint: Path, table: Table) -> None:
    got = answer(checkpoint, table, always({call("SELECT c1 FROM t ORDER BY c3 DESC LIMIT 1"): 1.0}))
    assert got.best is not None
    assert (got.best.text, got.best.share, got.sure) == ("Cem", 1.0, True)
    assert got.best.sql == "SELECT name FROM t ORDER BY age DESC LIMIT 1"
    assert got.best.result is not None
    assert got.best.result.rows == [("Cem",)]
    assert got.others == ()
    assert [branch.greedy for branch in got.branches] == [True, False, False, False, False]
    assert got.best.branch.logprob == pytest.approx(0.0, abs=1e-5)


def test_different_queries_with_one_answer_agree(checkpoint: Path, table: Table) -> None:
    replies = {
        call("SELECT c1 FROM t ORDER BY c3 DESC LIMIT 1"): 0.5,
        call("SELECT c1 FROM t WHERE c3 = (SELECT MAX(c3) FROM t)"): 0.5,
    }
    got = answer(checkpoint, table, always(replies))
    assert got.best is not None
    assert (got.best.text, got.best.share) == ("Cem", 1.0)
    assert len({branch.last.sql for branch in got.branches}) == 2


def test_an_error_comes_back_to_the_model(checkpoint: Path, table: Table) -> None:
    def script(prompt: str) -> Mapping[str, float]:
        if "error: no such column: c9" in prompt:
            return {call("SELECT COUNT(*) FROM t"): 1.0}
        return {call("SELECT c9 FROM t"): 1.0}

    with running(checkpoint, script) as runtime:
        got = TableAgent(LocalModel(runtime), table).ask("how many people?")
        assert got.best is not None
        assert (got.best.text, got.sure) == ("4", True)
        attempts = got.best.branch.attempts
        assert [(a.sql, a.error) for a in attempts] == [
            (None, "no such column: c9"),
            ("SELECT COUNT(*) FROM t", None),
        ]
        # The whole exchange is one path of the tree.
        assert attempts[-1].node is not None
        path = runtime.tree.path(runtime.tree.node(attempts[-1].node))
        roles = [node.message["role"] for node in path if node.message is not None]
        assert roles == ["system", "user", "assistant", "tool", "assistant"]
        assert path[-3].id == attempts[0].node


def test_an_empty_result_comes_back_to_the_model(checkpoint: Path, table: Table) -> None:
    def script(prompt: str) -> Mapping[str, float]:
        if "no rows" in prompt:
            return {call("SELECT c1 FROM t WHERE c3 < 30"): 1.0}
        return {call("SELECT c1 FROM t WHERE c3 < 20"): 1.0}

    got = answer(checkpoint, table, script)
    assert got.best is not None
    assert got.best.text == "Ben, Dua"


def test_it_gives_up_after_the_allowed_tries_and_says_so(checkpoint: Path, table: Table) -> None:
    nothing = answer(checkpoint, table, always({call("SELECT c1 FROM t WHERE c3 > 99"): 1.0}))
    assert nothing.best is not None
    assert (nothing.best.text, nothing.sure) == ("none", False)
    assert [len(branch.attempts) for branch in nothing.branches] == [3] * 5
    wrong = answer(checkpoint, table, always({call("SELEC c1 FROM t"): 1.0}))
    assert wrong.best is None
    assert not wrong.sure
    assert all(branch.last.error for branch in wrong.branches)


def test_branches_that_disagree_make_it_unsure(checkpoint: Path, table: Table) -> None:
    replies = {call(f"SELECT c1 FROM t LIMIT 1 OFFSET {n}"): 0.25 for n in range(4)}
    got = answer(checkpoint, table, always(replies))
    assert got.best is not None
    assert got.best.share < 0.9
    assert not got.sure
    assert got.others
    assert got.best.share + sum(other.share for other in got.others) == pytest.approx(1.0)
    shares = [got.best.share, *(other.share for other in got.others)]
    assert shares == sorted(shares, reverse=True)


def test_the_same_question_gets_the_same_answer(checkpoint: Path, table: Table) -> None:
    replies = {call(f"SELECT c1 FROM t LIMIT 1 OFFSET {n}"): 0.25 for n in range(4)}
    first, second = (answer(checkpoint, table, always(replies)) for _ in range(2))
    assert [branch.last.sql for branch in first.branches] == [branch.last.sql for branch in second.branches]


def test_a_count_of_nothing_is_doubted_and_a_plain_no_is_not(checkpoint: Path, table: Table) -> None:
    zero = answer(checkpoint, table, always({call("SELECT COUNT(*) FROM t WHERE c2 = 'Paris'"): 1.0}))
    assert zero.best is not None
    assert (zero.best.text, zero.best.share, zero.sure) == ("0", 1.0, False)
    no = answer(checkpoint, table, always({call("SELECT COUNT(*) > 0 FROM t WHERE c2 = 'Paris'"): 1.0}))
    assert no.best is not None
    assert (no.best.text, no.sure) == ("no", True)


def test_a_column_of_a_few_values_is_listed_and_longer_results_are_counted(checkpoint: Path, table: Table) -> None:
    short = answer(checkpoint, table, always({call("SELECT c1 FROM t UNION ALL SELECT c1 FROM t"): 1.0}))
    assert short.best is not None
    assert short.best.text == "Ada, Ben, Cem, Dua"
    wide = answer(checkpoint, table, always({call("SELECT c1, c2 FROM t UNION ALL SELECT c1, c2 FROM t"): 1.0}))
    assert wide.best is not None
    assert wide.best.text == "8 rows"


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE t",
        "INSERT INTO t VALUES ('Eve', 'Oslo', 3)",
        "ATTACH 'other.db' AS o",
        "PRAGMA query_only = OFF",
        "",
    ],
)
def test_a_query_that_is_no_question_does_nothing(checkpoint: Path, table: Table, query: str) -> None:
    got = answer(checkpoint, table, always({call(query): 1.0}))
    assert got.best is None or not got.sure
    assert table.query("SELECT COUNT(*) FROM t").rows == [(4,)]


def test_an_answer_without_a_query_is_never_sure(checkpoint: Path, table: Table) -> None:
    got = answer(checkpoint, table, always({"Cem, I think": 1.0}))
    assert got.best is not None
    assert (got.best.text, got.best.sql, got.best.share, got.sure) == ("Cem, I think", None, 1.0, False)


def test_the_second_question_computes_only_its_own_tokens(checkpoint: Path, table: Table) -> None:
    with running(checkpoint, always({call("SELECT COUNT(*) FROM t"): 1.0})) as runtime:
        agent = TableAgent(LocalModel(runtime), table)
        first, second = agent.ask("how many people live in oslo?"), agent.ask("how many people live in rome?")
        shared = runtime.tree.children(runtime.tree.root)[0]
        assert len(shared.tokens) > 100
        assert first.computed > len(shared.tokens)
        assert second.computed < first.computed - len(shared.tokens) + 1
        assert len(runtime.tree.children(runtime.tree.root)) == 1


def test_what_cannot_be_asked_says_why(checkpoint: Path, table: Table) -> None:
    with running(checkpoint, always({"": 1.0}), context_length=64) as runtime:
        with pytest.raises(AskError, match="no rows"):
            TableAgent(LocalModel(runtime), Table.from_cells(["a", "b"], []))
        with pytest.raises(AskError, match="question is empty"):
            TableAgent(LocalModel(runtime), table).ask(" ")
        with pytest.raises(AskError, match="cannot be put to this model"):
            TableAgent(LocalModel(runtime), table).ask("how many people live in oslo?")
