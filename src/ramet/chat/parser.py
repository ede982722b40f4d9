"""The streaming parser of replies: reasoning, text, and calls of tools in the form of any family."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ramet.chat.calls import Call, MalformedCallError, Reader, UndecidedError, tag_at
from ramet.chat.events import Event, Note, ReasoningDelta, TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from ramet.chat.format import Format
from ramet.chat.formats import QWEN3_5

_THINK, _END_THINK = "<think>", "</think>"


class Parser:
    """Turns the text of one reply into events, in pieces of any size.

    Which events come, and their joined deltas, depend only on the whole text. A call, in the form of the family's
    `Format`, is held back until it is complete. A value ends where the call can go on behind it, so that it may contain
    anything else. The first character that breaks the form makes all of the call text again, with a Note that says why,
    and reading goes on as text from there. Where calls stand in a section, its tags belong to none of them; behind a
    broken call the rest of its section is still read. Inside reasoning nothing is a call, but for calls with which a
    reasoning that was never closed ends: the model forgot to close it, and waits for their results.

    Whitespace that is dropped: around reasoning; newlines after it; before a call; after a call unless text follows.
    """

    def __init__(
        self,
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        format: Format = QWEN3_5,
        in_reasoning: bool = False,
        prompt_text: str = "",
    ) -> None:
        """`tools` in OpenAI's form, whose functions may be called; `in_reasoning`: the prompt ended inside `<think>`.

        The ids of calls are hashes of `prompt_text` and the call, so that they differ from turn to turn, and whoever
        parses the same reply to the same prompt finds the same; where the model itself writes ids, they are kept.
        """
        self._format = format
        self._form = format.calls
        section = self._form.section
        self._begins = (section[0] if section else self._form.call_opening,)
        self._in_section: tuple[str, ...] = (self._form.call_opening, section[1]) if section else ()
        self._broken = False  # in a section, behind a call that was none
        self._schemas = dict(_name_and_schema(tool) for tool in tools or ())
        self._read = self._reasoning if in_reasoning else self._beginning
        self._text = ""  # given, but not yet decided upon
        self._final = False
        self._events: list[Event] = []
        self._reasoned = False
        self._quoted = 0  # at the start of a reasoning's text, how much is known to be no call
        self._perhaps: list[tuple[Call, str]] = []  # calls inside a reasoning, with their text, and ...
        self._held = ""  # ... all of the text from before the first of them
        self._space = ""  # whitespace after the text so far, which a call would swallow
        self._after_call = False
        self._reader: Reader | None = None
        self._calls = 0
        self._given: set[str] = set()
        self._ids = hashlib.blake2b(prompt_text.encode("utf-8", "surrogatepass"), digest_size=12)

    def feed(self, text: str) -> list[Event]:
        """The events that `text` completes."""
        self._text += text
        while (self._text or self._perhaps) and self._read():
            pass
        events, self._events = self._events, []
        return events

    def finish(self) -> list[Event]:
        """The events left when the reply is over, whether it came to its end or was cut off."""
        self._final = True
        events = self.feed("")
        if self._space and not self._after_call:
            events.append(TextDelta(self._space))
        if self._read == self._reasoning and self._reasoned:
            events.append(Note("The reasoning was not closed, so no answer follows it."))
        return events

    # Each of these reads what it can of self._text, and returns False where more is needed to go on.

    def _beginning(self) -> bool:
        bare = self._text.lstrip()
        if bare.startswith(_THINK):
            self._text = bare.removeprefix(_THINK)
            self._read = self._reasoning
        elif _THINK.startswith(bare) and not self._final:
            return False
        else:
            self._read = self._answer
        return True

    def _reasoning(self) -> bool:
        tags = (_END_THINK, *self._begins)
        if self._format.calls_end_reasoning:
            end, tag = _first(self._text, tags)
        else:
            end, tag = _first(self._text, tags[:1])
            if not tag:
                end, tag = _first(self._text, self._begins, self._quoted)
        thought = self._text[:end]
        if not tag and not self._final:
            thought = _without_start_of(tags, thought)
        thought = thought.rstrip()
        kept = self._text[len(thought) :]
        self._quoted = max(0, self._quoted - len(thought))
        if not self._reasoned:
            thought = thought.lstrip()
        if thought:
            self._events.append(ReasoningDelta(thought))
            self._reasoned = True
        if tag == _END_THINK or (tag and self._format.calls_end_reasoning):
            self._text = self._text[end + (len(tag) if tag == _END_THINK else 0) :]
            self._read = self._after_reasoning
            return True
        if tag:
            self._held, self._text = kept[: len(kept) - len(self._text) + end], self._text[end:]
            self._try_call(in_section=False)
            return True
        self._text = "" if self._final else kept
        return False

    # A call inside a reasoning is held back: as long as only calls follow, the reply may end with it.

    def _try_call(self, *, in_section: bool) -> None:
        self._reader = self._form.reader(self._schemas, in_section=in_section)
        self._read = self._call_in_reasoning

    def _call_in_reasoning(self) -> bool:
        assert self._reader is not None
        if _END_THINK in self._text:
            return self._still_reasoning(0)
        try:
            call = self._reader.read(self._text)
        except MalformedCallError as error:
            return self._still_reasoning(max(1, error.position))
        if call is None:
            return self._final and self._still_reasoning(len(self._text))
        self._perhaps.append((call, self._text[: call.end]))
        self._pass(call.end)
        self._read = self._behind_call_in_reasoning
        return True

    def _behind_call_in_reasoning(self) -> bool:
        try:
            tag, position = tag_at(self._text, 0, (*self._in_section, *self._begins))
        except UndecidedError:
            if not self._final:
                return False
            if self._text.strip():
                return self._still_reasoning(len(self._text))
            self._events.append(Note("The reasoning was not closed; the calls with which it ends are taken as such."))
            for call, raw in self._perhaps:
                self._emit_call(call, raw)
            self._text, self._held, self._perhaps = "", "", []
            self._read = self._answer
            return True
        if tag is None:
            return self._still_reasoning(0)
        self._pass(position)
        if tag in self._in_section[1:]:
            self._pass(len(tag))
        else:
            self._try_call(in_section=tag in self._in_section)
        return True

    def _pass(self, count: int) -> None:
        self._held, self._text = self._held + self._text[:count], self._text[count:]

    def _still_reasoning(self, count: int) -> bool:
        """What was held back is reasoning after all, and so are `count` characters behind it."""
        self._quoted = len(self._held) + count
        self._text, self._held = self._held + self._text, ""
        self._perhaps = []
        self._read = self._reasoning
        return True

    def _after_reasoning(self) -> bool:
        self._text = self._text.lstrip("\n")
        if self._text:
            self._read = self._answer
        return True

    def _answer(self) -> bool:
        tags = (*self._begins, *(self._in_section if self._broken else ()))
        end, tag = _first(self._text, tags)
        before = self._text[:end]
        if not tag and not self._final:
            before = _without_start_of(tags, before)
        self._emit_text(before)
        self._text = self._text[len(before) :]
        if tag in self._in_section[1:]:  # the end of a section of which a part is text
            self._emit_text(tag)
            self._text = self._text[len(tag) :]
            self._broken = False
        elif tag:
            self._begin_call(in_section=tag in self._in_section)
        return bool(tag)

    def _between(self) -> bool:
        """In a section, behind a call."""
        try:
            tag, position = tag_at(self._text, 0, self._in_section)
        except UndecidedError:
            if self._final:
                self._events.append(Note("The reply ends inside a section of tool calls."))
                self._read = self._answer
            return self._final
        if tag == self._form.call_opening:
            self._begin_call(in_section=True)
        elif tag is not None:
            self._text = self._text[position + len(tag) :]
            self._read = self._answer
        else:
            self._events.append(Note(f"{' or '.join(self._in_section)} was expected behind a tool call."))
            self._broken = True
            self._read = self._answer
        return True

    def _begin_call(self, *, in_section: bool) -> None:
        self._reader = self._form.reader(self._schemas, in_section=in_section)
        self._read = self._in_call
        self._broken = False

    def _in_call(self) -> bool:
        assert self._reader is not None
        try:
            call = self._reader.read(self._text)
        except MalformedCallError as error:
            self._give_up(error.position, str(error))
            return True
        if call is not None:
            self._emit_call(call, self._text[: call.end])
            self._text = self._text[call.end :]
            self._read = self._between if self._in_section else self._answer
            return True
        if self._final:
            # What is behind the next end of a call was hardly meant to be part of this one.
            ending = self._form.call_ending
            end = self._text.find(ending)
            position = len(self._text) if end < 0 else end + len(ending)
            self._give_up(
                position, f"the reply ends {self._reader.where}" if end < 0 else f"no end {self._reader.where}"
            )
        return self._final

    def _emit_text(self, text: str) -> None:
        text = self._space + text
        visible = text.rstrip()
        self._space = text[len(visible) :]
        if visible:
            self._events.append(TextDelta(visible))
            self._after_call = False

    def _emit_call(self, call: Call, raw: str) -> None:
        index = self._calls
        self._ids.update(f"{index} {raw}".encode())
        call_id = call.id if call.id and call.id not in self._given else f"call_{self._ids.hexdigest()}"
        self._given.add(call_id)
        self._events += [
            ToolCallStart(index, call_id, call.name),
            ToolCallArguments(index, _to_json(call.arguments)),
            ToolCallEnd(index, raw),
        ]
        self._calls += 1
        self._space = ""
        self._after_call = True

    def _give_up(self, position: int, reason: str) -> None:
        """What was read of a call up to `position` is text."""
        self._emit_text(self._text[:position])
        self._events.append(Note(f"Not a tool call, so it is left as text: {reason}."))
        self._text = self._text[position:]
        self._broken = bool(self._in_section)
        self._read = self._answer


def _name_and_schema(tool: Mapping[str, Any]) -> tuple[str, Any]:
    function = tool.get("function", tool)
    return function["name"], function.get("parameters")


def _first(text: str, tags: Sequence[str], start: int = 0) -> tuple[int, str]:
    """Where the first of `tags` stands in `text` from `start` on, and which it is; its length and "" if none does."""
    found = [(at, tag) for tag in tags if (at := text.find(tag, start)) >= 0]
    return min(found, default=(len(text), ""))


def _without_start_of(tags: Sequence[str], text: str) -> str:
    """`text` less the end of it that may be the start of one of `tags`."""
    for length in range(min(max(map(len, tags)) - 1, len(text)), 0, -1):
        if any(tag.startswith(text[-length:]) for tag in tags):
            return text[:-length]
    return text


def _to_json(arguments: dict[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, from an escape in a value: only an escape can carry it on
        text = json.dumps(arguments)
    return text
