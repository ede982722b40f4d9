"""Deriving over real HTTP: from our own server, and by processes that are killed or interrupted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ramet.memory import Memory
from ramet.memory.derive import Derived
from ramet.memory.derive.endpoint import Endpoint
from ramet.server.settings import Settings
from tests.endpoints import endpoint, given, keeper
from tests.memory_support import said
from tests.serving import NAME, serving, tiny_checkpoint

SESSIONS = 8


def fill(file: Path) -> None:
    """Sessions in which Ann moves on and on."""
    with Memory.open(file) as memory:
        for session in range(SESSIONS):
            texts = ["Hello!", f"Ann lives in Town{session}", f"Ben{session} lives in Bern"]
            memory.remember_turns([said(3 * session + i, text, session=f"s{session}") for i, text in enumerate(texts)])


def start(file: Path, url: str) -> subprocess.Popen[str]:
    words = ["-m", "ramet", "memory", "derive", "--model", "m", "--url", url, "--store", str(file), "--lexical"]
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )


def exported(file: Path) -> list[str]:
    with Memory.open(file) as memory:
        assert memory.store._rows("PRAGMA quick_check") == [("ok",)]  # type: ignore[attr-defined]
        return list(memory.export())


def kill_and_go_on(folder: Path, times: int, seed: int = 0) -> int:
    """Kill a run `times` times at random moments, let the last one end, and compare; how many requests it took."""
    rng = random.Random(seed)
    undisturbed, file = folder / "undisturbed.db", folder / "killed.db"
    for name in (undisturbed, file):
        fill(name)
    arrived = threading.Semaphore(0)

    def answer(body: dict[str, Any]) -> Any:
        arrived.release()
        return keeper(body)

    with endpoint(answer) as asked:
        with Memory.open(undisturbed) as memory, Endpoint(asked.url, "m") as model:
            assert memory.derive(model).summaries == SESSIONS
        needed = len(asked.bodies)
        for _ in range(times):
            while arrived.acquire(blocking=False):
                pass
            process = start(file, asked.url)
            for _ in range(rng.randint(1, 3)):
                arrived.acquire(timeout=60)
            time.sleep(rng.uniform(0, 0.02))  # the answer is on its way, or being stored
            process.kill()
            process.communicate()
        process = start(file, asked.url)
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems
    assert exported(file) == exported(undisturbed)
    return len(asked.bodies) - needed


def test_killed_in_the_middle_nothing_is_lost_or_twice(tmp_path: Path) -> None:
    assert kill_and_go_on(tmp_path, 3) >= SESSIONS + 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_often(tmp_path: Path) -> None:
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kill_and_go_on(folder, 6, seed)


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    file = tmp_path / "m.db"
    fill(file)
    third, end = threading.Event(), threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if "Town3" in str(given(body)) and "dates" in given(body)[-1]:
            third.set()
            end.wait(30)
        return keeper(body)

    with endpoint(answer) as asked:
        process = start(file, asked.url)
        assert third.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        end.set()
        assert process.returncode == 130, err
        assert "Stopped; what was written is kept. The same command goes on from there." in err
        assert "Traceback" not in err and out == ""
        with Memory.open(file) as memory, Endpoint(asked.url, "m") as model:
            assert memory.stats().summaries == 3
            assert memory.derive(model).summaries == SESSIONS - 3


def test_from_our_own_server(tmp_path: Path) -> None:
    """A random model, held to the form by the grammar: its words mean nothing, and what it names is all there."""
    turns = [said(index, f"Turn {index} of yesterday", session="s") for index in range(2)]
    with (
        serving(Settings(tiny_checkpoint(tmp_path), api_key="sesame")) as server,
        Memory.open(None) as memory,
        Endpoint(server.url, NAME, api_key="sesame") as model,
    ):
        memory.remember_turns(turns)
        replies: list[tuple[dict[str, Any], Any]] = []
        notes: list[str] = []
        model._notice = notes.append

        class Watched:
            def ask(self, instructions: str, given: str, schema: Any) -> Any:
                if "facts" in schema["properties"]:  # by chance there would be none, or one of blanks
                    schema["properties"]["facts"]["minItems"] = 2
                    schema["properties"]["facts"]["items"]["properties"]["text"]["minLength"] = 20
                reply = model.ask(instructions, given, schema)
                replies.append((schema, reply))
                return reply

        done = memory.derive(Watched())
        assert notes == [] and done.failed == [] and done.summaries == 1 and done.facts >= 2 and done.unsourced == 0
        for schema, reply in replies:
            jsonschema.validate(reply, schema)
        assert memory.derive(model) == Derived()
        held = {turn.id for turn in turns}
        for turn, _ in memory.store.scan():
            if turn.kind == "fact":
                assert set(turn.sources) <= held and turn.valid_from is not None and turn.valid_from.year == 2023
            elif turn.kind == "summary":
                assert len(turn.sources) == 2
        memory.forget(held)
        assert memory.stats().turns == memory.stats().facts == memory.stats().summaries == 0
