"""The requests that wait and run: admit, choose, run a step, sample, append, end. Everything on the engine's thread."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ramet.chat import Tokenizer
from ramet.engine import drafting, placing
from ramet.engine.branch import Branch, Following, Job
from ramet.engine.handle import Handle
from ramet.engine.request import Event, FinishEvent, FinishReason, Message
from ramet.engine.schedule import Pace, saves_in_reply, share_prefill
from ramet.engine.sharing import find_leader
from ramet.engine.sight import Sight
from ramet.engine.stats import EngineStats
from ramet.engine.storing import Storing
from ramet.errors import RametError
from ramet.models.base import Model
from ramet.models.states import Span
from ramet.tree import Cursor, Node, Tree

_log = logging.getLogger("ramet.engine")

WITHOUT_DISK = 8
"""What those who run take of the memory, waiting sessions lose. With no disk to read it back from, that costs them far
more than queueing would, so only this part of the budget is for those who run."""


class Batch:
    """The queue, the branches in progress, and the step that moves them all."""

    def __init__(
        self,
        model: Model,
        tree: Tree,
        tokenizer: Tokenizer,
        step_tokens: int,
        step_seconds: float,
        max_running: int,
        drafts: int,
    ) -> None:
        self.stats = EngineStats()
        self._model = model
        self._tree = tree
        self._tokenizer = tokenizer
        self._storing = Storing(tree)
        self.sight = Sight(model.visual, self.stats)
        self._memory = tree.stats().ram_budget // (1 if tree.on_disk else WITHOUT_DISK)
        self._step_tokens = step_tokens
        self._max_running = max_running
        self._drafts = drafts if model.predicts_ahead else 0
        self._pace = Pace(step_tokens, step_seconds)
        self._waiting: deque[Job] = deque()
        self._branches: list[Branch] = []  # in order of admission
        self._events: dict[Handle, list[Event]] = {}
        self._serial = 0

    @property
    def idle(self) -> bool:
        """Nobody runs or waits."""
        return not (self._branches or self._waiting)

    def accept(self, job: Job) -> None:
        """Put a job at the end of the queue."""
        self._waiting.append(job)
        self.stats.requests += 1

    def cancel(self, handle: Handle) -> None:
        """End a request, wherever it is; harmless if it has ended already."""
        for job in [job for job in self._waiting if job.handle is handle]:
            self._waiting.remove(job)
            self._end_waiting(job)
        for branch in [branch for branch in self._branches if branch.job.handle is handle]:
            self._end(branch, "cancelled")

    def cancel_all(self) -> None:
        """End every request."""
        while self._waiting:
            self._end_waiting(self._waiting.popleft())
        while self._branches:
            self._end(self._branches[-1], "cancelled")

    def close(self) -> None:
        """Return when every reply that was to be stored is, and has been told so."""
        self._storing.close()

    def fail_all(self, error: Exception) -> None:
        """End all that run with an error."""
        while self._branches:
            self._fail(self._branches[-1], error)

    def deliver(self) -> None:
        """Hand the events so far to those who wait for them: once a step, so that a reader wakes once."""
        for handle, events in self._events.items():
            handle.put(events)
        self._events.clear()
        self.stats.running = sum(len(branch.choices) for branch in self._branches)
        self.stats.following = sum(branch.cursor is None for branch in self._branches)
        self.stats.waiting = len(self._waiting)

    def _emit(self, job: Job, event: Event) -> None:
        self._events.setdefault(job.handle, []).append(event)

    # --- admission ---

    def _admit(self) -> None:
        running = sum(len(branch.choices) for branch in self._branches)
        while self._waiting and running + self._waiting[0].settings.n <= self._max_running:
            if sum(placing.needs(branch, self._model.layout) for branch in self._branches) > self._memory:
                return  # those who run need all the memory that there is: let one of them end first
            job = self._waiting.popleft()
            running += job.settings.n
            job.admitted = time.perf_counter()
            self.stats.prompt_tokens += len(job.prompt)
            self.stats.queue_seconds.observe(job.admitted - job.submitted)
            branch = Branch(job, range(job.settings.n), self._next_serial(), self._tokenizer)
            self._branches.append(branch)
            self._guarded(branch, self._place, branch)

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _place(self, branch: Branch) -> None:
        """Find the branch its place: behind another one that computes what it needs, or in the tree."""
        match = self._tree.match(branch.job.prompt)
        branch.following = find_leader(branch, self._branches, match.resume)
        if branch.following is None:
            placing.from_tree(branch, self._tree, match, self._tokenizer)
            self._placed(branch)
            return
        leader, meet = branch.following.leader, branch.following.meet
        for cursor in (leader.cursor, leader.mark):
            if cursor is not None and cursor.position == meet and not branch.following.in_tree:
                self._take_over(branch, leader, cursor)
                break

    def _take_over(self, branch: Branch, leader: Branch, place: Cursor) -> None:
        """Go on from where a cursor of the leader's stands."""
        placing.from_leader(branch, leader, place, self._tokenizer)
        self._placed(branch)

    def _placed(self, branch: Branch) -> None:
        self.stats.reused_tokens += branch.job.start
        self._reached(branch)

    # --- a step ---

    def step(self) -> None:
        """Admit whom there is room for, and run every branch that can run one span on."""
        self._admit()
        ran: list[tuple[Branch, Span]] = []
        for branch, count in self._choose():
            try:
                span = self._span(branch, count)
                self.sight.show(span, branch.job.request)
                ran.append((branch, span))
            except Exception as error:
                self._fail(branch, error)
        if not ran:
            return
        began = time.perf_counter()
        try:
            drafting.fill(self._model, [branch for branch, _ in ran if branch.trial])
            logits = self._model.forward([span for _, span in ran])
        except Exception as error:
            self._recover([branch for branch, _ in ran], error)
            return
        rows = logits.numpy()
        seconds = time.perf_counter() - began
        self._pace.observe(sum(len(span.tokens) for _, span in ran), seconds)
        self.stats.steps += 1
        self.stats.step_seconds.observe(seconds)
        for branch, span in ran:  # all of them before anything else: one may be forked on behalf of another
            cursor = branch.trial.cursor if branch.trial else branch.cursor
            assert cursor is not None
            cursor.advance(len(span.tokens))
        row = 0
        for branch, span in ran:
            after = self._judge if branch.trial else self._ran
            self._guarded(branch, after, branch, len(span.tokens), rows[row : row + span.logits])
            row += span.logits

    def _span(self, branch: Branch, count: int) -> Span:
        """The branch's next `count` tokens, or all that are known and guesses behind them."""
        if guesses := drafting.guesses(branch, self._drafts, self._model.context_length):
            return drafting.begin(branch, guesses).span
        assert branch.cursor is not None
        start = branch.cursor.position
        last = start + count == len(branch.tokens)
        wanted = last and branch.reason is None and branch.job.settings.max_tokens != 0
        branch.before = None
        return branch.cursor.span(branch.tokens[start : start + count], logits=int(wanted))

    def _choose(self) -> list[tuple[Branch, int]]:
        """Who runs how many tokens in this step: every reply one, and a share of the budget for the prompts."""
        ready = [branch for branch in self._branches if branch.cursor is not None]
        meets: dict[Branch, list[int]] = {}
        for branch in self._branches:
            if branch.following is not None and not branch.following.in_tree:
                meets.setdefault(branch.following.leader, []).append(branch.following.meet)
        for branch in ready:
            if branch.alone:
                return [(branch, min(branch.stretch(meets.get(branch, [])), self._step_tokens))]
        known = drafting.MOST_KNOWN
        replies = [branch for branch in ready if branch.prompt_done and len(branch.tokens) - branch.position <= known]
        prompts = [branch for branch in ready if branch not in replies]
        counts = share_prefill(
            [len(branch.tokens) - branch.position for branch in prompts],
            [branch.stretch(meets.get(branch, [])) for branch in prompts],
            self._pace.budget(bool(replies)),
        )
        chosen = [(branch, branch.reply_stretch()) for branch in replies]
        return chosen + [(branch, count) for branch, count in zip(prompts, counts, strict=True) if count]

    def _ran(self, branch: Branch, count: int, rows: NDArray[np.float32]) -> None:
        """The branch's span of `count` tokens was run; `rows`: the logits of its last token, if it asked for them."""
        branch.alone = False
        self.stats.computed_tokens += 0 if branch.prompt_done else count
        self._reached(branch)
        if not len(rows):
            return
        if not branch.job.answered:
            branch.job.answered = time.perf_counter()
            self.stats.first_token_seconds.observe(branch.job.answered - branch.job.submitted)
        for each in self._forked(branch):
            self._guarded(each, self._draw, each, rows[0])

    def _judge(self, branch: Branch, count: int, rows: NDArray[np.float32]) -> None:
        """The branch's known tokens were run with guesses behind them, `count` in all: those that are drawn stay."""
        trial = branch.trial
        assert trial is not None
        guessed, accepted = [*trial.guessed, -1], 0
        for row, guess in zip(rows, guessed, strict=True):
            self._emit_drawn(branch, row)
            if branch.reason is not None or branch.tokens[-1] != guess:
                break
            accepted += 1
        self.stats.drafted_tokens += trial.count
        self.stats.accepted_tokens += accepted
        if drafting.settle(branch, accepted):
            self._reached(branch)

    def _reached(self, branch: Branch) -> None:
        """Do what is to be done at the position that the branch has reached."""
        cursor, job = branch.cursor, branch.job
        assert cursor is not None
        position = cursor.position
        if position in branch.save_points or (branch.prompt_done and saves_in_reply(position - len(job.prompt))):
            cursor.save()
            branch.saved.append(position)
        branch.commit_prompt()
        if branch.mark is None and position in branch.save_points[-1:] and position > cursor.node.end:
            branch.mark = cursor.fork()
        for follower, following in self._followers(branch):
            if following.in_tree and cursor.node.end >= following.meet:
                self._guarded(follower, self._place, follower)
            elif not following.in_tree and following.meet == position:
                if position not in branch.saved and position < min(len(job.prompt), len(follower.job.prompt)) - 1:
                    cursor.save()  # where two have parted, others will
                    branch.saved.append(position)
                self._guarded(follower, self._take_over, follower, branch, cursor)
        if position == len(branch.tokens) and (branch.reason is not None or job.settings.max_tokens == 0):
            branch.reason = branch.reason or "length"
            self._finish(branch)

    def _followers(self, leader: Branch) -> list[tuple[Branch, Following]]:
        found = [(branch, branch.following) for branch in self._branches]
        return [(branch, following) for branch, following in found if following and following.leader is leader]

    def _forked(self, branch: Branch) -> list[Branch]:
        """The branches that draw from the logits just computed: where the prompt ends, one for each of n replies."""
        branch.prompt_done = True
        if len(branch.choices) == 1:
            return [branch]
        assert branch.cursor is not None
        cursor = branch.cursor
        others = [branch.split(i, self._next_serial(), cursor.fork()) for i in branch.choices[1:]]
        branch.choices = branch.choices[:1]
        index = self._branches.index(branch) + 1
        self._branches[index:index] = others
        return [branch, *others]

    def _draw(self, branch: Branch, row: NDArray[np.float32]) -> None:
        assert branch.cursor is not None
        self._emit_drawn(branch, row)
        if branch.reason is not None and branch.cursor.position == len(branch.tokens):
            self._finish(branch)

    def _emit_drawn(self, branch: Branch, row: NDArray[np.float32]) -> None:
        event = branch.draw(row, self._model.context_length)
        self.stats.reply_tokens += 1
        if event is not None:
            self._emit(branch.job, event)

    # --- ends ---

    def _finish(self, branch: Branch) -> None:
        """The reply is whole and run: make it a node and say so."""
        job = branch.job
        assert branch.reason is not None
        rest = branch.rest()
        reason: FinishReason = branch.reason
        message = None
        if branch.drawn and job.request.parse_reply is not None:
            message = job.request.parse_reply(branch.text)
            if reason == "stop" and message is not None and message.get("tool_calls"):
                reason = "tool_calls"
        node = branch.commit_reply(message)
        if reason == "tool_calls":
            self._tree.pin(node, job.request.pin_seconds)
        self._end(branch, reason, node=node, text=rest, message=message)

    def _end(
        self,
        branch: Branch,
        reason: FinishReason,
        *,
        node: Node | None = None,
        text: str = "",
        message: Message | None = None,
        error: str | None = None,
    ) -> None:
        """Let go of the branch and send the last event of each reply that it stands for."""
        self._branches.remove(branch)
        branch.close()
        for choice in branch.choices:
            self.stats.finished[reason] += 1
            event = FinishEvent(
                reason=reason,
                usage=branch.job.usage(branch.computed, branch.drawn),
                text_delta=text,
                choice=choice,
                node=None if node is None else node.id,
                message=message,
                stop=branch.stop,
                error=error,
            )
            if node is not None and branch.job.request.store:
                branch.job.handle.put(self._events.pop(branch.job.handle, []))  # all that came before
                self._storing.finish(branch.job.handle, node, event)
            else:
                self._emit(branch.job, event)
        for follower, _ in self._followers(branch):
            self._guarded(follower, self._place, follower)

    def _end_waiting(self, job: Job) -> None:
        for choice in range(job.settings.n):
            self.stats.finished["cancelled"] += 1
            self._emit(job, FinishEvent("cancelled", job.usage(0, 0), choice=choice))

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
            _log.error("request %r failed", branch.job.request.label, exc_info=error)
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
        if branch.trial is not None:
            branch.trial.cursor.close()
        branch.trial = branch.before = None
        branch.cursor = self._tree.open(branch.tokens, limit=len(branch.tokens) - 1, boundaries=branch.job.boundaries)
        branch.cursor.expect(branch.job.expected)
        branch.alone = True
