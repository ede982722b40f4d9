"""How long the tree's own work takes at the shape of Qwen3.5-0.8B, and which states it keeps for real agents' sessions.

Fork, open, match, store and restore are timed on buffers of the real size. Then the agent traces are replayed without a
model, with buffers 64 times smaller and a budget of 4 GiB / 64, and the tokens that would have been computed counted:
in memory alone, where what does not fit is dropped, and with a disk, where it is read back.

    python benchmarks/tree.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import Prefixes, Session, load_sessions, thin_checkpoint
from ramet.chat import Chat, Tokenizer
from ramet.engine.schedule import save_points
from ramet.models.states import PAGE_TOKENS, Recurrent, Rows, StateLayout
from ramet.tree import Tree
from report import Figure, report

GIB = 1 << 30
SCALE = 64
"""How much smaller the buffers of the replay are. Nothing but their sizes counts there."""


def layout(scale: int = 1) -> StateLayout:
    """The states of Qwen3.5-0.8B in bfloat16: 12,288 B of rows a token, 20.2 MB of recurrent and window states."""
    rows, states = Rows("rows", (6144 // scale, PAGE_TOKENS)), Recurrent("states", (5_050_368 // scale,))
    return StateLayout((rows,), (states,), row_dtype=torch.bfloat16)


def advance(tree: Tree, tokens: list[int], save_at: list[int], boundaries: list[int]) -> int:
    """What the engine does for a prompt, without a model; returns how many tokens it would have computed."""
    cursor = tree.open(tokens, limit=len(tokens) - 1, boundaries=boundaries)
    cursor.expect([min(position, len(tokens) - 1) for position in save_at])
    start = cursor.position
    save = save_points(len(tokens), start, boundaries, save_at)
    for stop in sorted({*save, *boundaries, len(tokens)}):
        if stop > cursor.position:
            cursor.span(tokens[cursor.position : stop], logits=0)
            cursor.advance(stop - cursor.position)
            if stop in save:
                cursor.save()
        if stop in boundaries and stop > cursor.node.end:
            cursor.commit(stop)
    if cursor.node.end < len(tokens):
        cursor.commit(len(tokens))
    cursor.close()
    return len(tokens) - start


def milliseconds(work: Callable[[], Any], times: int = 50) -> float:
    """The median time of `work`."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return 1e3 * statistics.median(found)


def timings() -> list[Figure]:
    shape, length = layout(), 8192
    tokens = np.random.default_rng(0).integers(0, 200_000, length).tolist()
    prompt = np.array([*tokens, 1], dtype=np.int32)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(shape, "benchmark", ram_bytes=4 * GIB, directory=Path(folder))
        advance(tree, tokens, save_at=[4096, length], boundaries=[4096, length])
        cursor = tree.open(prompt)
        assert cursor.position >= length - 1
        before = tree.stats()
        figures.append(Figure("fork of 8k tokens", milliseconds(lambda: cursor.fork().close()), "ms", "< 1"))
        figures.append(Figure("match of 8k tokens", milliseconds(lambda: tree.match(prompt)), "ms"))
        figures.append(
            Figure("match and open at 8k tokens", milliseconds(lambda: tree.open(prompt).close()), "ms", "< 1")
        )
        after = tree.stats()
        copied = after.ram_bytes - before.ram_bytes + after.pages_copied - before.pages_copied
        figures.append(Figure("bytes copied by these", copied, "B", "0"))

        def first_step() -> None:
            fork = cursor.fork()
            fork.span([1], logits=0)
            fork.close()

        figures.append(Figure("first step of a fork, its state copied", milliseconds(first_step, 10), "ms"))
        cursor.close()
        *_, leaf = tree.nodes()
        start = time.perf_counter()
        tree.store(leaf)
        tree.flush()
        seconds, size = time.perf_counter() - start, tree.stats().disk_bytes
        figures.append(
            Figure("store of 8k tokens", seconds, "s", note=f"{size / 1e6:.0f} MB, {size / seconds / 1e6:.0f} MB/s")
        )
        tree.close()
        start = time.perf_counter()
        tree = Tree(shape, "benchmark", ram_bytes=4 * GIB, directory=Path(folder))
        figures.append(Figure("start on a directory with it", 1e3 * (time.perf_counter() - start), "ms"))
        start = time.perf_counter()
        cursor = tree.open(prompt)
        figures.append(Figure("restore of 8k tokens", time.perf_counter() - start, "s"))
        assert cursor.position >= length - 1
        cursor.close()
        tree.close()
    return figures


def replay(chat: Chat, sessions: list[Session], interleaved: int, directory: Path | None) -> Figure:
    """Every turn of every session, `interleaved` sessions taking turns; tokens computed over the least possible."""
    shape = layout(SCALE)
    tree = Tree(shape, "benchmark", ram_bytes=4 * GIB // SCALE, directory=directory)
    prefixes = Prefixes()
    computed = least = requests = 0
    waiting = [iter([(session, turn) for turn in session.turns]) for session in sessions]
    running, waiting = waiting[:interleaved], waiting[interleaved:]
    while running:
        still = []
        for turns in running:
            step = next(turns, None)
            if step is None:
                if waiting:
                    still.append(waiting.pop(0))
                continue
            still.append(turns)
            session, turn = step
            prompt = chat.render(session.messages[:turn], session.tools or None)
            least += prefixes.least(list(prompt.tokens))
            computed += advance(tree, list(prompt.tokens), list(prompt.save_at), list(prompt.boundaries))
            requests += 1
        running = still
    stats = tree.stats()
    tree.close()
    where = "memory" if directory is None else "memory and disk"
    return Figure(
        f"{len(sessions)} sessions, {interleaved} interleaved, {where}",
        computed / least,
        "computed / least",
        "<= 1.02" if directory is not None else "",
        note=f"{requests} requests, {least:,} least, {stats.states_evicted} states evicted, "
        f"{stats.states_restored} read back",
    )


def main() -> None:
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--traces", type=Path, default=here.parent / "shared" / "data" / "agent-traces")
    parser.add_argument("--sessions", type=int, help="only the first N sessions of the traces")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = timings()
    if options.traces.is_dir():
        sessions = load_sessions(options.traces)[: options.sessions]
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / "model"
            thin_checkpoint(model, sessions)
            chat = Chat.load(model, Tokenizer.load(model))
            for interleaved in (1, 8, 32):
                for directory in (None, Path(scratch) / str(interleaved)):
                    figures.append(replay(chat, sessions, interleaved, directory))
    report("The tree of sessions at the shape of Qwen3.5-0.8B", figures, options.json)


if __name__ == "__main__":
    main()
