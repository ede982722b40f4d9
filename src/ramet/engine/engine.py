"""The engine: one thread that owns the model and the tree's live cursors, and runs steps for everyone."""

from __future__ import annotations

import copy
import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from ramet.chat import Tokenizer
from ramet.engine.branch import Branch, Job
from ramet.engine.divergence import Departure, explain
from ramet.engine.grammar import GrammarCompiler
from ramet.engine.handle import Handle
from ramet.engine.request import Event, FinishEvent, FinishReason, Request, RequestError, Sampling
from ramet.engine.sampling import NEUTRAL, check
from ramet.engine.schedule import SMALLEST_PREFIX, Pace, saves_in_reply, share_prefill
from ramet.engine.stats import EngineStats
from ramet.errors import RametError
from ramet.models.base import Model
from ramet.tree import Bill, Match, Node, Tree

Result = TypeVar("Result")

_log = logging.getLogger("ramet.engine")


class Engine:
    """Runs requests over one model and one tree. `submit`, `call` and `stats` may be used from any thread."""

    def __init__(
        self,
        model: Model,
        tree: Tree,
        tokenizer: Tokenizer,
        *,
        step_tokens: int = 512,
        step_seconds: float = 0.25,
        max_running: int = 32,
        defaults: Sampling = NEUTRAL,
    ) -> None:
        """`step_tokens`: most prompt tokens in a step; while replies are being written, as many as fit `step_seconds`.

        `max_running`: replies in progress at a time; more requests wait in a queue, first come, first served.
        `defaults` fill what a request's sampling leaves open (`sampling.checkpoint_defaults` reads the checkpoint's).
        """
        self.model = model
        self.tree = tree
        self.tokenizer = tokenizer
        self.defaults = defaults.over(NEUTRAL)
        self.max_running = max_running
        self._grammars = GrammarCompiler(tokenizer)
        self._step_tokens = step_tokens
        self._pace = Pace(step_tokens, step_seconds)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._branches: list[Branch] = []  # in order of admission
        self._events: dict[Handle, list[Event]] = {}
        self._stats = EngineStats()
        self._serial = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._gate = threading.Lock()

    # --- for every thread ---

    def start(self) -> None:
        """Start the engine's thread."""
        with self._gate:
            if self._thread is not None:
                raise RuntimeError("the engine was started before")
            self._thread = threading.Thread(target=self._run, name="ramet-engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Cancel what runs and waits, and end the thread. The tree stays open. Stopping twice is harmless."""
        with self._gate:
            thread = self._thread
            if thread is None or self._stopping:
                return
            self._stopping = True
            self._inbox.put(lambda: None)
        thread.join()

    def submit(self, request: Request) -> Handle:
        """Queue a request. Raises RequestError (GrammarError), naming what is wrong, if it can never be run."""
        self._check(request)
        settings = request.sampling.over(self.defaults)
        check(settings, self.model.vocab_size)
        matcher = self._grammars.compile(request.grammar) if request.grammar else None
        handle = Handle(request, lambda handle: self._inbox.put(lambda: self._cancel(handle)))
        job = Job(request, settings, handle, matcher)
        self._put(lambda: self._accept(job))
        return handle

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function` on the engine's thread between two steps: for operations on the tree (prune, pin, store)."""
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
        return copy.deepcopy(self._stats)

    def _put(self, command: Callable[[], None]) -> None:
        with self._gate:
            if self._thread is None or self._stopping:
                raise RequestError("the engine is not running: it was not started, or it is being stopped")
            self._inbox.put(command)

    def _check(self, request: Request) -> None:
        length, context = len(request.tokens), self.model.context_length
        if not length:
            raise RequestError("the prompt is empty: it needs at least one token")
        if length > context or (length == context and request.sampling.max_tokens != 0):
            raise RequestError(
                f"the prompt has {length} tokens; the model's context of {context} leaves no room for a reply"
            )
        if min(request.tokens) < 0 or max(request.tokens) >= self.model.vocab_size:
            wrong = next(i for i, token in enumerate(request.tokens) if not 0 <= token < self.model.vocab_size)
            raise RequestError(
                f"token {request.tokens[wrong]} at position {wrong} of the prompt is not in the model's vocabulary "
                f"(0 to {self.model.vocab_size - 1})"
            )
        ends = [0, *request.boundaries, length + 1]
        if any(end >= later for end, later in itertools.pairwise(ends)):
            raise RequestError(f"boundaries must ascend from 1 to at most {length}")
        if request.messages and len(request.messages) != len(request.boundaries):
            raise RequestError(f"{len(request.messages)} messages for {len(request.boundaries)} boundaries")
        if any(not 0 <= position <= length for position in request.save_at):
            raise RequestError(f"save_at must lie in 0 to {length}")
        if request.sampling.n > self.max_running:
            raise RequestError(f"n is {request.sampling.n}; at most {self.max_running} replies can run at once")

    # --- the engine's thread ---

    def _run(self) -> None:
        while True:
            self._take_commands()
            if self._stopping:
                break
            try:
                self._admit()
                self._step()
            except Exception as error:  # a fault of the engine's own: whoever is running must not hang
                _log.exception("a step failed")
                for branch in list(self._branches):
                    self._fail(branch, error)
            self._deliver()
        for job in self._waiting:
            self._end_waiting(job)
        self._waiting.clear()
        for branch in list(self._branches):
            self._end(branch, "cancelled")
        self._deliver()

    def _take_commands(self) -> None:
        """Do what other threads asked for; wait for it if there is nothing else to do."""
        idle = not (self._branches or self._waiting)
        while True:
            try:
                command = self._inbox.get(block=idle)
            except queue.Empty:
                return
            command()
            self._deliver()
            idle = False

    def _deliver(self) -> None:
        for handle, events in self._events.items():
            handle.put(events)
        self._events.clear()
        self._stats.running = sum(len(branch.choices) for branch in self._branches)
        self._stats.following = sum(branch.cursor is None for branch in self._branches)
        self._stats.waiting = len(self._waiting)

    def _emit(self, job: Job, event: Event) -> None:
        self._events.setdefault(job.handle, []).append(event)

    # --- admission ---

    def _accept(self, job: Job) -> None:
        self._waiting.append(job)
        self._stats.requests += 1

    def _admit(self) -> None:
        running = sum(len(branch.choices) for branch in self._branches)
        while self._waiting and running + self._waiting[0].settings.n <= self.max_running:
            job = self._waiting.popleft()
            running += job.settings.n
            job.admitted = time.perf_counter()
            self._stats.prompt_tokens += len(job.prompt)
            self._stats.queue_seconds.observe(job.admitted - job.submitted)
            branch = Branch(job, range(job.settings.n), self._next_serial(), self.tokenizer)
            self._branches.append(branch)
            self._guarded(branch, self._place, branch)

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _place(self, branch: Branch) -> None:
        """Find the branch its place: behind another one that computes what it needs, or in the tree."""
        job = branch.job
        match = self.tree.match(job.request.tokens)
        leader = self._leader(branch, match.resume)
        if leader is not None:
            branch.leader, branch.meet, branch.meet_in_tree = leader
            if leader[0].cursor is not None and leader[0].cursor.position == branch.meet:
                self._take_over(branch, leader[0])
            return
        branch.leader = None
        cursor = self.tree.open(job.request.tokens, match=match, limit=job.limit, boundaries=job.boundaries)
        cursor.expect(job.expected)
        branch.begin(cursor)
        lost = min(match.position, job.limit) - cursor.position
        job.divergence = explain(job.request, self._departure(match), lost, cursor.position, self.tokenizer)
        self._stats.reused_tokens += cursor.position
        self._reached(branch)

    def _leader(self, branch: Branch, resume: int) -> tuple[Branch, int, bool] | None:
        """The earlier branch from whose work `branch`, which can resume at `resume`, gains the most.

        Returns it, where to meet it, and whether it has passed the parting already, so that its saved states have to
        be awaited in the tree.
        """
        best: tuple[Branch, int, bool] | None = None
        gain = SMALLEST_PREFIX - 1
        for other in self._branches:
            if other.serial >= branch.serial or other.prompt_done or (other.leader and other.meet_in_tree):
                continue
            shared = min(_common(branch.job.prompt, other.job.prompt), branch.job.limit)
            if resume <= other.position <= shared:
                if shared - resume > gain:
                    best, gain = (other, shared, False), shared - resume
            elif other.position > shared:
                saved = max((position for position in other.saved if position <= shared), default=0)
                wait = next((end for end in other.job.boundaries if end >= other.position), None)
                # Worth waiting only where running the same tokens anew would take longer.
                if wait is not None and saved - resume > max(gain, wait - other.position):
                    best, gain = (other, wait, True), saved - resume
        return best

    def _departure(self, match: Match) -> Departure:
        message = None if match.next is None else match.next.message
        following = [child.message for child in self.tree.children(match.next) if child.message] if match.next else []
        generated = match.next is not None and match.next.reply is not None
        return Departure(match.position, match.there, message, following, generated)

    def _take_over(self, branch: Branch, leader: Branch) -> None:
        """Go on from where the leader stands: the place where both prompts part."""
        job, other = branch.job, leader.job
        assert leader.cursor is not None
        cursor = leader.cursor.fork()
        cursor.expect(job.expected)
        branch.begin(cursor)
        branch.saved = list(leader.saved)
        position = cursor.position
        ends = [index for index, end in enumerate(other.boundaries) if end > position]
        message = other.request.messages[ends[0]] if ends and other.request.messages else None
        there = int(other.prompt[position]) if position < len(other.prompt) else None
        if there == int(job.prompt[position]):
            there = None  # the same prompt: only its last token has to be run for each
        job.divergence = explain(job.request, Departure(position, there, message), 0, position, self.tokenizer)
        self._stats.reused_tokens += position
        self._reached(branch)

    # --- a step ---

    def _step(self) -> None:
        chosen = self._choose()
        spans, ran = [], []
        for branch, count in chosen:
            assert branch.cursor is not None
            start = branch.cursor.position
            last = start + count == len(branch.tokens)
            wanted = last and branch.reason is None and branch.job.settings.max_tokens != 0
            try:
                spans.append(branch.cursor.span(branch.tokens[start : start + count], logits=int(wanted)))
                ran.append((branch, count, wanted))
            except Exception as error:
                self._fail(branch, error)
        if not spans:
            return
        began = time.perf_counter()
        try:
            logits = self.model.forward(spans)
        except Exception as error:
            self._recover([branch for branch, _, _ in ran], error)
            return
        rows = logits.numpy()
        seconds = time.perf_counter() - began
        tokens = sum(count for _, count, _ in ran)
        self._pace.observe(tokens, seconds)
        self._stats.steps += 1
        self._stats.step_seconds.observe(seconds)
        for branch, count, _ in ran:  # all of them before anything else: one may be forked on behalf of another
            assert branch.cursor is not None
            branch.cursor.advance(count)
        row = 0
        for branch, count, wanted in ran:
            self._guarded(branch, self._ran, branch, count, rows[row] if wanted else None)
            row += wanted

    def _choose(self) -> list[tuple[Branch, int]]:
        """Who runs how many tokens in this step: every reply one, and a share of the budget for the prompts."""
        ready = [branch for branch in self._branches if branch.cursor is not None]
        meets: dict[Branch, list[int]] = {}
        for branch in self._branches:
            if branch.leader is not None and not branch.meet_in_tree:
                meets.setdefault(branch.leader, []).append(branch.meet)
        for branch in ready:
            if branch.alone:
                return [(branch, min(branch.stretch(meets.get(branch, [])), self._step_tokens))]
        replies = [branch for branch in ready if branch.prompt_done and len(branch.tokens) - branch.position == 1]
        prompts = [branch for branch in ready if branch not in replies]
        counts = share_prefill(
            [len(branch.tokens) - branch.position for branch in prompts],
            [branch.stretch(meets.get(branch, [])) for branch in prompts],
            self._pace.budget(bool(replies)),
        )
        chosen = [(branch, 1) for branch in replies]
        return chosen + [(branch, count) for branch, count in zip(prompts, counts, strict=True) if count]

    def _ran(self, branch: Branch, count: int, row: np.ndarray | None) -> None:
        """The branch's span of `count` tokens was run; `row` are the logits of its last token, if it asked for them."""
        branch.alone = False
        self._stats.computed_tokens += 0 if branch.prompt_done else count
        self._reached(branch)
        if row is None:
            return
        if not branch.job.answered:
            branch.job.answered = time.perf_counter()
            self._stats.first_token_seconds.observe(branch.job.answered - branch.job.submitted)
        for each in self._forked(branch):
            self._guarded(each, self._draw, each, row)

    def _reached(self, branch: Branch) -> None:
        """Do what is to be done at the position that the branch has reached."""
        cursor, job = branch.cursor, branch.job
        assert cursor is not None
        position = cursor.position
        if position in branch.save_points or (branch.prompt_done and saves_in_reply(position - len(job.prompt))):
            cursor.save()
            branch.saved.append(position)
        self._commit_prompt(branch)
        for follower in [other for other in self._branches if other.leader is branch]:
            if follower.meet_in_tree and cursor.node.end >= follower.meet:
                self._guarded(follower, self._place, follower)
            elif not follower.meet_in_tree and follower.meet == position:
                if position not in branch.saved and position < min(len(job.prompt), len(follower.job.prompt)) - 1:
                    cursor.save()  # where two have parted, others will
                    branch.saved.append(position)
                self._guarded(follower, self._take_over, follower, branch)
        if position == len(branch.tokens) and (branch.reason is not None or job.settings.max_tokens == 0):
            branch.reason = branch.reason or "length"
            self._finish(branch)

    def _commit_prompt(self, branch: Branch) -> None:
        """Make nodes of the messages that have been run."""
        cursor, job = branch.cursor, branch.job
        assert cursor is not None
        for index, end in enumerate(job.boundaries):
            if cursor.node.end < end <= cursor.position:
                message = job.request.messages[index] if job.request.messages else None
                bill = self._bill(branch, cursor.node.end, end)
                cursor.commit(end, message=dict(message) if message is not None else None, bill=bill)

    def _bill(self, branch: Branch, start: int, end: int) -> Bill:
        """What the tokens from `start` to `end` cost; the time since the last bill."""
        now = time.perf_counter()
        computed = end - min(max(start, branch.job.start), end)
        bill = Bill(computed=computed, reused=end - start - computed, seconds=now - branch.committed)
        branch.committed = now
        return bill

    def _forked(self, branch: Branch) -> list[Branch]:
        """The branches that draw from the logits just computed: where the prompt ends, one for each of n replies."""
        branch.prompt_done = True
        if len(branch.choices) == 1:
            return [branch]
        assert branch.cursor is not None
        cursor = branch.cursor
        others = [branch.split(i, self._next_serial(), cursor.fork(), self.tokenizer) for i in branch.choices[1:]]
        branch.choices = branch.choices[:1]
        index = self._branches.index(branch) + 1
        self._branches[index:index] = others
        return [branch, *others]

    def _draw(self, branch: Branch, row: np.ndarray) -> None:
        assert branch.cursor is not None
        event = branch.draw(row, self.model.context_length)
        self._stats.reply_tokens += 1
        if event is not None:
            self._emit(branch.job, event)
        if branch.reason is not None and branch.cursor.position == len(branch.tokens):
            self._finish(branch)

    # --- ends ---

    def _finish(self, branch: Branch) -> None:
        """The reply is whole and run: make it a node and say so."""
        cursor, job = branch.cursor, branch.job
        assert cursor is not None and branch.reason is not None
        rest = branch.rest()
        reason: FinishReason = branch.reason
        message = None
        if branch.drawn and job.request.parse_reply is not None:
            message = job.request.parse_reply(branch.text)
            if reason == "stop" and message is not None and message.get("tool_calls"):
                reason = "tool_calls"
        cursor.save()
        node = cursor.node
        if cursor.position > node.end:
            start = node.end
            node = cursor.commit(
                cursor.position,
                message=None if message is None else dict(message),
                bill=self._bill(branch, start, cursor.position),
                text=self.tokenizer.decode(branch.tokens[start:], specials=True),
                generated=branch.drawn > 0,
            )
        if reason == "tool_calls":
            self.tree.pin(node, job.request.pin_seconds)
        if job.request.store:
            self.tree.store(node)
        self._end(branch, reason, node=node, text=rest, message=message)

    def _end(
        self,
        branch: Branch,
        reason: FinishReason,
        *,
        node: Node | None = None,
        text: str = "",
        message: object = None,
        error: str | None = None,
    ) -> None:
        """Let go of the branch and send the last event of each reply that it stands for."""
        self._branches.remove(branch)
        if branch.cursor is not None:
            branch.cursor.close()
        for choice in branch.choices:
            self._stats.finished[reason] += 1
            event = FinishEvent(
                reason=reason,
                usage=branch.job.usage(branch.drawn),
                text_delta=text,
                choice=choice,
                node=None if node is None else node.id,
                message=message,  # type: ignore[arg-type]
                stop=branch.stop,
                error=error,
            )
            self._emit(branch.job, event)
        for follower in [other for other in self._branches if other.leader is branch]:
            self._guarded(follower, self._place, follower)

    def _end_waiting(self, job: Job) -> None:
        for choice in range(job.settings.n):
            self._stats.finished["cancelled"] += 1
            self._emit(job, FinishEvent("cancelled", job.usage(0), choice=choice))

    def _cancel(self, handle: Handle) -> None:
        for job in [job for job in self._waiting if job.handle is handle]:
            self._waiting.remove(job)
            self._end_waiting(job)
        for branch in [branch for branch in self._branches if branch.job.handle is handle]:
            self._end(branch, "cancelled")

    def _guarded(self, branch: Branch, action: Callable[..., None], *arguments: object) -> None:
        """Do something for a branch; what goes wrong is that request's alone."""
        try:
            action(*arguments)
        except Exception as error:
            self._fail(branch, error)

    def _fail(self, branch: Branch, error: Exception) -> None:
        if branch not in self._branches:
            return
        if isinstance(error, RametError):
            message = str(error)
        elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            message = (
                f"there is not enough memory to go on at token {branch.position}: give the tree a smaller budget, "
                "run fewer requests at once, or send a shorter prompt"
            )
        else:
            _log.error("request %s failed", branch.job.request.label, exc_info=error)
            message = f"internal error: {type(error).__name__}: {error}"
        self._end(branch, "error", error=message)

    def _recover(self, branches: list[Branch], error: Exception) -> None:
        """A step failed half-way: its states are worthless. A lone branch is to blame; the others are tried alone."""
        if len(branches) == 1:
            self._fail(branches[0], error)
            return
        _log.warning("a step of %d requests failed (%s); running each alone", len(branches), error)
        for branch in branches:
            self._guarded(branch, self._reopen, branch)

    def _reopen(self, branch: Branch) -> None:
        """Go back to the last saved state of the tokens that the branch has so far."""
        assert branch.cursor is not None
        branch.cursor.close()
        branch.cursor = self.tree.open(branch.tokens, limit=len(branch.tokens) - 1, boundaries=branch.job.boundaries)
        branch.cursor.expect(branch.job.expected)
        branch.alone = True


def _common(ours: np.ndarray, theirs: np.ndarray) -> int:
    """How many leading tokens two prompts share."""
    length = min(len(ours), len(theirs))
    different = np.flatnonzero(ours[:length] != theirs[:length])
    return int(different[0]) if len(different) else length
