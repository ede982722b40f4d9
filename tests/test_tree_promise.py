"""The promise: whatever was done to a session and to others, its logits are the cold run's, bit for bit."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ramet.tree import Cursor, NodeInUse, Tree, writer
from tests.tree_support import check_books, cold, quick_folder, tiny_model

TOKENS = st.builds(
    lambda length, seed: random.Random(seed).choices(range(1, 7), k=length), st.integers(1, 70), st.integers(0, 50)
)


class Sessions(RuleBasedStateMachine):
    """Random sessions over one tree whose budgets hold only a few of them."""

    preset, dtype = "tiny", torch.float32

    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self.model = tiny_model(self.dtype, self.preset)
        self.live: list[tuple[Cursor, list[int]]] = []  # a session and its path, run or not
        self.paths: list[list[int]] = [[]]  # everything that was asked for
        self.folder = quick_folder()
        self.generation = 0

    @initialize(states=st.integers(2, 12), disk=st.sampled_from([None, 6, 40]))
    def begin(self, states: int, disk: int | None) -> None:
        layout = self.model.layout
        self.ram = states * (layout.state_bytes + 2 * layout.page_bytes)
        self.disk = None if disk is None else disk * (layout.state_bytes + 2 * layout.page_bytes)
        self.tree = self.reopened()

    def reopened(self) -> Tree:
        return Tree(
            self.model.layout,
            self.model.fingerprint,
            ram_bytes=self.ram,
            directory=self.folder / str(self.generation),
            disk_bytes=self.disk,
        )

    @rule(data=st.data(), more=TOKENS)
    def ask(self, data: st.DataObject, more: list[int]) -> None:
        """A prompt that leaves an earlier one anywhere (which is a rewind), or nowhere; run at once, or for later."""
        path = data.draw(st.sampled_from(self.paths))
        tokens = path[: data.draw(st.integers(0, len(path)))] + more
        boundaries = sorted(data.draw(st.sets(st.integers(1, len(tokens)), max_size=4)))
        cursor = self.tree.open(tokens, limit=len(tokens) - 1, boundaries=boundaries)
        assert cursor.position < len(tokens)
        assert cursor.tokens.tolist() == tokens[: cursor.position]
        cursor.expect(boundaries)
        self.begun(cursor, tokens)
        self.run([(cursor, tokens)], [data.draw(st.integers(1, len(tokens) - cursor.position))])
        if cursor.position == len(tokens) and data.draw(st.booleans()):
            self.end(len(self.live) - 1, data)

    @rule(data=st.data(), more=TOKENS)
    def step(self, data: st.DataObject, more: list[int]) -> None:
        """Some sessions in one batch, each by a chunk of its own length; one that is through is asked for more."""
        if not self.live:
            self.begun(self.tree.open(more, limit=len(more) - 1), more)
        chosen = data.draw(st.lists(st.sampled_from(range(len(self.live))), min_size=1, max_size=4, unique=True))
        batch = [self.live[i] for i in chosen]
        for cursor, path in batch:
            if cursor.position == len(path):
                path += more
        counts = [data.draw(st.integers(1, len(path) - cursor.position)) for cursor, path in batch]
        self.run(batch, counts)
        for cursor, _ in batch:
            if data.draw(st.booleans()):
                cursor.save()
            if data.draw(st.booleans()) and cursor.position > cursor.node.end:
                cursor.commit(data.draw(st.integers(cursor.node.end + 1, cursor.position)))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), more=TOKENS)
    def fork(self, data: st.DataObject, more: list[int]) -> None:
        cursor, path = data.draw(st.sampled_from(self.live))
        twin = cursor.fork()
        self.begun(twin, path[: cursor.position] + more)
        path += more  # both go on at once, on the same page and state
        self.run([(cursor, path), self.live[-1]], [1, data.draw(st.integers(1, len(more)))])

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.live) - 1))
        cursor, path = self.live[index]
        if cursor.position < len(path):
            self.run([self.live[index]], [len(path) - cursor.position])
        self.end(index, data)

    @rule(data=st.data(), more=TOKENS)
    def go_on_from_a_node(self, data: st.DataObject, more: list[int]) -> None:
        nodes = list(self.tree.nodes())
        if nodes:
            cursor = self.tree.open_at(data.draw(st.sampled_from(nodes)))
            self.begun(cursor, cursor.target.tolist() + more)
            self.run(self.live[-1:], [len(self.live[-1][1]) - cursor.position])

    @rule(data=st.data(), what=st.sampled_from(["evict", "evict", "prune", "restart", "die"]))
    def disturb(self, data: st.DataObject, what: str) -> None:
        getattr(self, what)(data)
        check_books(self.tree)
        tokens = [*data.draw(st.sampled_from(self.paths)), 1]
        self.begun(self.tree.open(tokens, limit=len(tokens) - 1), tokens)
        self.run(self.live[-1:], [len(tokens) - self.live[-1][0].position])
        self.end(len(self.live) - 1, data)

    def begun(self, cursor: Cursor, tokens: list[int]) -> None:
        self.paths.append(tokens)
        self.live.append((cursor, tokens))

    def run(self, batch: list[tuple[Cursor, list[int]]], counts: list[int]) -> None:
        spans = [
            cursor.span(path[cursor.position : cursor.position + count], logits=count)
            for (cursor, path), count in zip(batch, counts, strict=True)
        ]
        logits = self.model.forward(spans)
        for (cursor, path), count, ours in zip(batch, counts, logits.split(counts), strict=True):
            cursor.advance(count)
            assert torch.equal(ours, cold(self.model, path[: cursor.position], count))

    def end(self, index: int, data: st.DataObject) -> None:
        cursor, _ = self.live.pop(index)
        if data.draw(st.booleans()) and cursor.position > cursor.node.end:
            cursor.save()
            node = cursor.commit(cursor.position)
            if data.draw(st.booleans()):
                self.tree.pin(node, 60)
        cursor.close()

    def evict(self, _: st.DataObject) -> None:
        """Everything leaves the memory that may."""
        memory = self.tree.memory
        with self.tree.lock:
            memory.pins.clear()
            budget, memory.budget = memory.budget, 0
            memory.make_room(0)
            memory.budget = budget

    def prune(self, data: st.DataObject) -> None:
        nodes = list(self.tree.nodes())
        if not nodes:
            return
        node = data.draw(st.sampled_from(nodes))
        doomed = [node]
        for each in doomed:
            doomed += self.tree.children(each)
        if any(cursor.node in doomed for cursor, _ in self.live):
            with pytest.raises(NodeInUse):
                self.tree.prune(node)
        else:
            assert self.tree.prune(node) == len(doomed)

    def restart(self, _: st.DataObject) -> None:
        """Stop as a server is stopped, and start again."""
        self.live.clear()
        nodes = {node.id for node in self.tree.nodes()}
        self.tree.close()
        self.tree = self.reopened()
        assert {node.id for node in self.tree.nodes()} == nodes

    def die(self, data: st.DataObject) -> None:
        """Start again from the files as they are at this moment, which need not be the latest state of things."""
        nodes = list(self.tree.nodes())
        stored = data.draw(st.sampled_from(nodes)) if nodes else None
        if stored is not None and self.disk is None:
            self.tree.store(stored)
        old = self.folder / str(self.generation)
        self.generation += 1
        assert self.tree._archive is not None
        with self.tree._archive.database._writing:
            shutil.copytree(old, self.folder / str(self.generation))
        self.live.clear()
        tokens = None if stored is None else self.tree.path_tokens(stored).tolist()
        self.tree.close()
        self.tree = self.reopened()
        if stored is not None and self.disk is None:
            assert self.tree.path_tokens(self.tree.node(stored.id)).tolist() == tokens

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "tree"):
            check_books(self.tree)

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.tree.close()
        shutil.rmtree(self.folder)


FAMILIES = [  # preset, precision; bfloat16 rows are rounded
    ("tiny", torch.float32),
    ("tiny", torch.bfloat16),
    ("tiny-moe", torch.float32),
    ("tiny-minimax", torch.float32),
    ("tiny-deepseek-v4", torch.float32),
    ("tiny-deepseek-v4", torch.bfloat16),
    ("tiny-deepseek-v3", torch.float32),
    ("tiny-kimi", torch.bfloat16),
    ("tiny-deepseek-v32", torch.float32),
    ("tiny-glm", torch.bfloat16),
]


def sessions_of(family: tuple[str, torch.dtype]) -> type[Sessions]:
    return type("Sessions", (Sessions,), {"preset": family[0], "dtype": family[1]})


_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


@pytest.fixture(autouse=True)
def written_when_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on disk at the moment of a crash is then a matter of the sequence, not of the clock."""
    monkeypatch.setattr(writer, "WRITE_DELAY", 3600.0)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_any_sequence_of_operations(family: tuple[str, torch.dtype]) -> None:
    run_state_machine_as_test(
        sessions_of(family), settings=settings(max_examples=20, stateful_step_count=30, **_COMMON)
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_very_many_sequences_of_operations(family: tuple[str, torch.dtype]) -> None:
    run_state_machine_as_test(
        sessions_of(family), settings=settings(max_examples=120, stateful_step_count=60, **_COMMON)
    )
