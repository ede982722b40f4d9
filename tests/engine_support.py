"""An engine over a tiny random checkpoint: the real model, kernels and tree, with a record of what was run."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ramet import models
from ramet.chat import Chat, Tokenizer
from ramet.engine import Completion, Engine, Request, Sampling
from ramet.models.base import Model
from ramet.models.random import write_random_checkpoint
from ramet.models.states import Span
from ramet.tree import Tree

_FOLDER = tempfile.TemporaryDirectory(prefix="ramet-engine-tests-")


@cache
def checkpoint() -> Path:
    """The folder of a random checkpoint; a context of 8192 tokens."""
    return write_random_checkpoint(Path(_FOLDER.name) / "tiny", seed=5, max_position_embeddings=8192)


@cache
def model() -> Model:
    return models.load(checkpoint())


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(checkpoint())


@cache
def chat() -> Chat:
    return Chat.load(checkpoint(), tokenizer())


class Recorder:
    """The model, with a record of its steps: for each, the spans as (position, tokens). `before` may raise."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner
        self.layout = inner.layout
        self.vocab_size = inner.vocab_size
        self.context_length = inner.context_length
        self.fingerprint = inner.fingerprint
        self.visual = inner.visual
        self.steps: list[list[tuple[int, int]]] = []
        self.before: Callable[[Sequence[Span]], None] = lambda spans: None

    @property
    def tokens(self) -> int:
        """How many tokens were run in all."""
        return sum(count for step in self.steps for _, count in step)

    @property
    def predicts_ahead(self) -> bool:
        return self.inner.predicts_ahead

    def draft(self, spans: Sequence[Span], guesses: int, before: Sequence[Tensor | None]) -> None:
        self.inner.draft(spans, guesses, before)

    def forward(self, spans: Sequence[Span]) -> Tensor:
        self.steps.append([(span.position, len(span.tokens)) for span in spans])
        self.before(spans)
        return self.inner.forward(spans)


class Bench:
    """An engine and what it stands on."""

    def __init__(self, tree: Tree, **options: Any) -> None:
        self.model = Recorder(model())
        self.tree = tree
        self.engine = Engine(self.model, tree, tokenizer(), **options)

    def ask(self, tokens: Sequence[int], **fields: Any) -> Completion:
        """Submit, wait, return the only reply. Fields of Sampling and of Request are told apart by name."""
        return self.engine.submit(request(tokens, **fields)).result()[0]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold the engine between two steps: what is submitted meanwhile arrives at once."""
        go_on = threading.Event()
        self.engine.call(go_on.wait)
        try:
            yield
        finally:
            go_on.set()


def request(tokens: Sequence[int], **fields: Any) -> Request:
    """A greedy request for 12 tokens, unless `fields` (of Sampling and of Request) say otherwise."""
    sampling = {name: fields.pop(name) for name in list(fields) if name in Sampling.__dataclass_fields__}
    settings = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.0, **sampling}
    return Request(tokens, sampling=Sampling(**settings), **fields)


@contextmanager
def running(*, ram_bytes: int = 1 << 28, directory: Path | None = None, **options: Any) -> Iterator[Bench]:
    """A bench with a tree (in memory, unless there is a directory) and a running engine; `options` are the engine's."""
    tree = Tree(model().layout, model().fingerprint, ram_bytes=ram_bytes, directory=directory)
    bench = Bench(tree, **options)
    bench.engine.start()
    try:
        yield bench
    finally:
        bench.engine.stop()
        tree.close()


def text_tokens(seed: int, length: int) -> list[int]:
    """Random tokens for ordinary bytes."""
    return np.random.default_rng(seed).integers(0, 256, length).tolist()
