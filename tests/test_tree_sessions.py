"""Sessions over the tree: matching, forking, rewinding, and what is and is not copied."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from ramet.models.states import PAGE_TOKENS
from ramet.tree import Bill, NodeInUse, Tree, UnknownNode
from tests.tree_support import Recorder, check_books, cold, grow, run


@pytest.fixture
def model() -> Recorder:
    return Recorder()


@pytest.fixture
def tree(model: Recorder) -> Tree:
    return Tree(model.layout, model.fingerprint, ram_bytes=1 << 30)


def tokens(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 50, length).tolist()


def test_the_same_conversation_is_the_same_node(model: Recorder, tree: Tree) -> None:
    path = tokens(100)
    node = grow(model, tree, path, message={"role": "user", "content": "hi"})
    assert grow(model, tree, path) is node
    assert tree.node(node.id) is node
    assert node.message == {"role": "user", "content": "hi"}
    assert (node.start, node.end, node.parent) == (0, 100, tree.root)
    assert not node.tokens.flags.writeable
    other = Tree(model.layout, "another model", ram_bytes=1 << 30)
    assert grow(model, other, path).id != node.id


def test_a_node_found_again_is_told_what_it_lacked(model: Recorder, tree: Tree) -> None:
    node = grow(model, tree, tokens(10))
    assert node.bill is None
    grow(model, tree, tokens(10), bill=Bill(10, 0, 0.5), reply="ten")
    assert node.bill == Bill(10, 0, 0.5)
    assert tree.reply_tokens("ten") == tokens(10)
    assert tree.reply_tokens("eleven") is None


def test_reply_tokens_are_those_of_the_text(model: Recorder, tree: Tree) -> None:
    path = tokens(30)
    cursor = tree.open(path, limit=29)
    run(model, cursor, path)
    cursor.commit(10)
    cursor.commit(30, reply="said")
    assert tree.reply_tokens("said") == path[10:30]
    cursor.close()


def test_pruning_a_reply_leaves_the_older_one_with_the_same_words(model: Recorder, tree: Tree) -> None:
    nodes = []
    for seed in (1, 2, 1):
        path = tokens(30, seed=seed)
        cursor = tree.open(path, limit=29)
        run(model, cursor, path)
        nodes.append(cursor.commit(30, reply="yes"))
        cursor.close()
        assert tree.reply_tokens("yes") == path
    tree.prune(nodes[0])
    assert tree.reply_tokens("yes") == tokens(30, seed=2)
    tree.prune(nodes[1])
    assert tree.reply_tokens("yes") is None


def test_match_says_where_and_why_a_prompt_leaves(model: Recorder, tree: Tree) -> None:
    path = tokens(300)
    cursor = tree.open(path, limit=299)
    run(model, cursor, path, save=[100, 200, 300])
    first, second = cursor.commit(150), cursor.commit(300)
    cursor.close()

    inside = tree.match([*path[:220], 99, 99])
    assert (inside.position, inside.resume, inside.node, inside.next) == (220, 200, second, second)
    assert inside.there == path[220]

    between = tree.match([*path[:150], 99])
    assert (between.position, between.resume, between.node, between.next) == (150, 100, first, second)
    assert between.there == path[150]

    beyond = tree.match([*path, 99])
    assert (beyond.position, beyond.resume, beyond.node, beyond.there, beyond.next) == (300, 300, second, None, None)

    new = tree.match([99])
    assert (new.position, new.resume, new.node, new.there) == (0, 0, tree.root, path[0])


def test_a_request_leaving_inside_a_node_shares_what_came_before(model: Recorder, tree: Tree) -> None:
    path = tokens(300)
    whole = grow(model, tree, path, save=[200, 300])
    pages = tree.stats().ram_bytes
    other = [*path[:220], *tokens(60, seed=1)]
    cursor = tree.open(other, limit=len(other) - 1)
    assert cursor.position == 200
    assert tree.stats().ram_bytes == pages
    assert torch.equal(run(model, cursor, other), cold(model, other))
    sibling = cursor.commit(len(other))
    assert sibling.parent is whole.parent is tree.root
    assert tree.children(tree.root) == [whole, sibling]
    # three pages before the split are shared, the fourth was copied, one is new
    assert tree.stats().pages_copied == 1
    cursor.close()
    check_books(tree)


def test_boundaries_find_the_nodes_that_were_cut_there(model: Recorder, tree: Tree) -> None:
    path = tokens(90)
    for cuts in ([30, 60, 90], [45, 90]):
        cursor = tree.open(path, limit=89, boundaries=cuts)
        run(model, cursor, path, save=[90])
        for cut in cuts:
            if cut > cursor.node.end:
                cursor.commit(cut)
        assert [node.end for node in tree.path(cursor.node)] == cuts
        cursor.close()
    cursor = tree.open([*path, 1], boundaries=[30, 60, 90])
    assert (cursor.position, [node.end for node in tree.path(cursor.node)]) == (90, [30, 60, 90])
    cursor.close()
    cursor = tree.open([*path, 1], boundaries=[30, 61, 90])  # never cut at 61
    assert (cursor.position, cursor.node.end) == (90, 30)
    cursor.close()


def test_two_sessions_that_part_inside_a_page(model: Recorder, tree: Tree) -> None:
    path = tokens(PAGE_TOKENS + 30)
    grow(model, tree, path)
    left, right = [*path, 1, 2, 3], [*path, 4, 5, 6]
    one, two = tree.open(left, limit=len(left) - 1), tree.open(right, limit=len(right) - 1)
    run(model, one, left)  # extends the page in place
    assert tree.stats().pages_copied == 0
    run(model, two, right)  # finds it written, and copies it
    assert tree.stats().pages_copied == 1
    for cursor, asked in ((one, left), (two, right)):
        assert torch.equal(run(model, cursor, [*asked, 7]), cold(model, [*asked, 7]))
        cursor.close()
    check_books(tree)


def test_a_fork_copies_nothing_and_takes_under_a_millisecond(model: Recorder, tree: Tree) -> None:
    path = tokens(8200)
    grow(model, tree, path)
    cursor = tree.open([*path, 1])
    before = tree.stats()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        fork = cursor.fork()
        times.append(time.perf_counter() - start)
        assert fork.position == cursor.position == 8200
        assert all(ours is theirs for ours, theirs in zip(fork.pages, cursor.pages, strict=True))
        fork.close()
        start = time.perf_counter()
        again = tree.open([*path, 1], match=tree.match([*path, 1]))
        times.append(time.perf_counter() - start)
        assert all(ours is theirs for ours, theirs in zip(again.pages, cursor.pages, strict=True))
        again.close()
    after = tree.stats()
    assert (after.pages_copied, after.ram_bytes) == (before.pages_copied, before.ram_bytes)
    assert sorted(times)[len(times) // 2] < 1e-3
    # and the first step of a fork copies one page and one state, however long the session is
    fork = cursor.fork()
    fork.span([1])
    layout = model.layout
    assert tree.stats().ram_bytes == before.ram_bytes + layout.state_bytes  # 8200 = 128 pages and 8 rows, extended
    fork.close()
    cursor.span([2])
    assert tree.stats().pages_copied == 1
    cursor.close()


def test_forks_of_a_running_session_share_what_it_saved(model: Recorder, tree: Tree) -> None:
    path = tokens(100)
    cursor = tree.open(path)
    run(model, cursor, path, save=[80])
    fork = cursor.fork()
    cursor.close()
    fork.commit(90)
    assert tree.match(path).resume == 80
    fork.close()
    check_books(tree)


def test_what_was_not_committed_is_forgotten(model: Recorder, tree: Tree) -> None:
    cursor = tree.open(tokens(100))
    run(model, cursor, tokens(100), save=[100])
    cursor.close()
    cursor.close()
    assert tree.match(tokens(100)).position == 0
    assert tree.stats().ram_bytes == 0
    with pytest.raises(ValueError, match="closed"):
        cursor.span([1])


def test_misuse_is_an_error(model: Recorder, tree: Tree) -> None:
    cursor = tree.open(tokens(10))
    with pytest.raises(ValueError, match="at least one token"):
        cursor.span([])
    cursor.span([1, 2])
    with pytest.raises(ValueError, match="2 tokens, not 1"):
        cursor.advance(1)
    with pytest.raises(ValueError, match="advance over the last span"):
        cursor.span([3])
    with pytest.raises(ValueError, match="must end in"):
        cursor.commit(2)
    cursor.close()


def test_opening_at_a_node_goes_to_its_last_saved_state(model: Recorder, tree: Tree) -> None:
    path = tokens(100)
    cursor = tree.open(path)
    run(model, cursor, path, save=[40])
    first = cursor.commit(50)
    second = cursor.commit(100)
    cursor.close()
    again = tree.open_at(second)
    assert (again.position, again.node) == (40, tree.root)
    assert again.target.tolist() == path
    assert torch.equal(run(model, again, path), cold(model, path))
    assert again.commit(50) is first
    assert again.commit(100) is second
    again.close()


def test_prune_takes_the_subtree_and_nothing_else(model: Recorder, tree: Tree) -> None:
    path = tokens(200)
    kept = grow(model, tree, path[:100])
    cursor = tree.open(path, boundaries=[100])
    run(model, cursor, path, save=[200])
    doomed = cursor.commit(200)
    with pytest.raises(NodeInUse):
        tree.prune(kept)
    cursor.close()
    assert tree.prune(doomed) == 1
    assert tree.match(path).position == 100
    with pytest.raises(UnknownNode):
        tree.node(doomed.id)
    with pytest.raises(UnknownNode):
        tree.prune(doomed)
    check_books(tree)
    assert tree.prune(tree.root) == 1
    assert tree.stats().ram_bytes == 0


def test_match_is_quick_in_a_wide_tree(model: Recorder, tree: Tree) -> None:
    system = tokens(600)
    grow(model, tree, system)
    for session in range(2600):
        path = [*system, *tokens(40, seed=session)]
        cursor = tree.open(path)
        # the books, not the model, are under test: positions are run without a forward
        cursor.span(path[600:])
        cursor.advance(40)
        cursor.save()
        for end in (610, 620, 630, 640):
            cursor.commit(end)
        cursor.close()
    assert tree.stats().nodes > 10_000
    prompt = np.array([*system, *tokens(40, seed=77), *tokens(100_000)], dtype=np.int32)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        assert tree.match(prompt).position >= 640  # type: ignore[arg-type]
        times.append(time.perf_counter() - start)
    assert sorted(times)[4] < 2e-3
