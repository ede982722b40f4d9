"""How many tokens does the server compute for real agents' sessions, over the least possible?

Replays agent traces over HTTP against a `ramet serve` process: every assistant turn is asked for in order, and the
session goes on with the trace's own message. The least possible for a request is the number of its prompt's tokens that
no earlier request had as a prefix. The sessions run one after another, 8 and 32 interleaved, with all states in memory;
then 8 interleaved with sessions on disk, after which the server is killed and started, and every session takes a turn
back; last, 16 requests arrive at once on the same cold prefix.

    python benchmarks/agents.py                     # a thin random checkpoint with the layers of Qwen3.5-0.8B
    python benchmarks/agents.py --model DIR         # any checkpoint in the published layout
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from ramet import models
from ramet.chat import Chat, Tokenizer
from ramet.models.random import write_random_checkpoint
from report import Figure, report

GIB = 1 << 30
STATE_BYTES_08B = 19.3 * (1 << 20)
"""A saved recurrent state of Qwen3.5-0.8B: the budget is scaled by this model's state over that one."""
BUDGET_08B = 4 * GIB

Message = dict[str, Any]
console = Console()


@dataclass
class Session:
    """One trace: its messages, the tools that they call, and the turns that the assistant takes."""

    name: str
    messages: list[Message]
    tools: list[dict[str, Any]]

    @property
    def turns(self) -> list[int]:
        """Indices of the assistant messages: each is asked for with the messages before it."""
        return [i for i, message in enumerate(self.messages) if message["role"] == "assistant" and i > 0]


def load_sessions(folder: Path) -> list[Session]:
    """Every trace in `folder`, with a tool definition for each function that the traces of its file call."""
    sessions = []
    for file in sorted(folder.glob("*.jsonl")):
        traces = [json.loads(line) for line in file.read_text().splitlines()]
        parameters: dict[str, dict[str, Any]] = {}
        for call in (c for t in traces for m in t["messages"] for c in m.get("tool_calls") or ()):
            arguments = json.loads(call["function"]["arguments"])
            known = parameters.setdefault(call["function"]["name"], {})
            known.update({key: {"type": _json_type(value)} for key, value in arguments.items()})
        tools = [
            {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": known}}}
            for name, known in sorted(parameters.items())
        ]
        sessions += [Session(f"{t['task_id']}/{t['trial']}", t["messages"], tools) for t in traces]
    return sessions


def _json_type(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "string")


class Prefixes:
    """Every prompt seen so far, sorted as bytes: the longest common prefix with any of them is with a neighbour."""

    def __init__(self) -> None:
        self._sorted: list[bytes] = []
        self._lock = threading.Lock()

    def least(self, tokens: list[int]) -> int:
        """Tokens of this prompt that no earlier one had as a prefix; the prompt counts as earlier from now on.

        At least one: to sample a reply, the prompt's last token has to run.
        """
        key = np.asarray(tokens, dtype=">u4").tobytes()
        with self._lock:
            place = bisect.bisect_left(self._sorted, key)
            shared = max((_shared(key, other) for other in self._sorted[max(0, place - 1) : place + 1]), default=0)
            self._sorted.insert(place, key)
        return max(1, len(tokens) - shared)


def _shared(left: bytes, right: bytes) -> int:
    """Number of leading 4-byte tokens that two prompts share."""
    a, b = (np.frombuffer(side, dtype=">u4") for side in (left, right))
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length


class Server:
    """A real `ramet serve` process that can be killed and started again on the same folder."""

    def __init__(self, model: Path, directory: Path, memory: int, stored: bool) -> None:
        """`directory` is for its log and, if they are `stored`, its sessions."""
        self.model, self.directory, self.memory, self.stored = model, directory, memory, stored
        self.log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "ramet", "serve", "--model", str(self.model), "--port", str(port)]
        command += ["--memory", str(self.memory)]
        command += ["--directory", str(self.directory / "tree")] if self.stored else ["--memory-only"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        self.stop()
        raise SystemExit(f"the server did not start; the end of its log:\n{self.log.read_text()[-2000:]}")

    def stop(self, kill: bool = False) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def resident_gib(self) -> float:
        """Memory of the server's process now, in GiB."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / GIB


@dataclass
class Tally:
    """What the requests of one run cost, and which of them cost more than they had to."""

    requests: int = 0
    computed: int = 0
    least: int = 0
    prompt: int = 0
    excess: list[tuple[int, str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ratio(self) -> float:
        return self.computed / max(1, self.least)

    def add(self, name: str, prompt: int, least: int, answer: dict[str, Any]) -> None:
        extension = answer["ramet"]
        with self.lock:
            self.requests += 1
            self.prompt += prompt
            self.least += least
            self.computed += extension["computed"]
            if extension["computed"] > least:
                self.excess.append((extension["computed"] - least, name, extension.get("divergence")))


class Replay:
    """Asks a server for turns of sessions, and counts."""

    def __init__(self, server: Server, model: Path) -> None:
        self.server = server
        tokenizer = Tokenizer.load(model)
        self.chat = Chat.load(model, tokenizer)
        self.client = httpx.Client(timeout=600, limits=httpx.Limits(max_connections=64))
        self.lock = threading.Lock()

    def ask(self, tally: Tally, prefixes: Prefixes, name: str, messages: list[Message], tools: list[Any]) -> None:
        with self.lock:  # the order of arrival is the order in which the least possible is counted
            prompt = self.chat.render(messages, tools or None)
            least = prefixes.least(list(prompt.tokens))
        body: dict[str, Any] = {
            "model": self.server.model.name,
            "messages": messages,
            "max_tokens": 1,
            "temperature": 0,
        }
        body["store"] = True  # whatever was answered survives the kill (where there is a disk)
        if tools:
            body["tools"] = tools
        answer = self.client.post(f"{self.server.url}/v1/chat/completions", json=body)
        if answer.status_code != 200:
            raise SystemExit(f"{name}: the server answered {answer.status_code}: {answer.text[:500]}")
        tally.add(name, len(prompt.tokens), least, answer.json())

    def sessions(self, sessions: list[Session], interleaved: int, prefixes: Prefixes, title: str) -> Tally:
        """Every turn of every session, `interleaved` sessions at a time."""
        tally = Tally()
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task(title, total=sum(len(s.turns) for s in sessions))

            def run(session: Session) -> None:
                for turn in session.turns:
                    self.ask(tally, prefixes, f"{session.name}[{turn}]", session.messages[:turn], session.tools)
                    progress.advance(bar)

            with ThreadPoolExecutor(interleaved) as pool:
                list(pool.map(run, sessions))
        return tally

    def go_back(self, sessions: list[Session], prefixes: Prefixes, interleaved: int) -> Tally:
        """After a restart: each session takes its last user message back, and says something else."""
        tally = Tally()

        def run(session: Session) -> None:
            users = [i for i, message in enumerate(session.messages) if message["role"] == "user"]
            other = [
                *session.messages[: users[-1]],
                {"role": "user", "content": "Wait. Please say that again, shorter."},
            ]
            self.ask(tally, prefixes, f"{session.name} goes back", other, session.tools)
            self.ask(tally, prefixes, f"{session.name} returns", session.messages[: session.turns[-1]], session.tools)

        with ThreadPoolExecutor(interleaved) as pool:
            list(pool.map(run, sessions))
        return tally

    def at_once(self, requests: int, prefix_tokens: int) -> Tally:
        """Requests that arrive together on the same prefix, which nobody has asked for before."""
        words = random.Random(7).choices(
            ["river", "stone", "lamp", "green", "walk", "seven", "under", "paper", "north", "glass"], k=prefix_tokens
        )
        tokens = self.chat.tokenizer.encode(" ".join(words))[:prefix_tokens]
        system = {"role": "system", "content": self.chat.tokenizer.decode(tokens)}
        tally, prefixes = Tally(), Prefixes()
        with ThreadPoolExecutor(requests) as pool:
            list(
                pool.map(
                    lambda i: self.ask(
                        tally, prefixes, f"at once {i}", [system, {"role": "user", "content": f"Question {i}?"}], []
                    ),
                    range(requests),
                )
            )
        return tally

    def disk_bytes(self) -> int:
        """Rows and states on the server's disk."""
        stats = self.client.get(f"{self.server.url}/v1/ramet/tree", params={"limit": 1}).json()["stats"]
        return int(stats["disk_bytes"])


def thin_checkpoint(folder: Path, sessions: list[Session]) -> None:
    """A random bfloat16 checkpoint: Qwen3.5-0.8B's layers, little width, and a tokenizer fitted to the traces."""
    texts = [json.dumps(m, ensure_ascii=False) for s in sessions for m in s.messages]
    write_random_checkpoint(folder, seed=0, preset="thin", dtype=torch.bfloat16, corpus=texts, corpus_vocabulary=8192)


def budget_for(model: Path) -> int:
    """Bytes of memory: 4 GiB at the 0.8B shape, scaled to this model's own states."""
    return int(BUDGET_08B * models.load(model).layout.state_bytes / STATE_BYTES_08B)


def figure_of(name: str, tally: Tally, target: str, peer: str) -> Figure:
    note = f"{tally.computed:,} computed, {tally.least:,} least, {tally.prompt:,} asked, {tally.requests} requests"
    return Figure(name, tally.ratio, "computed / least", target, peer, note)


def explain(name: str, tally: Tally, most: int) -> None:
    """The requests that cost most over the least possible, with what the server says of them."""
    for excess, request, divergence in sorted(tally.excess, key=lambda e: -e[0])[:most]:
        console.print(f"  {name}: {request} computed {excess} more than the least: {divergence}", highlight=False)


def main() -> None:
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, help="a checkpoint folder (default: a thin random one, made for the run)")
    parser.add_argument("--traces", type=Path, default=here.parent / "shared" / "data" / "agent-traces")
    parser.add_argument("--sessions", type=int, help="only the first N sessions of the traces")
    parser.add_argument("--explain", type=int, default=0, metavar="N", help="print the N worst requests of each run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    if not options.traces.is_dir():
        raise SystemExit(f"no traces at {options.traces}: name their folder with --traces")
    sessions = load_sessions(options.traces)[: options.sessions]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model
        if model is None:
            model = Path(scratch) / "thin"
            thin_checkpoint(model, sessions)
        memory = budget_for(model)
        console.print(
            f"{len(sessions)} sessions; all states in {memory / (1 << 20):.1f} MiB of memory (4 GiB at the 0.8B shape)"
        )
        peers = {1: "llama-server 1.006", 8: "llama-server 1.02-1.06 (4 interleaved)", 32: "llama-server: 4 slots"}
        for interleaved, stored in ((1, False), (8, False), (32, False), (8, True)):
            name = "one after another" if interleaved == 1 else f"{interleaved} interleaved{', on disk' * stored}"
            directory = Path(scratch) / name
            directory.mkdir()
            server = Server(model, directory, memory, stored)
            server.start()
            try:
                replay, prefixes, start = Replay(server, model), Prefixes(), time.monotonic()
                tally = replay.sessions(sessions, interleaved, prefixes, name)
                figures.append(figure_of(name, tally, "<= 1.02", peers[interleaved]))
                figures.append(Figure(f"{name}: time", time.monotonic() - start, "s"))
                figures.append(
                    Figure(f"{name}: server memory", server.resident_gib(), "GiB", note="whole process, at the end")
                )
                explain(name, tally, options.explain)
                if stored:
                    kept = replay.disk_bytes() / memory * BUDGET_08B / GIB
                    figures.append(Figure(f"{name}: disk", kept, "GiB", note="as it would be at the 0.8B shape"))
                    server.stop(kill=True)
                    server.start()
                    back = replay.go_back(sessions, prefixes, interleaved)
                    figures.append(
                        figure_of("killed, started, a turn taken back", back, "<= 1.02", "llama-server: recomputes all")
                    )
                    explain("after the restart", back, options.explain)
                    once = replay.at_once(16, 4000)
                    figures.append(figure_of("16 at once on a cold 4k prefix", once, "<= 1.02", "llama-server 3.4"))
                    explain("at once", once, options.explain)
            finally:
                server.stop()
    report(
        "Tokens computed over the least possible (the peer's figures: its best settings, measured elsewhere)",
        figures,
        options.json,
    )


if __name__ == "__main__":
    main()
