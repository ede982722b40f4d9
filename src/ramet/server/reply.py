"""A choice's reply: the pieces in which it comes, and what they amount to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ramet.chat import Event as ChatEvent
from ramet.chat import Note, assistant_message
from ramet.engine import FinishEvent


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the reply's text with its log probability and those of the likeliest others, as (token, logprob)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """The next part of one choice's reply: what the parser made of it, and its text's log probabilities."""

    choice: int
    events: list[ChatEvent]
    logprobs: list[TokenLogprob]
    reasoning_tokens: int = 0
    """How many of the tokens behind this piece were spent on reasoning."""
    finish: FinishEvent | None = None
    """Set on the choice's last piece."""


@dataclass
class Reply:
    """One choice's reply so far."""

    events: list[ChatEvent] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reasoning_tokens: int = 0
    finish: FinishEvent | None = None

    def add(self, piece: Piece) -> None:
        """Take in the reply's next piece."""
        self.events += piece.events
        self.logprobs += piece.logprobs
        self.reasoning_tokens += piece.reasoning_tokens
        self.finish = piece.finish or self.finish

    @property
    def done(self) -> FinishEvent:
        """How it ended; only once it has."""
        assert self.finish is not None
        return self.finish

    @property
    def notes(self) -> list[str]:
        """What was wrong with calls and thoughts that came out as text."""
        return [event.message for event in self.events if isinstance(event, Note)]

    def message(self) -> dict[str, Any]:
        """The reply as an assistant message in OpenAI's chat form."""
        return assistant_message(self.events)
