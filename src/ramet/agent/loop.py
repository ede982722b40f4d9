"""A model that calls tools: its calls are run, their results go back to it, until it answers without any."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from ramet.engine import FinishEvent
from ramet.errors import RametError

T = TypeVar("T")

Message = Mapping[str, Any]
"""In OpenAI's chat form."""
Ask = Callable[[list[Message], bool], Generator[T | FinishEvent]]
"""(new messages, whether the reply may call tools) -> the reply in pieces, a FinishEvent last."""

ROUNDS = 8
"""How often calls are run before the model must answer."""
_AT_ONCE = 8
_LONGEST = 16_000
"""Characters of a result that the model is shown."""


@dataclass(frozen=True)
class Toolbox:
    """Tools that a model may call."""

    tools: Sequence[dict[str, Any]]
    """In OpenAI's form."""
    run: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
    """Runs a call by name and arguments. What it raises goes to the model as `{"error": ...}`. Called from threads."""
    refuse: Callable[[str, Mapping[str, Any]], str | None] = lambda name, arguments: None
    """Why a call must not be run, which the model is told; None: it is run. Called where the events of `run` are taken,
    one call after another and before any is run: here the user may be asked."""


@dataclass(frozen=True)
class Calling:
    """A call that is about to be run."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@dataclass(frozen=True)
class Called:
    """A call that was run."""

    call: Calling
    result: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the result is an error, which the model is told."""
        return "error" in self.result


def run(
    ask: Ask[T], said: Sequence[Message], toolbox: Toolbox, *, rounds: int = ROUNDS
) -> Generator[T | FinishEvent | Calling | Called]:
    """Ask with the new messages `said`, run what is called, ask with the results, and so on; gives all that happens.

    The calls of one reply run at once; their outcomes come in the order of the calls. After `rounds` rounds of calls
    `ask` is told that no more are allowed; what a reply that ends otherwise than with "tool_calls" calls is not run.
    Closing the generator stops it wherever it is; a call that runs just then is left to end by itself.
    """
    new = list(said)
    for left in range(rounds, -1, -1):
        calls: list[Calling] = []
        with closing(ask(new, left > 0)) as pieces:
            for piece in pieces:
                if isinstance(piece, FinishEvent) and piece.reason == "tool_calls" and left:
                    calls = [_calling(call) for call in (piece.message or {}).get("tool_calls") or ()]
                yield piece
        if not calls:
            return
        yield from calls
        new = []
        prepared = [_prepared(toolbox, call) for call in calls]
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            outcomes = [pool.submit(_outcome, toolbox, *pair) for pair in zip(calls, prepared, strict=True)]
            for call, outcome in zip(calls, outcomes, strict=True):
                called = Called(call, outcome.result())
                new.append({"role": "tool", "tool_call_id": call.id, "content": _shown(called.result)})
                yield called
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _calling(call: Mapping[str, Any]) -> Calling:
    function = call["function"]
    return Calling(call["id"], function["name"], function["arguments"])


def _prepared(toolbox: Toolbox, call: Calling) -> dict[str, Any] | str:
    """The arguments of a call, or why it is not run."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError as error:
        return f"the arguments are not JSON: {error}"
    if not isinstance(arguments, dict):
        return "the arguments must be a JSON object"
    try:
        refused = toolbox.refuse(call.name, arguments)
    except RametError as error:
        return str(error)
    return arguments if refused is None else refused


def _outcome(toolbox: Toolbox, call: Calling, prepared: dict[str, Any] | str) -> Mapping[str, Any]:
    """The result of a call, or why it has none."""
    if isinstance(prepared, str):
        return {"error": prepared}
    try:
        return toolbox.run(call.name, prepared)
    except RametError as error:
        return {"error": str(error)}
    except Exception as error:  # the model may have another way
        return {"error": f"the tool failed: {type(error).__name__}: {error}"}


def _shown(result: Mapping[str, Any]) -> str:
    text = json.dumps(result, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text) - _LONGEST:,} characters more)"
