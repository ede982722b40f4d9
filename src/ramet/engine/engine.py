"""The engine: one thread that owns the model and the tree's live cursors, and runs steps for everyone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ramet.chat import Tokenizer
from ramet.engine.handle import Handle
from ramet.engine.request import Request, Sampling
from ramet.engine.stats import EngineStats
from ramet.models.base import Model
from ramet.tree import Tree

Result = TypeVar("Result")


class Engine:
    """Runs requests over one model and one tree. `submit`, `call` and `stats` may be used from any thread."""

    def __init__(
        self,
        model: Model,
        tree: Tree,
        tokenizer: Tokenizer,
        *,
        step_tokens: int = 512,
        max_running: int = 32,
        defaults: Sampling | None = None,
    ) -> None:
        """`defaults` fill what a request's sampling leaves open (see `sampling.checkpoint_defaults(path)`)."""

    def start(self) -> None:
        """Start the engine's thread."""

    def stop(self) -> None:
        """Cancel what runs and waits, and end the thread. The tree stays open."""

    def submit(self, request: Request) -> Handle:
        """Queue a request. Raises RequestError, naming the field, if it can never be run as it stands."""
        raise NotImplementedError

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function` on the engine's thread between two steps: for operations on the tree (prune, pin, store)."""
        raise NotImplementedError

    def stats(self) -> EngineStats:
        """Counts since the start and what is going on now."""
        raise NotImplementedError
