"""Sessions on disk: back bit for bit, or not at all; and nothing lost when the disk is full, damaged or taken."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ramet.models.states import PAGE_TOKENS
from ramet.tree import Bill, DiskError, Tree, writer
from ramet.tree.disk import Batch, Database
from tests.tree_support import Recorder, check_books, cold, grow, run

MODEL = Recorder()


def tokens(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 50, length).tolist()


def reopen(folder: Path, ram_bytes: int = 1 << 30, disk_bytes: int | None = None) -> Tree:
    return Tree(MODEL.layout, MODEL.fingerprint, ram_bytes=ram_bytes, directory=folder, disk_bytes=disk_bytes)


def database(folder: Path) -> Path:
    (file,) = folder.glob("*.sqlite")
    return file


def answers(tree: Tree, path: list[int]) -> int:
    """Go on from `path` in the tree and check the logits; returns where the session resumed."""
    asked = [*path, 3]
    cursor = tree.open(asked, limit=len(path))
    resumed = cursor.position
    assert torch.equal(run(MODEL, cursor, asked), cold(MODEL, asked))
    cursor.close()
    return resumed


def leave_memory(tree: Tree) -> None:
    """Let everything that is on disk leave the memory."""
    budget, tree.memory.budget = tree.memory.budget, 0
    tree.memory.make_room(0)
    tree.memory.budget = budget


def test_everything_is_back_after_a_restart(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    path = tokens(300)
    cursor = tree.open(path)
    run(MODEL, cursor, path, save=[100, 250, 300])
    first = cursor.commit(150, message={"role": "user", "content": "grüße"}, bill=Bill(150, 0, 1.5))
    second = cursor.commit(300, reply="so")
    cursor.close()
    tree.close()

    tree = reopen(tmp_path)
    assert tree.stats().ram_bytes == 0  # states stay on disk until they are asked for
    assert [node.id for node in tree.nodes()] == [first.id, second.id]
    node = tree.node(first.id)
    assert (node.message, node.bill, node.start, node.end) == (first.message, first.bill, 0, 150)
    assert tree.reply_tokens("so") == path[150:300]
    assert answers(tree, path) == 300
    assert answers(tree, path[:260]) == 250  # back to a turn before
    assert answers(tree, path[:249]) == 100
    assert tree.stats().states_restored == 3
    check_books(tree)
    tree.close()


def test_pages_shared_by_nodes_are_stored_once(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    path = tokens(640)
    grow(MODEL, tree, path)
    tree.flush()
    before = tree.stats().disk_bytes
    for seed in range(5):
        grow(MODEL, tree, [*path, *tokens(64, seed=seed)])
    tree.flush()
    assert tree.stats().disk_bytes - before == 5 * (MODEL.layout.page_bytes + MODEL.layout.state_bytes)
    tree.close()


def test_states_superseded_before_their_turn_are_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WRITE_DELAY", 3600.0)
    model = Recorder(state=2048)
    layout = model.layout
    tree = Tree(
        layout, "m", ram_bytes=10 * layout.page_bytes + 5 * layout.state_bytes, directory=tmp_path, disk_bytes=None
    )
    monkeypatch.setattr(tree.memory, "spill", lambda _: None)  # the disk is slower than the memory fills
    path = tokens(600)
    grow(model, tree, path, save=list(range(20, 601, 20)))
    tree.flush()
    assert tree.stats().disk_states == tree.stats().ram_states <= 6
    assert tree.match(path).resume == 600
    tree.close()


def test_what_leaves_the_memory_comes_back_from_disk(tmp_path: Path) -> None:
    layout = MODEL.layout
    tree = reopen(tmp_path, ram_bytes=12 * layout.page_bytes + 4 * layout.state_bytes)
    paths = [tokens(200, seed) for seed in range(12)]
    for path in paths:
        grow(MODEL, tree, path)
        assert tree.stats().ram_bytes <= tree.stats().ram_budget
    for path in paths:
        assert answers(tree, path) == 200
        assert tree.stats().ram_bytes <= tree.stats().ram_budget
    check_books(tree)
    tree.close()


def test_the_disk_budget_keeps_the_worthiest(tmp_path: Path) -> None:
    layout = MODEL.layout
    budget = 12 * layout.page_bytes + 4 * layout.state_bytes
    tree = reopen(tmp_path, disk_bytes=budget)
    paths = [tokens(200, seed) for seed in range(12)]
    for path in paths:
        grow(MODEL, tree, path)
        tree.flush()
        assert tree.stats().disk_bytes <= budget
    assert tree.stats().nodes == 12
    check_books(tree)
    tree.close()
    tree = reopen(tmp_path, disk_bytes=budget)
    assert tree.stats().nodes == 12  # what was said is kept, what can be computed again is not
    assert answers(tree, paths[-1]) == 200
    assert answers(tree, paths[0]) == 0
    tree.close()


def test_a_session_that_cannot_fit_is_not_acknowledged(tmp_path: Path) -> None:
    tree = reopen(tmp_path, disk_bytes=3 * MODEL.layout.page_bytes)
    small, large = grow(MODEL, tree, tokens(60)), grow(MODEL, tree, tokens(300, seed=1))
    tree.store(small)
    with pytest.raises(DiskError, match="does not fit"):
        tree.store(large)
    tree.close()


def test_sessions_that_are_stored_at_once_do_not_push_each_other_out(tmp_path: Path) -> None:
    layout = MODEL.layout
    tree = reopen(tmp_path, disk_bytes=2 * (4 * layout.page_bytes + layout.state_bytes))  # room for two of three
    nodes = [grow(MODEL, tree, tokens(200, seed)) for seed in range(3)]
    with ThreadPoolExecutor(2) as pool:
        for turn in range(60):
            left, right = nodes[turn % 3], nodes[(turn + 1) % 3]
            list(pool.map(tree.store, (left, right)))  # raises if either was dropped while it was waited for
    tree.close()


def test_pruned_sessions_leave_no_bytes_behind(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    shared = tokens(100)
    kept = grow(MODEL, tree, shared)
    doomed = [grow(MODEL, tree, [*shared, *tokens(900, seed)]) for seed in range(40)]
    tree.close()
    full = database(tmp_path).stat().st_size
    tree = reopen(tmp_path)
    doomed = [tree.node(node.id) for node in doomed]
    for node in doomed:
        tree.prune(node)
    tree.flush()
    check_books(tree)
    tree.close()
    assert database(tmp_path).stat().st_size < full / 4
    tree = reopen(tmp_path)
    assert [node.id for node in tree.nodes()] == [kept.id]
    assert answers(tree, shared) == 100
    tree.close()


def test_a_page_outlives_the_node_it_was_stored_with(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    path = tokens(PAGE_TOKENS + 20)
    short = grow(MODEL, tree, path)
    longer = grow(MODEL, tree, [*path, *tokens(30, seed=1)])  # goes on in the same page, in place
    tree.flush()
    tree.prune(longer)
    tree.flush()
    tree.close()
    tree = reopen(tmp_path)
    assert [node.id for node in tree.nodes()] == [short.id]
    assert answers(tree, path) == len(path)
    check_books(tree)
    tree.close()


def test_what_moved_to_another_node_is_read_before_the_move_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = reopen(tmp_path)
    path = tokens(PAGE_TOKENS + 20)
    grow(MODEL, tree, path)
    longer = grow(MODEL, tree, [*path, *tokens(30, seed=1)])  # the last page hangs on this one
    tree.close()
    monkeypatch.setattr(writer, "WRITE_DELAY", 60.0)
    tree = reopen(tmp_path)
    tree.prune(tree.node(longer.id))
    assert answers(tree, path) == len(path)
    assert tree.stats().damaged == 0
    tree.close()


def test_a_page_is_read_while_a_fuller_copy_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = reopen(tmp_path)
    path = tokens(30)
    tree.store(grow(MODEL, tree, path))
    write, written = Database.write, threading.Event()

    def slow_to_return(database: Database, batch: Batch, *, durable: bool) -> None:
        write(database, batch, durable=durable)
        written.set()
        time.sleep(0.5)

    monkeypatch.setattr(Database, "write", slow_to_return)
    monkeypatch.setattr(writer, "WRITE_DELAY", 0.0)
    longer = grow(MODEL, tree, [*path, *tokens(20, seed=1)])  # goes on in the page, in place
    assert written.wait(10)
    tree.prune(longer)
    leave_memory(tree)
    assert answers(tree, path) == len(path)
    assert tree.stats().damaged == 0
    tree.flush()
    check_books(tree)
    tree.close()


def test_rows_that_went_with_the_memory_are_not_taken_for_others(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    path = tokens(30)
    longer, other = [*path, *tokens(20, seed=1)], [*path, *tokens(20, seed=2)]
    tree.store(grow(MODEL, tree, path))
    grow(MODEL, tree, longer, save=[])  # its rows are in the same page, in memory only
    leave_memory(tree)
    grow(MODEL, tree, other)  # reads the page back and goes on in it, where the lost rows were
    assert tree.stats().pages_copied == 0
    grow(MODEL, tree, longer)
    assert (answers(tree, longer), answers(tree, other)) == (50, 50)
    check_books(tree)
    tree.close()


def test_another_model_or_layout_gets_none_of_it(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    grow(MODEL, tree, tokens(100))
    tree.close()
    other = Tree(MODEL.layout, "another", ram_bytes=1 << 30, directory=tmp_path)
    assert other.match(tokens(100)).position == 0
    other.close()
    with pytest.raises(DiskError, match="state_bytes"):
        Tree(Recorder(state=64).layout, MODEL.fingerprint, ram_bytes=1 << 30, directory=tmp_path)
    tree = reopen(tmp_path)
    assert answers(tree, tokens(100)) == 100
    tree.close()


def test_two_processes_cannot_share_a_directory(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    program = f"NAME, FOLDER = {MODEL.fingerprint!r}, {str(tmp_path)!r}\n" + textwrap.dedent("""
        from pathlib import Path
        from ramet.errors import RametError
        from ramet.models.states import Recurrent, StateLayout
        from ramet.tree import Tree
        try:
            Tree(StateLayout((), (Recurrent("s", (16,)),)), NAME, ram_bytes=1, directory=Path(FOLDER))
        except RametError as error:
            print(error)
    """)
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "in use by another process" in out.stdout
    tree.close()
    reopen(tmp_path).close()


@pytest.mark.parametrize("kind", ["page", "state"])
def test_a_damaged_part_is_dropped_and_computed_again(tmp_path: Path, kind: str) -> None:
    tree = reopen(tmp_path)
    path = tokens(300)
    grow(MODEL, tree, path, save=[100, 300])
    tree.close()
    where = "kind = 0 AND position = 192" if kind == "page" else "kind = 1 AND position = 300"
    with sqlite3.connect(database(tmp_path)) as db:
        ((id, data),) = db.execute(f"SELECT id, data FROM part WHERE {where}")
        db.execute("UPDATE part SET data = ? WHERE id = ?", (bytes([data[0] ^ 1]) + data[1:], id))
    db.close()

    tree = reopen(tmp_path)
    assert answers(tree, path) == 100
    assert tree.stats().damaged == 1
    check_books(tree)
    grow(MODEL, tree, path)
    tree.close()
    tree = reopen(tmp_path)
    assert answers(tree, path) == 300
    assert tree.stats().damaged == 0
    tree.close()


def test_flipped_bytes_are_found_wherever_they_are(tmp_path: Path) -> None:
    tree = reopen(tmp_path / "0")
    paths = [tokens(150, seed) for seed in range(4)]
    for path in paths:
        grow(MODEL, tree, path, save=[70, 150], message={"content": "x" * 50})
    tree.close()
    whole = database(tmp_path / "0").read_bytes()
    rng = random.Random(0)
    outcomes = set()
    used = [at for at in range(0, len(whole), 16) if any(whole[at : at + 16])]
    for attempt in range(40):
        folder = tmp_path / str(attempt + 1)
        folder.mkdir()
        damaged = bytearray(whole)
        for at in rng.sample(used, 3):
            damaged[at + rng.randrange(16)] ^= 1 << rng.randrange(8)
        (folder / database(tmp_path / "0").name).write_bytes(damaged)
        try:
            tree = reopen(folder)
        except DiskError:
            outcomes.add("refused")
            continue
        for path in paths:  # what is still served is right
            outcomes.add(answers(tree, path))
        tree.close()
    assert 150 in outcomes and outcomes & {0, 70}


def test_a_file_that_is_cut_short_is_refused_and_left_alone(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    for seed in range(10):
        grow(MODEL, tree, tokens(600, seed))
    tree.close()
    file = database(tmp_path)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:1000], b"not a database" * 1000):
        file.write_bytes(content)
        try:
            tree = reopen(tmp_path)
        except DiskError as error:
            assert str(file) in str(error)
            assert "move it away" in str(error)
            assert file.read_bytes()[100:] == content[100:]
        else:  # what is left of it may be readable
            for seed in range(10):
                answers(tree, tokens(600, seed))
            tree.close()


def test_an_unusable_directory_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot keep sessions in"):
        reopen(tmp_path / "file")


def test_a_full_disk_loses_nothing_and_stops_nobody(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    old = tokens(300)
    tree.store(grow(MODEL, tree, old))
    assert tree._archive is not None
    connection = tree._archive.database._writer
    ((pages,),) = connection.execute("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    paths = [tokens(900, seed) for seed in range(1, 6)]
    nodes = [grow(MODEL, tree, path) for path in paths]
    with pytest.raises(DiskError, match=r"full.*free some space"):
        tree.store(nodes[0])
    assert "full" in (tree.stats().trouble or "")
    for path in (old, *paths):
        assert answers(tree, path) == len(path)  # from memory
    check_books(tree)

    connection.execute("PRAGMA max_page_count = 1000000")
    for node in nodes:
        tree.store(node)
    assert tree.stats().trouble is None
    check_books(tree)
    tree.close()
    tree = reopen(tmp_path)
    for path in (old, *paths):
        assert answers(tree, path) == len(path)
    tree.close()


def test_closing_with_a_full_disk_says_so_and_keeps_what_was_stored(tmp_path: Path) -> None:
    tree = reopen(tmp_path)
    old = tokens(300)
    tree.store(grow(MODEL, tree, old))
    assert tree._archive is not None
    connection = tree._archive.database._writer
    ((pages,),) = connection.execute("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages}")
    for seed in range(1, 6):
        grow(MODEL, tree, tokens(900, seed))
    with pytest.raises(DiskError, match="full"):
        tree.close()
    tree = reopen(tmp_path)
    assert answers(tree, old) == 300
    tree.close()


def test_without_a_directory_nothing_can_be_stored() -> None:
    tree = Tree(MODEL.layout, MODEL.fingerprint, ram_bytes=1 << 30)
    node = grow(MODEL, tree, tokens(10))
    assert not tree.on_disk
    with pytest.raises(DiskError, match="memory only"):
        tree.store(node)
    tree.flush()
    tree.close()
