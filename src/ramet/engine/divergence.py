"""Why a request could not reuse more: where it left the tree, and who is to blame."""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ramet.chat import Tokenizer
from ramet.engine.request import Cause, Divergence, Message, Request
from ramet.engine.schedule import SMALLEST_PREFIX

_ROLE = ("role",)
_WORDS = ("content", "tool_calls", "tool_call_id", "name")


@dataclass(frozen=True)
class Departure:
    """The place where a request and what is already there become different."""

    position: int
    """Tokens in common."""
    there: int | None
    """The next token of what is there; None where it ends."""
    message: Message | None
    """The message that `there` belongs to, if known."""
    following: Sequence[Message] = ()
    """Messages that come after it."""
    generated: bool = False
    """Whether a model wrote `there`."""


def explain(request: Request, departure: Departure, lost: int, resume: int, tokenizer: Tokenizer) -> Divergence | None:
    """Why `request` reuses no more than it does; None if it only goes on from where the tree ends.

    `lost` is the number of tokens before the departure that have to be run again, from `resume` on, because no state
    was there any more.
    """
    left = departure.there is not None and departure.position < len(request.tokens)
    if left:
        position, there, cause = departure.position, departure.there, cause_of(request, departure)
    elif lost >= SMALLEST_PREFIX:
        position, there, cause = resume, request.tokens[resume], "evicted"
    else:
        return None
    came = request.tokens[position]
    return Divergence(
        position=position,
        there=there,
        there_text=None if there is None else _text(there, tokenizer),
        came=came,
        came_text=tokenizer.decode([came], specials=True),
        cause=cause,
        lost=lost,
    )


def _text(token: int, tokenizer: Tokenizer) -> str:
    return "(a picture)" if token < 0 else tokenizer.decode([token], specials=True)


def cause_of(request: Request, departure: Departure) -> Cause:
    """Compare the messages on both sides of a departure.

    The same message in other words: the template rewrote it. The same role but other content, in a conversation that
    was known before or that goes on alike: it was edited. A first message whose tools differ: the tools were changed.
    Behind a node that the request chose to go on from, others have gone on before it: a fork. All else, such as the
    first question of another conversation under the same system prompt, is new.
    """
    if 0 < request.continued <= departure.position:
        return "fork"
    if len(request.messages) != len(request.boundaries):
        return "new"
    index = bisect_right(request.boundaries, departure.position)
    known = [message for message in request.messages[:index] if message is not None]
    conversed = any(message.get("role") not in ("system", "developer") for message in known)
    ours = request.messages[index] if index < len(request.messages) else None
    theirs = departure.message
    if ours is None:  # the prompt's own end: a reply is asked for again
        return "new"
    if theirs is None:
        return "message_edited" if departure.generated and ours.get("role") == "assistant" else "new"
    if _same(ours, theirs, _ROLE + _WORDS):
        return "tools_changed" if not _same(ours, theirs, ("tools",)) else "history_rewritten"
    goes_on_alike = _meet(request.messages[index + 1 :], departure.following)
    if index == 0 and not _same(ours, theirs, ("tools",)) and (goes_on_alike or _same(ours, theirs, _ROLE)):
        return "tools_changed"
    if _same(ours, theirs, _ROLE) and (conversed or goes_on_alike):
        return "message_edited"
    return "new"


def _meet(ours: Sequence[Message | None], theirs: Sequence[Message]) -> bool:
    """Whether both conversations go on with the same message."""
    first = next((message for message in ours if message is not None), None)
    return bool(first is not None and theirs and _same(first, theirs[0], _ROLE + _WORDS))


def _same(ours: Message, theirs: Message, keys: Sequence[str]) -> bool:
    return all(_plain(ours.get(key)) == _plain(theirs.get(key)) for key in keys)


def _plain(value: Any) -> Any:
    """Content without what does not count: blanks at the ends, parts or one text, absent or empty, ids of calls."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, list):
        if value and all(isinstance(part, dict) and part.get("type") in ("text", "input_text") for part in value):
            return "".join(str(part.get("text", "")) for part in value).strip() or None
        return [_plain(_call(part)) for part in value] or None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()} or None
    return value


def _call(part: Any) -> Any:
    """A tool call as name and arguments."""
    if not isinstance(part, dict) or "function" not in part or "type" not in part:
        return part
    function = part["function"]
    if not isinstance(function, dict) or "arguments" not in function:
        return part
    arguments = function["arguments"]
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            arguments = json.loads(arguments)
    return {"name": function.get("name"), "arguments": arguments}
