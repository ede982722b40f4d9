"""What callers hand to the engine and what they get back: requests, sampling settings, events, usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

from ramet.engine.grammar import Grammar
from ramet.errors import RametError
from ramet.models.base import Model
from ramet.models.pictures import Placed

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]

Message = Mapping[str, Any]
"""A chat message in OpenAI's form: role, content, tool_calls, ..."""

Cause = Literal["evicted", "fork", "history_rewritten", "message_edited", "tools_changed", "new"]


class RequestError(RametError):
    """A request that cannot be run as it stands."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `None` means: what the checkpoint's generation_config.json says, else the neutral value.

    Applied in this order: penalties, logit_bias, (grammar), temperature, top_k, top_p, min_p.
    """

    temperature: float | None = None
    """0 (and anything below 1e-5) picks the likeliest token."""
    top_p: float | None = None
    top_k: int | None = None
    """0 is off."""
    min_p: float | None = None
    repetition_penalty: float | None = None
    """Divides (multiplies, where negative) the logit of every token in the prompt or the reply; 1 is off."""
    frequency_penalty: float = 0.0
    """Subtracted once for every time that the token is in the reply."""
    presence_penalty: float | None = None
    """Subtracted once for every token that is in the reply."""
    seed: int | None = None
    """The same seed gives the same tokens, whatever else is running. `None` draws one."""
    max_tokens: int | None = None
    """`None`: up to the end of the context. 0 runs the prompt and stops."""
    stop: tuple[str, ...] = ()
    """Strings that end the reply; not part of its text."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    """Go on past the model's own end tokens (for benchmarks)."""
    logprobs: int | None = None
    """`None`: no log probabilities. k: that of the token and of the k likeliest, before penalties and temperature."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    n: int = 1
    """How many replies: the prompt runs once and is forked."""

    def over(self, defaults: Sampling) -> Sampling:
        """These settings, with `defaults` where a field is `None`."""
        missing = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **missing)


@dataclass(frozen=True)
class Request:
    """A prompt to be continued."""

    tokens: Sequence[int]
    boundaries: Sequence[int] = ()
    """Ascending positions in `tokens` where a message ends; each becomes the end of a node."""
    messages: Sequence[Message | None] = ()
    """The message that ends at each boundary (the same length as `boundaries`), or empty."""
    save_at: Sequence[int] = ()
    """Positions where a later request is expected to leave this one: states are saved there."""
    pictures: Sequence[Placed] = ()
    """The pictures that the prompt shows, in order; their rows, in `tokens`, are marks of the vocabulary."""
    continued: int = 0
    """How many of the tokens the caller took from a node that it chose to go on from."""
    sampling: Sampling = Sampling()
    grammar: Grammar | None = None
    parse_reply: Callable[[str], Mapping[str, Any] | None] | None = None
    """Text of a finished reply -> its message, kept with the reply's node. A message with `tool_calls` ends the reply
    with reason "tool_calls" and pins its node. Runs on the engine's thread: must be quick."""
    pin_seconds: float = 300.0
    """How long the states of a reply that calls tools are kept from eviction."""
    store: bool = False
    """Have the reply's node durable on disk before its FinishEvent."""
    label: str = ""
    """A name for logs."""


def check_request(request: Request, model: Model, max_running: int) -> None:
    """Raise RequestError, naming what is wrong, if `model` can never run the request with `max_running` replies."""
    length, context = len(request.tokens), model.context_length
    if not length:
        raise RequestError("the prompt is empty: it needs at least one token")
    if length > context or (length == context and request.sampling.max_tokens != 0):
        raise RequestError(
            f"the prompt has {length} tokens; the model's context of {context} leaves no room for a reply"
        )
    if min(request.tokens) < 0 or max(request.tokens) >= model.vocab_size:
        wrong = next(i for i, token in enumerate(request.tokens) if not 0 <= token < model.vocab_size)
        raise RequestError(
            f"token {request.tokens[wrong]} at position {wrong} of the prompt is not in the model's vocabulary "
            f"(0 to {model.vocab_size - 1})"
        )
    if any(end >= later for end, later in pairwise([0, *request.boundaries, length + 1])):
        raise RequestError(f"boundaries must ascend from 1 to at most {length}")
    if request.messages and len(request.messages) != len(request.boundaries):
        raise RequestError(f"{len(request.messages)} messages for {len(request.boundaries)} boundaries")
    if any(not 0 <= position <= length for position in request.save_at):
        raise RequestError(f"save_at must lie in 0 to {length}")
    if request.pictures and model.visual is None:
        raise RequestError("the prompt shows pictures, but this model reads text only")
    if any(before.end >= each.position for before, each in pairwise(request.pictures)) or any(
        not 0 < each.position < each.end <= length for each in request.pictures
    ):
        raise RequestError(f"pictures must come one after the other, each behind its mark, within 1 to {length}")
    if request.sampling.n > max_running:
        raise RequestError(f"n is {request.sampling.n}; at most {max_running} replies can run at once")


@dataclass(frozen=True)
class Divergence:
    """Where a request left the tree, and why."""

    position: int
    """The first token that is not in the tree; for cause "evicted", the position from which it had to be run again."""
    there: int | None
    """The token in the tree at `position`, if any."""
    there_text: str | None
    came: int
    """The request's token at `position`."""
    came_text: str
    cause: Cause
    lost: int
    """Tokens that the tree knew and that were computed again nevertheless (their states were gone)."""


@dataclass(frozen=True)
class Usage:
    """What a request cost. The prompt's figures are the request's and the same for each of its n choices."""

    prompt_tokens: int
    completion_tokens: int
    computed: int
    """Prompt tokens that were run for this request."""
    reused: int
    """Prompt tokens that did not have to be run: the rest, unless the request ended before its prompt was through."""
    queue_seconds: float = 0.0
    prompt_seconds: float = 0.0
    """From admission to the first sampled token."""
    reply_seconds: float = 0.0
    divergence: Divergence | None = None


@dataclass(frozen=True)
class TokenEvent:
    """One sampled token. Stop tokens (eos) give no TokenEvent."""

    token: int
    text_delta: str
    """Text that is now certain: may be empty (half a character, or what could become a stop string)."""
    choice: int = 0
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    """(token, logprob), likeliest first."""


@dataclass(frozen=True)
class FinishEvent:
    """The last event of a choice."""

    reason: FinishReason
    usage: Usage
    text_delta: str = ""
    """Text that was held back and is now certain. Add it to the TokenEvents' texts."""
    choice: int = 0
    node: str | None = None
    """Id of the node that ends with this reply."""
    message: Mapping[str, Any] | None = None
    """What Request.parse_reply made of the text."""
    stop: str | int | None = None
    """The stop string, or the stop token, that ended the reply."""
    error: str | None = None
    """For reason "error": what went wrong, for people."""


Event = TokenEvent | FinishEvent


@dataclass
class Completion:
    """A whole reply, collected."""

    choice: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finish: FinishEvent | None = None
