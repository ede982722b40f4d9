"""One tool call whose arguments are one JSON object between control tokens, read strictly and in pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ramet.chat.calls import Call, CallForm, MalformedCallError, Reader, UndecidedError, tag_at

_STEP = re.compile(r'["\\{}\[\]]')


@dataclass(frozen=True, kw_only=True)
class JsonForm(CallForm):
    """Arguments as one object: `opening` HEAD `separator` JSON `ending`, blanks free."""

    separator: str
    """What ends the head, as it is written; blanks may follow."""
    name: re.Pattern[str]
    """What a head must match whole, with the group `name`."""
    has_ids: bool = False
    """The head is the call's id too."""

    def reader(self, schemas: Mapping[str, Any], *, in_section: bool) -> Reader:
        """See `CallForm`."""
        return _JsonReader(self, schemas, in_section=in_section)


class _JsonReader:
    def __init__(self, form: JsonForm, schemas: Mapping[str, Any], *, in_section: bool) -> None:
        self._form = form
        self._schemas = schemas
        self._tags = [*(form.section[:1] if form.section and not in_section else ()), *form.opening]
        self._at = 0
        self._head: str | None = None
        self._name = ""
        self._scanned = 0
        self._depth = 0
        self._quoted = False
        self._arguments: dict[str, Any] | None = None
        self._ends = list(form.ending)

    @property
    def where(self) -> str:
        return f"in {self._name!r}" if self._name else "before a function is named"

    def read(self, text: str) -> Call | None:
        try:
            self._pass(text, self._tags)
            if self._head is None:
                self._read_head(text)
            if self._arguments is None:
                self._read_arguments(text)
            self._pass(text, self._ends)
        except UndecidedError:
            return None
        assert self._arguments is not None
        return Call(self._name, self._arguments, self._at, self._head if self._form.has_ids else None)

    def _pass(self, text: str, tags: list[str]) -> None:
        while tags:
            found, position = tag_at(text, self._at, tags[:1])
            if found is None:
                raise MalformedCallError(position, f"{tags[0]} was expected {self.where}")
            self._at = self._scanned = position + len(tags.pop(0))

    def _read_head(self, text: str) -> None:
        separator = self._form.separator
        end = text.find(separator, self._at)
        tag = text.find("<", self._at)  # no head has a tag inside: one that is not the separator is a fault at once
        if tag >= 0 and (end < 0 or tag < end):
            if separator.startswith(text[tag : tag + len(separator)]):
                raise UndecidedError
            raise MalformedCallError(tag, f"{separator.strip()} was expected {self.where}")
        if end < 0:
            raise UndecidedError
        head = text[self._at : end].strip()
        found = self._form.name.fullmatch(head)
        name = found.group("name") if found else ""
        if name not in self._schemas:
            raise MalformedCallError(end, f"there is no tool named {name or head!r}")
        self._head, self._name = head, name
        self._at = self._scanned = end + len(separator)

    def _read_arguments(self, text: str) -> None:
        if not self._depth:
            self._pass(text, ["{"])
            self._at -= 1
            self._depth = 1
        while self._depth:
            step = _STEP.search(text, self._scanned)
            if step is None:
                self._scanned = len(text)
                raise UndecidedError
            character = step.group()
            if character == "\\":
                if step.end() == len(text):
                    self._scanned = step.start()
                    raise UndecidedError
                self._scanned = step.end() + 1
                continue
            self._scanned = step.end()
            if character == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if character in "{[" else -1
        written = text[self._at : self._scanned]
        try:
            arguments = json.loads(written, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise MalformedCallError(self._scanned, f"the arguments of {self._name!r} are not JSON ({error})") from None
        self._arguments = arguments
        self._at = self._scanned


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
