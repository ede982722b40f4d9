"""Which states stay in memory when there is not room for all: those that will be asked for."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ramet.tree import Node, Tree
from tests.tree_support import Recorder, check_books, grow, run

MODEL = Recorder(row=4, state=4096)
"""A state weighs as much as 1,024 tokens, as in the small models with recurrent layers."""


def tokens(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 50, length).tolist()


def tree_for(states: float) -> Tree:
    return Tree(MODEL.layout, MODEL.fingerprint, ram_bytes=int(states * MODEL.layout.state_bytes))


def resumes(tree: Tree, path: list[int]) -> int:
    return tree.match(path).resume


def test_the_budget_holds_without_live_sessions() -> None:
    tree = tree_for(6)
    for seed in range(30):
        grow(MODEL, tree, tokens(100, seed), save=[50, 100])
        assert tree.stats().ram_bytes <= tree.stats().ram_budget
    assert tree.stats().states_evicted > 20
    check_books(tree)


def test_rows_without_a_state_behind_them_are_not_kept() -> None:
    tree = tree_for(20)
    grow(MODEL, tree, tokens(1000), save=[200])
    layout = MODEL.layout
    assert tree.stats().ram_bytes == layout.state_bytes + 4 * layout.page_bytes
    assert tree.match(tokens(1000)).position == 1000  # what was said is still known
    check_books(tree)


def test_newest_states_are_kept_over_those_gone_on_from() -> None:
    tree = tree_for(9)
    paths = [tokens(200 * turns, seed) for turns in range(1, 5) for seed in range(4)]
    for path in paths:
        grow(MODEL, tree, path)
    for path in paths[-4:]:
        assert resumes(tree, path) == 800
    assert sum(resumes(tree, path) == len(path) for path in paths[:-4]) <= 5


def test_expected_departures_are_kept_though_the_session_has_gone_on() -> None:
    tree = tree_for(7.5)
    path = tokens(1200)
    for turn in range(3, 12):  # a tool loop: every request may leave at 200 again (a new question), or go on
        prompt = path[: 100 * (turn + 1)]
        cursor = tree.open(prompt, limit=len(prompt) - 1)
        cursor.expect([200, len(prompt)])
        run(MODEL, cursor, prompt, save=[200, len(prompt)])
        cursor.commit(len(prompt))
        cursor.close()
    for seed in range(3):
        grow(MODEL, tree, tokens(300, seed=50 + seed))
    assert tree.stats().states_evicted > 0
    assert resumes(tree, [*path[:200], 99]) == 200
    assert resumes(tree, path) == 1200


def test_a_departure_not_taken_gives_way() -> None:
    tree = tree_for(4.5)
    path = tokens(400)
    cursor = tree.open(path, limit=399)
    cursor.expect([200, 400])
    run(MODEL, cursor, path, save=[200, 400])
    cursor.commit(400)
    cursor.close()
    turn = [*path[:200], *tokens(300, seed=1)]  # a new question: what came after 200 is rewritten
    cursor = tree.open(turn, limit=499)
    assert cursor.position == 200
    cursor.expect([200, 500])
    run(MODEL, cursor, turn, save=[500])
    cursor.commit(500)
    cursor.close()
    grow(MODEL, tree, tokens(60, seed=2))
    grow(MODEL, tree, tokens(60, seed=3))
    assert (resumes(tree, path), resumes(tree, turn)) == (200, 500)


def test_a_shared_beginning_is_kept_while_sessions_come_and_go() -> None:
    tree = tree_for(7)
    system = tokens(500)
    for session in range(40):
        path = [*system, *tokens(100, seed=session)]
        cursor = tree.open(path, limit=599)
        assert cursor.position == (500 if session else 0)
        run(MODEL, cursor, path, save=[500, 600])
        if not session:
            cursor.commit(500)
        cursor.commit(600)
        cursor.close()


def test_a_long_message_is_thinned_evenly_while_it_is_read() -> None:
    tree = tree_for(14)
    path = tokens(6400)
    cursor = tree.open(path, limit=6399)
    run(MODEL, cursor, path, save=list(range(100, 6401, 100)))
    assert tree.stats().ram_bytes <= tree.stats().ram_budget
    cursor.commit(6400)
    cursor.close()
    kept = [0, *sorted(position for part in tree._trunk.down() for position in part.states)]
    assert kept[-1] == 6400
    assert 4 <= len(kept) < 14
    assert max(np.diff(kept)) <= 6400 / (len(kept) - 1) * 4
    check_books(tree)


@pytest.mark.parametrize("pinned", [True, False])
def test_a_pinned_session_stays_until_its_deadline(pinned: bool) -> None:
    tree = tree_for(5)
    path = tokens(100)
    tree.pin(grow(MODEL, tree, path), 3600 if pinned else 0)
    for seed in range(1, 30):
        grow(MODEL, tree, tokens(300, seed))
    assert resumes(tree, path) == (100 if pinned else 0)
    assert tree.stats().pinned_nodes == pinned
    tree.unpin(_only(tree, path))
    for seed in range(30, 60):
        grow(MODEL, tree, tokens(300, seed))
    assert resumes(tree, path) == 0


def _only(tree: Tree, path: list[int]) -> Node:
    return tree.match(path).node


def test_live_sessions_may_overrun_the_budget_and_lose_nothing() -> None:
    tree = tree_for(2)
    cursors = []
    for seed in range(6):
        cursor = tree.open(tokens(100, seed))
        run(MODEL, cursor, tokens(100, seed))
        cursors.append(cursor)
    assert tree.stats().ram_bytes > tree.stats().ram_budget
    for seed, cursor in enumerate(cursors):
        run(MODEL, cursor, [*tokens(100, seed), 1])
        cursor.close()
    assert tree.stats().ram_bytes == 0


def test_the_tree_can_be_looked_at_from_other_threads() -> None:
    tree = tree_for(8)
    done, failures = threading.Event(), []

    def look() -> None:
        try:
            while not done.is_set():
                for node in tree.nodes():
                    tree.children(node)
                    tree.path(node)
                tree.stats()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for seed in range(60):
        node = grow(MODEL, tree, tokens(80, seed % 20))
        if seed % 3 == 0:
            tree.prune(node)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_state_before_inherits_the_claim_of_one_that_went() -> None:
    """Two states near a live session's end: when the later goes, all its tokens hang on the earlier."""
    tree = tree_for(9)
    path = tokens(1220)
    cursor = tree.open(path, limit=1219)
    cursor.expect([1220])
    run(MODEL, cursor, path, save=[1200, 1220])
    cursor.commit(1220)
    cursor.close()
    late = tree._trunk.children[path[0]].states[1220]
    with tree.lock:
        tree.memory.resumed(late)  # the session goes on, and is expected at both again
        late.segment.states[1200].passed_over, late.expected_by = True, 1
        tree.memory.evict(late)
    heir = tree._trunk.children[path[0]].states[1200]
    assert (heir.expected_by, heir.passed_over) == (1, False)
    for seed in range(8):
        grow(MODEL, tree, tokens(300, seed=50 + seed))
    assert resumes(tree, path) == 1200


def test_taking_turns_costs_no_session_its_state() -> None:
    """Six sessions in turn beside a stream of strangers: each is there again when its turn comes."""
    tree = tree_for(20)
    lost = 0
    for turn in range(1, 8):
        for seed in range(6):
            path = tokens(150 * turn, seed)
            cursor = tree.open(path, limit=len(path) - 1)
            lost += cursor.position < 150 * (turn - 1)
            cursor.expect([len(path)])
            run(MODEL, cursor, path, save=[len(path)])
            cursor.commit(len(path))
            cursor.close()
            grow(MODEL, tree, tokens(300, 100 + 6 * turn + seed))
    assert tree.stats().states_evicted > 20
    assert lost == 0
    check_books(tree)
