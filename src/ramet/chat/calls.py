"""One tool call, read strictly and in pieces: the reader of every format whose arguments are tagged one by one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property, lru_cache
from typing import Any, Protocol

from ramet.chat.values import declarations_of, plain_json, property_of, typed

_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Call:
    """A complete call; `end` is the position after it in the text it was read from."""

    name: str
    arguments: dict[str, Any]
    end: int
    id: str | None = None
    """The id that the model gave it, in formats that have one."""


class MalformedCallError(Exception):
    """What began as a call is none: `position` is that of the first character that cannot belong to one."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class UndecidedError(Exception):
    """The text so far does not say what comes next."""


class Reader(Protocol):
    """Reads one call that begins at the start of a growing text, going over each character about once."""

    @property
    def where(self) -> str:
        """What is being read, for a person."""

    def read(self, text: str) -> Call | None:
        """The call at the start of `text`, or None while it is incomplete; `text` extends that of the last time.

        Raises MalformedCallError at the first character that breaks the form.
        """


@dataclass(frozen=True, kw_only=True)
class CallForm(ABC):
    """How a family writes calls: each between `opening` and `ending`, and perhaps a `section` around one or more."""

    opening: tuple[str, ...]
    ending: tuple[str, ...]
    section: tuple[str, str] | None = None

    @property
    def call_opening(self) -> str:
        """The tag with which a call begins, inside its section if there is one."""
        return self.opening[0]

    @property
    def call_ending(self) -> str:
        """The tag with which a call ends."""
        return self.ending[-1]

    @abstractmethod
    def reader(self, schemas: Mapping[str, Any], *, in_section: bool) -> Reader:
        """A reader; `schemas`: the JSON schema of the parameters of each function that may be called, by its name."""


@dataclass(frozen=True, kw_only=True)
class TagForm(CallForm):
    """Arguments as tags, blanks between them free:

    `opening` NAME `name_end` (`parameter` KEY `key_end` VALUE `value_end`)* `ending`.
    """

    name_end: str
    """Empty: the name ends at the next `<`."""
    parameter: str
    key_end: tuple[str, ...]
    value_end: str
    kinds: tuple[str, str] | None = None
    """Behind the key's end: what says that a value is text, and that it is JSON. None: the tool's schema says."""
    padded: bool = False
    """A value loses one newline at either end."""

    def reader(self, schemas: Mapping[str, Any], *, in_section: bool) -> Reader:
        """See `CallForm`."""
        return _TagReader(self, schemas, in_section=in_section)

    @cached_property
    def tag_in_value(self) -> re.Pattern[str]:
        """The tags that may end a value, or show that it was not ended."""
        return re.compile("|".join(map(re.escape, (self.value_end, self.ending[0], self.parameter, self.opening[0]))))


class _Place(Enum):
    OPENING = auto()
    NAME = auto()
    PARAMETERS = auto()
    KEY = auto()
    VALUE = auto()
    END = auto()


class _TagReader:
    def __init__(self, form: TagForm, schemas: Mapping[str, Any], *, in_section: bool) -> None:
        self._form = form
        self._schemas = schemas
        self._opening = (*(form.section[:1] if form.section and not in_section else ()), *form.opening)
        self._place = _Place.OPENING
        self._at = 0  # everything before is decided
        self._scanned = 0  # of a name or value that is being read, how far it has been searched for its end
        self._name = ""
        self._key = ""
        self._is_text: bool | None = None
        self._arguments: dict[str, Any] = {}

    @property
    def where(self) -> str:
        if self._place is _Place.VALUE:
            return f"in parameter {self._key!r} of {self._name!r}"
        return f"in {self._name!r}" if self._name else "before a function is named"

    def read(self, text: str) -> Call | None:
        try:
            while self._place is not _Place.END:
                self._advance(text)
            self._expect_all(text, self._form.ending[1:])
        except UndecidedError:
            return None
        return Call(self._name, self._arguments, self._at)

    def _advance(self, text: str) -> None:
        form = self._form
        match self._place:
            case _Place.OPENING:
                self._expect_all(text, self._opening)
                self._enter(_Place.NAME)
            case _Place.NAME:
                name = self._read_name(text, form.name_end) if form.name_end else self._read_open_name(text)
                if name not in self._schemas:
                    raise MalformedCallError(self._at, f"there is no tool named {name!r}")
                self._name = name
                self._enter(_Place.PARAMETERS)
            case _Place.PARAMETERS:
                tag = self._expect(text, form.parameter, form.ending[0])
                self._enter(_Place.KEY if tag == form.parameter else _Place.END)
            case _Place.KEY:
                at = self._at
                key = self._read_name(text, form.key_end[0])
                try:
                    self._expect_all(text, form.key_end[1:])
                    if form.kinds is not None:
                        self._is_text = self._expect(text, *form.kinds) == form.kinds[0]
                except UndecidedError:
                    self._at = self._scanned = at
                    raise
                if key in self._arguments:
                    raise MalformedCallError(self._at, f"parameter {key!r} of {self._name!r} is given twice")
                self._key = key
                self._enter(_Place.VALUE)
            case _Place.VALUE:
                self._arguments[self._key] = self._value(self._read_value(text))
                self._enter(_Place.PARAMETERS)

    def _value(self, text: str) -> Any:
        if self._form.padded:
            text = text.removeprefix("\n").removesuffix("\n")
        if self._is_text is not None:
            return text if self._is_text else plain_json(text)
        schema = self._schemas[self._name]
        return typed(text, property_of(schema, self._key), schema)

    def _enter(self, place: _Place) -> None:
        self._place = place
        self._scanned = self._at

    def _expect(self, text: str, *tags: str) -> str:
        """Go past whitespace and one of `tags`, which is returned."""
        tag, position = tag_at(text, self._at, tags)
        if tag is None:
            raise MalformedCallError(position, f"{' or '.join(tags)} was expected {self.where}")
        self._at = position + len(tag)
        return tag

    def _expect_all(self, text: str, tags: Sequence[str]) -> None:
        """Go past all of `tags`, or stay where they are not all there yet."""
        at = self._at
        try:
            for tag in tags:
                self._expect(text, tag)
        except UndecidedError:
            self._at = at
            raise

    def _read_name(self, text: str, ending: str) -> str:
        end = _name_end(text, self._scanned, ending)
        if end is None:
            self._scanned = max(self._at, len(text) - len(ending))
            raise UndecidedError
        name = text[self._at : end].strip()
        if not text.startswith(ending, end) or not name:
            raise MalformedCallError(end, "the tag of a function or parameter has no name or no end")
        self._at = end + len(ending)
        return name

    def _read_open_name(self, text: str) -> str:
        """A name that ends where the next tag begins; given up as soon as it cannot become one of the tools'."""
        end = text.find("<", self._at)
        written = text[self._at : end if end >= 0 else len(text)]
        name = written.strip()
        for length in range(1, len(name) + 1):
            if not any(known.startswith(name[:length]) for known in self._schemas):
                at = self._at + len(written) - len(written.lstrip()) + length - 1
                raise MalformedCallError(at, f"no tool's name begins with {name[:length]!r}")
        if end < 0:
            raise UndecidedError
        if not name:
            raise MalformedCallError(end, "a function's name was expected")
        self._at = end
        return name

    def _read_value(self, text: str) -> str:
        """Up to an end of a value behind which the call goes on: any other may be part of the value."""
        form = self._form
        goes_on = (form.parameter, *form.ending)
        while (tag := form.tag_in_value.search(text, self._scanned)) is not None:
            self._scanned = tag.start()
            if tag.group() == form.value_end:
                follows, position = tag_at(text, tag.end(), goes_on)
                if follows in form.ending[1:]:
                    raise MalformedCallError(position, f"function {self._name!r} is not closed")
                if follows is not None:
                    value = text[self._at : tag.start()]
                    self._at = tag.end()
                    return value
            elif tag.group() == form.ending[0]:
                behind = form.ending[1:] or (form.section[1:] if form.section else ())
                if behind and tag_at(text, tag.end(), behind)[0] is not None:
                    self._not_closed(text, tag.start())
            elif tag.group() == form.opening[0]:
                ended = text.find(form.call_ending, self._at, tag.start()) >= 0
                if ended and self._call_at(text, tag.end()):
                    self._not_closed(text, tag.start())
            elif self._next_parameter_at(text, tag.end()):
                self._not_closed(text, tag.start())
            self._scanned = tag.end()
        longest = max(map(len, (form.value_end, form.ending[0], form.parameter, form.opening[0])))
        self._scanned = max(self._scanned, len(text) - longest)  # a tag may have begun
        raise UndecidedError

    def _call_at(self, text: str, position: int) -> bool:
        """Whether a call goes on behind its opening tag, which ends at `position`."""
        if len(self._form.opening) > 1:
            return tag_at(text, position, self._form.opening[1:2])[0] is not None
        ending = self._form.name_end or "<"
        end = _name_end(text, position, ending)
        if end is None:
            raise UndecidedError
        return text.startswith(ending, end) and text[position:end].strip() in self._schemas

    def _next_parameter_at(self, text: str, position: int) -> bool:
        """Whether another parameter of this function, not yet given, is named at `position`."""
        ending = self._form.key_end[0]
        end = _name_end(text, position, ending)
        if end is None:
            raise UndecidedError
        key = text[position:end].strip()
        given = key in self._arguments or key == self._key
        return text.startswith(ending, end) and not given and bool(declarations_of(self._schemas[self._name], key))

    def _not_closed(self, text: str, position: int) -> None:
        # Behind the end of a call, what is there was hardly meant to be part of this one.
        tag = self._form.call_ending
        end = text.find(tag, self._at, position)
        raise MalformedCallError(
            position if end < 0 else end + len(tag), f"parameter {self._key!r} of {self._name!r} is not closed"
        )


def _name_end(text: str, position: int, ending: str) -> int | None:
    """Where `ending`, or a character that no name has, stands at or behind `position`; None if that is still open."""
    found = _name_stop(ending).search(text, position)
    if found is None or (found.group() != ending and ending.startswith(text[found.start() :])):
        return None
    return found.start()


@lru_cache
def _name_stop(ending: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(ending)}|[<>\\n]")


def tag_at(text: str, position: int, tags: Sequence[str]) -> tuple[str | None, int]:
    """Which of `tags` stands at `position` after whitespace, if one does, and where that is.

    Raises UndecidedError if the text ends before that can be told.
    """
    space = _SPACE.match(text, position)
    start = space.end() if space else position
    for tag in tags:
        if text.startswith(tag, start):
            return tag, start
    rest = text[start : start + max(map(len, tags))]
    if any(tag.startswith(rest) for tag in tags):
        raise UndecidedError
    return None, start
