"""The engine: one thread that owns the model and the tree's live cursors."""

from __future__ import annotations

import copy
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ramet.chat import Tokenizer
from ramet.engine.batch import Batch
from ramet.engine.branch import Job
from ramet.engine.grammar import GrammarCompiler
from ramet.engine.handle import Handle
from ramet.engine.request import Request, RequestError, Sampling, check_request
from ramet.engine.sampling import NEUTRAL, check_sampling
from ramet.engine.stats import EngineStats
from ramet.models.base import Model
from ramet.tree import Tree

Result = TypeVar("Result")

_log = logging.getLogger("ramet.engine")


class Engine:
    """Runs requests over one model and one tree. Its methods may be called from any thread."""

    def __init__(
        self,
        model: Model,
        tree: Tree,
        tokenizer: Tokenizer,
        *,
        step_tokens: int = 512,
        step_seconds: float = 0.25,
        max_running: int = 32,
        drafts: int = 1,
        defaults: Sampling = NEUTRAL,
    ) -> None:
        """`step_tokens`: most prompt tokens in a step; while replies are being written, as many as fit `step_seconds`.

        `drafts`: tokens to guess in a step of a reply, if the model can (`drafting`): steps, not replies, change.
        `max_running`: replies in progress at a time; more requests wait in a queue, first come, first served.
        `defaults` fill what a request's sampling leaves open (`sampling.checkpoint_defaults` reads the checkpoint's).
        """
        self.model = model
        self.tree = tree
        self.tokenizer = tokenizer
        self.defaults = defaults.over(NEUTRAL)
        self.max_running = max_running
        self._grammars = GrammarCompiler(tokenizer)
        self._batch = Batch(model, tree, tokenizer, step_tokens, step_seconds, max_running, drafts)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._gate = threading.Lock()

    def start(self) -> None:
        """Start the engine's thread, and beside it prepare the vocabulary for grammars."""
        with self._gate:
            if self._thread is not None:
                raise RuntimeError("the engine was started before")
            self._thread = threading.Thread(target=self._run, name="ramet-engine", daemon=True)
            self._thread.start()
        threading.Thread(target=self._grammars.prepare, name="ramet-grammars", daemon=True).start()

    def stop(self) -> None:
        """Cancel what runs and waits, and return when the thread has ended. The tree stays open. Twice is harmless."""
        with self._gate:
            if self._thread is None:
                return
            self._stopping = True
            self._inbox.put(lambda: None)
        self._thread.join()

    def submit(self, request: Request) -> Handle:
        """Queue a request, its pictures encoded first where they are not known.

        Raises RequestError (GrammarError), naming what is wrong, if it can never be run.
        """
        check_request(request, self.model, self.max_running)
        if request.store and not self.tree.on_disk:
            raise RequestError("store: sessions are kept in memory only; give the tree a directory to store them in")
        settings = request.sampling.over(self.defaults)
        check_sampling(settings, self.model.vocab_size)
        matcher = self._grammars.compile(request.grammar) if request.grammar else None
        handle = Handle(request, lambda handle: self._inbox.put(lambda: self._batch.cancel(handle)))
        job = Job(request, settings, handle, matcher)
        if request.pictures:
            self._batch.sight.prepare(request, self.tree.match(job.prompt).resume)
        self._put(lambda: self._batch.accept(job))
        return handle

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function` on the engine's thread between two steps: for operations on the tree (prune, pin, open)."""
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._put(run)
        return future

    def stats(self) -> EngineStats:
        """A copy of the counts since the start, and of what is going on now."""
        return copy.deepcopy(self._batch.stats)

    def _put(self, command: Callable[[], None]) -> None:
        with self._gate:
            if self._thread is None or self._stopping:
                raise RequestError("the engine is not running: it was not started, or it is being stopped")
            self._inbox.put(command)

    def _run(self) -> None:
        batch = self._batch
        while not self._stopping:
            self._take_commands(wait=batch.idle)
            try:
                batch.step()
            except Exception as error:  # a fault of the engine's own: whoever is running must not hang
                _log.exception("a step failed")
                batch.fail_all(error)
            batch.deliver()
        self._take_commands(wait=False)  # what came before the gate was closed
        batch.cancel_all()
        batch.deliver()
        batch.close()

    def _take_commands(self, *, wait: bool) -> None:
        """Do what other threads asked for; `wait` for it if there is nothing else to do."""
        while True:
            try:
                command = self._inbox.get(block=wait)
            except queue.Empty:
                return
            command()
            self._batch.deliver()
            wait = False
