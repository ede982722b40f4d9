"""Processes that die while they write, and processes that write at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ramet.memory.sqlite import SqliteStore

WRITER = Path(__file__).with_name("memory_writer.py")


def writer(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(file), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(file: Path, acknowledged: list[str]) -> None:
    """The file opens, holds everything that was acknowledged, and every index agrees with the table."""
    with SqliteStore(file) as store:
        assert store._rows("PRAGMA quick_check") == [("ok",)]
        stored = {turn.id: vector for turn, vector in store.scan()}
        assert set(acknowledged) <= set(stored)
        assert store.count() == store._lists.totals()[0] == len(stored) and all(v is not None for v in stored.values())
        found = {hit.id for hit in store.lexical("oslo", len(stored) + 1)}
        near = {hit.id for hit in store.dense(np.ones(8, np.float32), len(stored) + 1)}
        assert found == near == set(stored)


def kill_while_writing(file: Path, times: int) -> int:
    """Kill a writer `times` times at different moments, checking after each; how many turns were acknowledged."""
    rng, acknowledged = np.random.default_rng(0), list[str]()
    for attempt in range(times):
        process = writer(file, f"run {attempt}", 100_000)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.03)))
        process.kill()
        rest, problems = process.communicate()
        assert first, problems
        # A line that the kill cut short was not said.
        lines = (first + rest).split("\n")[:-1]
        acknowledged += lines
        check(file, acknowledged)
    return len(acknowledged)


def test_killed_while_writing(tmp_path: Path) -> None:
    assert kill_while_writing(tmp_path / "memory.db", 5) >= 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_500_times_while_writing(tmp_path: Path) -> None:
    assert kill_while_writing(tmp_path / "memory.db", 500) >= 500


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    file, count = tmp_path / "memory.db", 100
    writers = [writer(file, name, count) for name in ("one", "two")]  # both also make the file
    answers = [process.communicate(timeout=120) for process in writers]
    for process, (_, problems) in zip(writers, answers, strict=True):
        assert process.returncode == 0, problems
    acknowledged = [line for said, _ in answers for line in said.split()]
    assert len(acknowledged) == 2 * count
    check(file, acknowledged)
