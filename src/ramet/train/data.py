"""Where training rows come from. A source gives the batch of any step as a pure function of that step and its seed,
so a run that resumes needs to know nothing but where it was."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from ramet.chat.template import ChatTemplate, load_templates
from ramet.errors import RametError
from ramet.train.conversations import Conversation, make_conversations
from ramet.train.packing import Batch, Encoder, assign, lay

VARIED, WIDE = 300, 2000
"""Steps from which further phrasings, and wide tables, join in: first the format, then the language."""


class DataError(RametError):
    """A file that is no training data."""


class Source(Protocol):
    def batch(self, step: int) -> Batch: ...


def read_encoder(folder: Path) -> Encoder:
    """The tokenizer and chat template of a checkpoint's folder, as training needs them."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Encoder(tokenizer, load_templates(folder)["default"])


class Tables:
    """Generated conversations about generated tables, new ones at every step."""

    def __init__(self, folder: Path, *, seed: int, rows: int, length: int) -> None:
        self._encoder = read_encoder(folder)
        self._seed, self._rows, self._length = seed, rows, length

    def batch(self, step: int) -> Batch:
        rng = random.Random(f"tables/{self._seed}/{step}")
        documents = []
        wanted = int(self._rows * self._length * 1.02)
        while wanted > 0:
            for conversation in make_conversations(rng, stage=sum(step >= start for start in (VARIED, WIDE))):
                documents.append(self._encoder.encode(conversation))
                wanted -= len(documents[-1].tokens)
        rows = assign([len(d.tokens) for d in documents], self._length)[: self._rows]
        return lay([[documents[i] for i in row] for row in rows], self._length)


class Conversations:
    """A file with one conversation a line, in OpenAI's form (`{"messages": [...]}`), reshuffled for every epoch."""

    def __init__(self, folder: Path, path: Path, *, seed: int, rows: int, length: int) -> None:
        encoder = read_encoder(folder)
        self._documents = [encoder.encode(messages) for messages in read_conversations(path)]
        self._seed, self._rows, self._length = seed, rows, length
        self._epoch: tuple[int, list[list[int]]] | None = None
        self._steps_per_epoch = max(1, -(-len(assign([len(d.tokens) for d in self._documents], length)) // rows))

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self._steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            rng = random.Random(f"conversations/{self._seed}/{epoch}")
            order = list(range(len(self._documents)))
            rng.shuffle(order)
            rows = assign([len(self._documents[i].tokens) for i in order], self._length)
            rng.shuffle(rows)
            self._epoch = epoch, [[order[i] for i in row] for row in rows]
        rows = self._epoch[1]
        taken = [rows[i % len(rows)] for i in range(place * self._rows, (place + 1) * self._rows)]
        return lay([[self._documents[i] for i in row] for row in taken], self._length)


def read_conversations(path: Path) -> list[Conversation]:
    """The conversations of a JSON-lines file. Raises DataError, naming the line, for what is none."""
    conversations: list[Conversation] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error.msg})") from None
        messages = value.get("messages") if isinstance(value, dict) else value
        if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
            raise DataError(f'{path}, line {number}: expected {{"messages": [...]}} with a role in each message')
        if not any(m["role"] == "assistant" and m.get("loss", True) for m in messages):
            raise DataError(f"{path}, line {number}: no assistant message to learn from")
        conversations.append([_with_objects(m) for m in messages])
    if not conversations:
        raise DataError(f"{path}: no conversations in it")
    return conversations


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """Tool calls with their arguments as objects, which templates want; the API's form has them as JSON text."""
    calls = []
    for call in message.get("tool_calls") or []:
        function = dict(call.get("function", call))
        if isinstance(function.get("arguments"), str):
            function["arguments"] = json.loads(function["arguments"] or "{}")
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls} if calls else message


def table_texts(template: str, seed: int, tables: int = 1500) -> Iterator[str]:
    """Rendered conversations to train a tokenizer on."""
    rng = random.Random(f"tokenizer/{seed}")
    rendered = ChatTemplate(template, "the table template")
    for _ in range(tables):
        for conversation in make_conversations(rng):
            yield rendered.render({"messages": conversation})


_source: Source


def _install(kind: type, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    global _source
    _source = kind(*arguments, **options)


def _make(step: int) -> Batch:
    return _source.batch(step)


def prefetch(kind: type, *arguments: Any, start: int, stop: int, depth: int = 4, **options: Any) -> Iterator[Batch]:
    """The batches of `kind(*arguments, **options)` from step `start` on, made ahead of time in another process."""
    with ProcessPoolExecutor(1, get_context("spawn"), _install, (kind, arguments, options)) as pool:
        ahead: deque[Future[Batch]] = deque()
        try:
            for step in range(start, stop):
                while len(ahead) < depth and step + len(ahead) < stop:
                    ahead.append(pool.submit(_make, step + len(ahead)))
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
