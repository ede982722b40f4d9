"""The memory as tools of an agent: `remember`, `recall` and `forget`, in words that a model understands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ramet.memory.base import MemoryStoreError
from ramet.memory.jsonl import as_object, as_time
from ramet.memory.memory import Memory

_TEXT, _NUMBER = {"type": "string"}, {"type": "integer", "minimum": 1, "maximum": 100}


def _schema(name: str, description: str, required: list[str], **properties: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS: list[dict[str, Any]] = [
    _schema(
        "remember",
        "Store something that was said, to be recalled in later conversations. Returns its id.",
        ["text"],
        text=_TEXT,
        speaker=_TEXT,
        conversation={**_TEXT, "description": "Name of the conversation it belongs to"},
        time={**_TEXT, "description": "When it was said, ISO 8601. Leave out if it is not known"},
    ),
    _schema(
        "recall",
        "Find what was said in earlier conversations about a question, best first.",
        ["question"],
        question=_TEXT,
        conversation={**_TEXT, "description": "Only in this conversation"},
        count=_NUMBER,
        time={**_TEXT, "description": "When it is asked, ISO 8601: what 'yesterday' counts from"},
    ),
    _schema(
        "forget",
        "Remove what was stored, and everything derived from it, by its ids. There is no way back. `nodes` in the "
        "result are places in the user's session tree that still have the text.",
        ["ids"],
        ids={"type": "array", "items": _TEXT},
    ),
]
"""In the form of OpenAI's Chat Completions."""


def call(memory: Memory, name: str, arguments: Mapping[str, Any], conversation: str = "notes") -> dict[str, Any]:
    """Run a tool. The result is for the model; so is an error, as `{"error": ...}`, which says what to do.

    `conversation`: where `remember` stores if the model names none.
    """
    try:
        return run(memory, name, arguments, conversation)
    except MemoryStoreError as error:
        return {"error": str(error)}


def run(memory: Memory, name: str, arguments: Mapping[str, Any], conversation: str = "notes") -> dict[str, Any]:
    """As `call`, but raises MemoryStoreError."""
    if name not in _RUN:
        raise MemoryStoreError(f"there is no tool {name!r}")
    return _RUN[name](memory, Arguments(arguments), conversation)


class Arguments:
    """What a model, or a client, gave; each value is checked when it is asked for."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def text(self, name: str, default: str | None = None) -> str:
        """A text. Raises MemoryStoreError if it is another thing, or is not there and has no default."""
        value = self._given.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise MemoryStoreError(f"{name!r} must be text{'' if name in self._given else ', and be there'}")
        return value

    def optional(self, name: str) -> str | None:
        """A text that may be missing."""
        return self.text(name) if self._given.get(name) is not None else None

    def time(self, name: str) -> datetime | None:
        """A time from ISO 8601 that may be missing."""
        given = self.optional(name)
        return as_time(given, repr(name)) if given is not None else None

    def count(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to `most`."""
        value = self._given.get(name, default)
        if type(value) is not int or not 1 <= value <= most:
            raise MemoryStoreError(f"{name!r} must be a whole number from 1 to {most}")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self._given.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise MemoryStoreError(f"{name!r} must be a list of texts")
        return value


def _remember(memory: Memory, arguments: Arguments, conversation: str) -> dict[str, Any]:
    turn = memory.remember(
        arguments.text("text"),
        conversation=arguments.text("conversation", conversation),
        speaker=arguments.text("speaker", ""),
        session=arguments.text("session", ""),
        time=arguments.time("time"),
        node=arguments.optional("node"),
        id=arguments.optional("id"),
    )
    return as_object(turn)


def _recall(memory: Memory, arguments: Arguments, conversation: str) -> dict[str, Any]:
    found = memory.recall(
        arguments.text("question"),
        arguments.count("count", 10, 100),
        conversation=arguments.optional("conversation"),
        time=arguments.time("time"),
    )
    return {"turns": [as_object(recalled.turn) | {"score": recalled.score} for recalled in found]}


def _forget(memory: Memory, arguments: Arguments, conversation: str) -> dict[str, Any]:
    turns = memory.with_derived(arguments.texts("ids"))
    removed = memory.forget(turn.id for turn in turns)
    nodes = list(dict.fromkeys(turn.node for turn in turns if turn.node is not None))
    return {"removed": removed} | ({"nodes": nodes} if nodes else {})


_RUN = {"remember": _remember, "recall": _recall, "forget": _forget}
