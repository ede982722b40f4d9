"""Killed at random moments: what was acknowledged as stored is whole, what is damaged is not served, no garbage stays.

A child process writes sessions into one directory and says on a pipe which of them `store` returned for; it is killed
(SIGKILL) at a random moment, and the next child goes on in the same directory. Children are forked from a process that
has torch loaded and has no threads, so that each costs milliseconds.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ramet.tree import Tree, writer
from tests.tree_support import Recorder, check_books, cold, quick_folder, run

MODEL = Recorder(row=16, state=256)
DISK = 40 * MODEL.layout.page_bytes + 60 * MODEL.layout.state_bytes


def session_tokens(seed: int) -> list[int]:
    """One of a few conversations: a shared beginning, then turns of their own."""
    rng = random.Random(seed)
    return [1] * (seed % 3 * 40) + [rng.randrange(50) for _ in range(rng.randrange(20, 260))]


def open_tree(folder: Path, disk: int | None) -> Tree:
    return Tree(MODEL.layout, MODEL.fingerprint, ram_bytes=DISK // 4, directory=folder, disk_bytes=disk)


def write_forever(folder: Path, disk: int | None, seed: int, say: int) -> None:
    """The child: grow, store, rewind and prune sessions, and say which were stored (or are to be forgotten)."""
    torch.set_num_threads(1)
    writer.WRITE_DELAY = 0.002
    rng = random.Random(seed)
    tree = open_tree(folder, disk)
    os.write(say, b"open\n")
    while True:
        assert tree.stats().damaged == 0
        kind = rng.random()
        path = session_tokens(rng.randrange(40))
        if kind < 0.85:
            cut = rng.randrange(1, len(path) + 1)
            cursor = tree.open(path[:cut], limit=cut - 1, boundaries=[cut // 2, cut])
            run(MODEL, cursor, path[:cut], save=[cut // 2, cut])
            if cursor.node.end < cut // 2:
                cursor.commit(cut // 2, message={"content": "asked"})
            node = cursor.commit(cut, message={"content": "said"})
            cursor.close()
            if rng.random() < 0.7:
                tree.store(node)
                os.write(say, f"stored {node.id} {' '.join(map(str, path[:cut]))}\n".encode())
        else:
            nodes = list(tree.nodes())
            if nodes:
                doomed = [rng.choice(nodes)]
                for node in doomed:
                    doomed += tree.children(node)
                # gone from now on, or still there: the next child may find either
                os.write(say, f"pruning {' '.join(node.id for node in doomed)}\n".encode())
                tree.prune(doomed[0])


def run_child(folder: Path, disk: int | None, seed: int, seconds: float) -> tuple[bool, list[str]]:
    """Run a child for about `seconds` after it opened, kill it; whether it had opened, and all that it said."""
    heard, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(heard)
            write_forever(folder, disk, seed, say)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    os.close(say)
    # some die while opening, which cleans up after the one before
    deadline = time.monotonic() + (seconds if seed % 4 == 0 else 30.0)
    said = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([heard], [], [], left)
        if ready:
            piece = os.read(heard, 1 << 16)
            if not piece:
                break
            if not said:
                deadline = time.monotonic() + seconds
            said += piece
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while piece := os.read(heard, 1 << 16):
        said += piece
    os.close(heard)
    assert os.WIFSIGNALED(status), "the child failed by itself"
    lines = said.decode().split("\n")[:-1]
    return bool(lines), lines[1:]


def check_survivors(folder: Path, disk: int | None, stored: dict[str, list[int]], rng: random.Random) -> None:
    """Open what is left: every stored session is there and whole, what is served is right, nothing else is there."""
    tree = open_tree(folder, disk)
    check_books(tree)
    for id, path in stored.items():
        assert tree.path_tokens(tree.node(id)).tolist() == path
        assert tree.node(id).message is not None
    for id in rng.sample(sorted(stored), min(8, len(stored))):
        path = stored[id]
        cursor = tree.open_at(tree.node(id))
        if disk is None:  # under a budget, its rows and states may have made room for later ones
            assert cursor.position == len(path)
        asked = [*path, 3]
        assert torch.equal(run(MODEL, cursor, asked), cold(MODEL, asked))
        cursor.close()
    assert tree.stats().damaged == 0
    tree.flush()
    check_books(tree)
    tree.close()
    (file,) = folder.glob("*.sqlite")
    db = sqlite3.connect(file)
    assert db.execute("SELECT COUNT(*) FROM part WHERE node NOT IN (SELECT id FROM node)").fetchone() == (0,)
    assert db.execute("SELECT COUNT(*) FROM node WHERE length(parent) != 16").fetchone() == (0,)
    ((data,),) = db.execute("SELECT TOTAL(LENGTH(data)) FROM part")
    ((said,),) = db.execute("SELECT TOTAL(LENGTH(tokens) + LENGTH(told)) FROM node")
    db.close()
    assert data <= (disk or data)
    assert file.stat().st_size < 2 * (data + said) + (2 << 20)


def kill(folder: Path, disk: int | None, times: int, every: int) -> None:
    """Kill `times` children; look at what is left after each `every` of them."""
    rng = random.Random(times)
    stored: dict[str, list[int]] = {}
    opened = acknowledged = 0
    for attempt in range(times):
        was_open, lines = run_child(folder, disk, attempt, rng.uniform(0.0, 0.2))
        opened += was_open
        for line in lines:
            what, id, *more = line.split(" ")
            if what == "stored":
                stored[id] = [int(token) for token in more]
                acknowledged += 1
            else:
                for gone in (id, *more):
                    stored.pop(gone, None)
        if attempt % every == every - 1:
            check_survivors(folder, disk, stored, rng)
    assert opened > times / 2
    assert acknowledged > times / 2


@pytest.fixture
def folder() -> Iterator[Path]:
    path = quick_folder()
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("disk", [None, DISK], ids=["all", "budget"])
def test_killed_at_random_moments(folder: Path, disk: int | None) -> None:
    kill(folder, disk, times=8, every=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("disk", [None, DISK], ids=["all", "budget"])
def test_killed_five_hundred_times(folder: Path, disk: int | None) -> None:
    kill(folder, disk, times=250, every=10)
