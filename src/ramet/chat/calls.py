"""One tool call in Qwen3.5's form, read strictly and in pieces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from ramet.chat.values import typed

CALL, END_CALL = "<tool_call>", "</tool_call>"
_FUNCTION, _END_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_PARAMETER = "<parameter=", "</parameter>"

_TAG_IN_VALUE = re.compile(f"{_END_PARAMETER}|{_END_FUNCTION}|{_PARAMETER}|{CALL}")
_NAME_END = re.compile(r"[<>\n]")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Call:
    """A complete call; `end` is the position after it in the text it was read from."""

    name: str
    arguments: dict[str, Any]
    end: int


class MalformedCallError(Exception):
    """What began as a call is none: `position` is that of the first character that cannot belong to one."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class _UndecidedError(Exception):
    """The text so far does not say what comes next."""


class _Place(Enum):
    FUNCTION = auto()
    FUNCTION_NAME = auto()
    PARAMETERS = auto()
    PARAMETER_NAME = auto()
    VALUE = auto()
    END = auto()


class CallReader:
    """Reads one call that begins at the start of a growing text, going over each character about once."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        """`schemas`: the JSON schema of the parameters of each function that may be called, by its name."""
        self._schemas = schemas
        self._place = _Place.FUNCTION
        self._at = len(CALL)  # everything before is decided
        self._scanned = 0  # of a name or value that is being read, how far it has been searched for its end
        self._name = ""
        self._key = ""
        self._arguments: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """What is being read, for a person."""
        if self._place is _Place.VALUE:
            return f"in parameter {self._key!r} of {self._name!r}"
        return f"in {self._name!r}" if self._name else "before a function is named"

    def read(self, text: str) -> Call | None:
        """The call at the start of `text`, or None while it is incomplete; `text` extends that of the last time.

        Raises MalformedCallError at the first character that breaks the form.
        """
        try:
            while self._place is not _Place.END or self._expect(text, END_CALL) is None:
                self._advance(text)
        except _UndecidedError:
            return None
        return Call(self._name, self._arguments, self._at)

    def _advance(self, text: str) -> None:
        match self._place:
            case _Place.FUNCTION:
                self._expect(text, _FUNCTION)
                self._enter(_Place.FUNCTION_NAME)
            case _Place.FUNCTION_NAME:
                self._name = self._read_name(text)
                if self._name not in self._schemas:
                    raise MalformedCallError(self._at, f"there is no tool named {self._name!r}")
                self._enter(_Place.PARAMETERS)
            case _Place.PARAMETERS:
                tag = self._expect(text, _PARAMETER, _END_FUNCTION)
                self._enter(_Place.PARAMETER_NAME if tag == _PARAMETER else _Place.END)
            case _Place.PARAMETER_NAME:
                self._key = self._read_name(text)
                if self._key in self._arguments:
                    raise MalformedCallError(self._at, f"parameter {self._key!r} of {self._name!r} is given twice")
                self._enter(_Place.VALUE)
            case _Place.VALUE:
                value = self._read_value(text).removeprefix("\n").removesuffix("\n")
                schema = self._schemas[self._name]
                self._arguments[self._key] = typed(value, _properties(schema).get(self._key), schema)
                self._enter(_Place.PARAMETERS)

    def _enter(self, place: _Place) -> None:
        self._place = place
        self._scanned = self._at

    def _expect(self, text: str, *tags: str) -> str:
        """Go past whitespace and one of `tags`, which is returned."""
        tag, position = _tag_at(text, self._at, tags)
        if tag is None:
            raise MalformedCallError(position, f"{' or '.join(tags)} was expected {self.where}")
        self._at = position + len(tag)
        return tag

    def _read_name(self, text: str) -> str:
        end = _NAME_END.search(text, self._scanned)
        if end is None:
            self._scanned = len(text)
            raise _UndecidedError
        name = text[self._at : end.start()].strip()
        if end.group() != ">" or not name:
            raise MalformedCallError(end.start(), "the tag of a function or parameter has no name or no end")
        self._at = end.end()
        return name

    def _read_value(self, text: str) -> str:
        """Up to a `</parameter>` behind which the call goes on: any other may be part of the value."""
        while (tag := _TAG_IN_VALUE.search(text, self._scanned)) is not None:
            self._scanned = tag.start()
            if tag.group() == _END_PARAMETER:
                follows, position = _tag_at(text, tag.end(), (_PARAMETER, _END_FUNCTION, END_CALL))
                if follows == END_CALL:
                    raise MalformedCallError(position, f"function {self._name!r} is not closed")
                if follows is not None:
                    value = text[self._at : tag.start()]
                    self._at = tag.end()
                    return value
            elif tag.group() == _END_FUNCTION:
                if _tag_at(text, tag.end(), (END_CALL,))[0] is not None:
                    self._not_closed(text, tag.start())
            elif tag.group() == CALL:
                ended = text.find(END_CALL, self._at, tag.start()) >= 0
                if ended and _tag_at(text, tag.end(), (_FUNCTION,))[0] is not None:
                    self._not_closed(text, tag.start())
            elif self._next_parameter_at(text, tag.end()):
                self._not_closed(text, tag.start())
            self._scanned = tag.end()
        self._scanned = max(self._scanned, len(text) - len(_END_PARAMETER))  # a tag may have begun
        raise _UndecidedError

    def _next_parameter_at(self, text: str, position: int) -> bool:
        """Whether another parameter of this function, not yet given, is named at `position`."""
        end = _NAME_END.search(text, position)
        if end is None:
            raise _UndecidedError
        key = text[position : end.start()].strip()
        given = key in self._arguments or key == self._key
        return end.group() == ">" and not given and key in _properties(self._schemas[self._name])

    def _not_closed(self, text: str, position: int) -> None:
        # Behind the end of a call, what is there was hardly meant to be part of this one.
        end = text.find(END_CALL, self._at, position)
        raise MalformedCallError(
            position if end < 0 else end + len(END_CALL), f"parameter {self._key!r} of {self._name!r} is not closed"
        )


def _tag_at(text: str, position: int, tags: Sequence[str]) -> tuple[str | None, int]:
    """Which of `tags` stands at `position` after whitespace, if one does, and where that is."""
    space = _SPACE.match(text, position)
    start = space.end() if space else position
    for tag in tags:
        if text.startswith(tag, start):
            return tag, start
    rest = text[start : start + max(map(len, tags))]
    if any(tag.startswith(rest) for tag in tags):
        raise _UndecidedError
    return None, start


def _properties(schema: Any) -> Mapping[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}
