"""What the engine keeps for a request while it runs: the job, and its branches, one for each reply."""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ramet.chat import Tokenizer
from ramet.engine.grammar import Matcher
from ramet.engine.handle import Handle
from ramet.engine.request import Divergence, FinishReason, Message, Request, Sampling, TokenEvent, Usage
from ramet.engine.sampling import Sampler, log_probabilities
from ramet.engine.schedule import save_points, until_save_in_reply
from ramet.engine.stop import StopStrings
from ramet.models.pictures import session_tokens
from ramet.models.states import Span
from ramet.tree import Bill, Cursor, Node


@dataclass(eq=False)
class Job:
    """A submitted request and what it has cost so far."""

    request: Request
    settings: Sampling
    """The request's sampling with nothing left open."""
    handle: Handle
    matcher: Matcher | None
    """At the start of the request's grammar."""
    prompt: NDArray[np.int32] = field(init=False)
    """By which the tree knows it: the request's tokens, with those of the pictures' own in their rows."""
    boundaries: list[int] = field(init=False)
    """Where nodes end in the prompt; a prompt without messages is one node."""
    start: int = 0
    """How many of the prompt's tokens were reused."""
    divergence: Divergence | None = None
    submitted: float = field(default_factory=time.perf_counter)
    admitted: float = 0.0
    answered: float = 0.0
    """When the prompt was through and the first token drawn."""

    def __post_init__(self) -> None:
        self.prompt = session_tokens(self.request.tokens, self.request.pictures)
        self.boundaries = list(self.request.boundaries) or [len(self.prompt)]

    @property
    def limit(self) -> int:
        """The most that can be reused: to draw a token, at least the prompt's last one has to run."""
        return len(self.prompt) - (0 if self.settings.max_tokens == 0 else 1)

    @property
    def expected(self) -> list[int]:
        """Where the caller expects later requests to leave, as far as states are saved there."""
        return [min(position, len(self.prompt) - 1) for position in self.request.save_at]

    def usage(self, computed: int, completion_tokens: int) -> Usage:
        """The bill so far, for a reply of `completion_tokens` for which `computed` tokens of the prompt were run."""
        now = time.perf_counter()
        admitted = self.admitted or now
        answered = self.answered or now
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=completion_tokens,
            computed=computed,
            reused=self.start,
            queue_seconds=admitted - self.submitted,
            prompt_seconds=answered - admitted,
            reply_seconds=now - answered,
            divergence=self.divergence,
        )


@dataclass(frozen=True)
class Following:
    """What a branch without a cursor waits for."""

    leader: Branch
    """The branch that is computing the prefix that both share."""
    meet: int
    """Where this branch takes over from its leader, which stops there for a moment."""
    in_tree: bool = False
    """Instead of taking over, look into the tree again once the leader has committed up to `meet`."""


@dataclass(frozen=True)
class Trial:
    """Tokens of a reply that are run with guesses behind them: see `drafting`."""

    cursor: Cursor
    span: Span
    known: int
    """Tokens of the span that are no guesses."""

    @property
    def count(self) -> int:
        """How many are."""
        return len(self.span.tokens) - self.known

    @property
    def guessed(self) -> list[int]:
        """The guesses."""
        tokens: list[int] = self.span.tokens[self.known :].tolist()
        return tokens


class Branch:
    """One reply in the making: its tokens, its place in the tree, and how its next token is chosen."""

    def __init__(self, job: Job, choices: range, serial: int, tokenizer: Tokenizer) -> None:
        """`choices`: the replies that it stands for; all n of the request until the prompt is through."""
        self.job = job
        self.choices = choices
        self.serial = serial
        """Order of admission. A branch only ever waits for an earlier one."""
        self.tokens = job.prompt.tolist()
        self.cursor: Cursor | None = None
        self.following: Following | None = None
        self.mark: Cursor | None = None
        """A fork near the prompt's end, for those who ask the same while the reply is written: until its node is
        committed, the states saved behind the last message are not in the tree."""
        self.save_points: list[int] = []
        self.saved: list[int] = []
        """Where states were saved, in order."""
        self.prompt_done = False
        self.trial: Trial | None = None
        """Within a step."""
        self.before: Tensor | None = None
        """For guesses: what the output layer saw at each known token that has to run again, but the last."""
        self.luck = 1.0
        """The share of guesses that came true, of late."""
        self.alone = False
        """To be run without company: it was part of a step that failed."""
        self._committed = 0.0  # when the last node was, for bills
        self.reason: FinishReason | None = None
        """Set once nothing more is to be drawn; the last token may still have to run."""
        self.stop: str | int | None = None
        self.text = ""
        """The reply's text, without what is held back."""
        self._tokenizer = tokenizer
        self._sampler = Sampler(job.settings, job.request.tokens, choices.start, tokenizer.vocab_size)
        self._matcher = job.matcher.copy() if job.matcher else None
        self._decoder = tokenizer.stream()
        self._stops = StopStrings(job.settings.stop)
        self._end_ids = tokenizer.eos_ids
        self.drawn = 0
        """Tokens of the reply, the one that ends it included."""

    @property
    def position(self) -> int:
        """Where it stands, or will stand when it takes over from its leader."""
        if self.cursor is not None:
            return self.cursor.position
        return self.following.meet if self.following else 0

    @property
    def computed(self) -> int:
        """How many tokens of the prompt were run for it so far."""
        reached = min(self.cursor.position, len(self.job.prompt)) if self.cursor is not None else 0
        return max(0, reached - self.job.start)

    def close(self) -> None:
        """Let go of everything in the tree."""
        for cursor in (self.cursor, self.mark, None if self.trial is None else self.trial.cursor):
            if cursor is not None:
                cursor.close()

    def begin(self, cursor: Cursor) -> None:
        """Run from where `cursor` stands."""
        self.cursor = cursor
        self.following = None
        self.job.start = cursor.position
        self._committed = time.perf_counter()
        self.save_points = save_points(
            len(self.job.prompt), cursor.position, self.job.boundaries, self.job.request.save_at
        )

    def commit_prompt(self) -> None:
        """Make nodes of the messages that have been run."""
        assert self.cursor is not None
        messages = self.job.request.messages
        for index, end in enumerate(self.job.boundaries):
            if self.cursor.node.end < end <= self.cursor.position:
                message = messages[index] if messages else None
                bill = self._bill(self.cursor.node.end, end)
                self.cursor.commit(end, message=None if message is None else dict(message), bill=bill)

    def commit_reply(self, message: Message | None) -> Node:
        """Make a node of what was run behind the prompt, if anything was; the node that the session ends with."""
        assert self.cursor is not None
        self.cursor.expect([*self.job.expected, self.cursor.position])  # it may go on from the reply, too
        self.cursor.save()
        start, end = self.cursor.node.end, self.cursor.position
        if end == start:
            return self.cursor.node
        return self.cursor.commit(
            end,
            message=None if message is None else dict(message),
            bill=self._bill(start, end),
            reply=self._tokenizer.decode(self.tokens[start:], specials=True) if self.drawn else None,
        )

    def _bill(self, start: int, end: int) -> Bill:
        """What the tokens from `start` to `end` cost; the time since the last bill."""
        now = time.perf_counter()
        computed = end - min(max(start, self.job.start), end)
        bill = Bill(computed=computed, reused=end - start - computed, seconds=now - self._committed)
        self._committed = now
        return bill

    def stretch(self, meets: list[int]) -> int:
        """How many tokens can run until the next save point, or place where a follower takes over."""
        position = self.position
        end = len(self.tokens)
        index = bisect_right(self.save_points, position)
        if index < len(self.save_points):
            end = min(end, self.save_points[index])
        return min([end, *(meet for meet in meets if meet > position)]) - position

    def reply_stretch(self) -> int:
        """How many of a reply's known tokens to run next: up to where a state is to be saved."""
        return min(len(self.tokens) - self.position, until_save_in_reply(self.position - len(self.job.prompt)))

    def split(self, choice: int, serial: int, cursor: Cursor) -> Branch:
        """Another reply to the same prompt, which is through; `cursor` is a fork."""
        other = Branch(self.job, range(choice, choice + 1), serial, self._tokenizer)
        other.cursor = cursor
        other.prompt_done = True
        other._committed = self._committed
        other.saved = list(self.saved)
        return other

    def draw(self, row: NDArray[np.float32], context_length: int) -> TokenEvent | None:
        """Choose the next token from its logits `[vocab]`; sets `reason` if it is the last. None for an end token."""
        settings = self.job.settings
        token = self._sampler.draw(row, self._matcher.allowed() if self._matcher else None)
        self.drawn += 1
        ends = token in self._end_ids and (self._matcher is not None or not settings.ignore_eos)
        if ends or token in settings.stop_token_ids:
            self.reason, self.stop = "stop", token
            if token == self._end_ids[0] and len(self.tokens) < context_length:
                # The end of the turn is part of the reply's node: the next turn begins behind it.
                self.tokens.append(token)
            return None
        self.tokens.append(token)
        complete = self._matcher is not None and self._matcher.feed(token)
        delta, stop = self._stops.feed(self._decoder.feed(token))
        self.text += delta
        if stop is not None:
            self.reason, self.stop = "stop", stop
        elif complete:
            self.reason = "stop"
        elif self.drawn == settings.max_tokens or len(self.tokens) >= context_length:
            self.reason = "length"
        if settings.logprobs is None:
            return TokenEvent(token, delta, self.choices.start)
        logprob, top = log_probabilities(row, token, settings.logprobs, self._tokenizer.vocab_size)
        return TokenEvent(token, delta, self.choices.start, logprob, top)

    def rest(self) -> str:
        """Text that was held back and is now certain."""
        if isinstance(self.stop, str):
            return ""
        delta, stop = self._stops.feed(self._decoder.finish())
        if stop is None:
            delta += self._stops.rest()
        self.text += delta
        return delta
