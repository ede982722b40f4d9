"""A streaming parser of replies in Qwen3.5's format: reasoning, text, and calls of tools."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ramet.chat.calls import CALL, END_CALL, Call, CallReader, MalformedCallError
from ramet.chat.events import Event, Note, ReasoningDelta, TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart

_THINK, _END_THINK = "<think>", "</think>"


class Parser:
    """Turns the text of one reply into events, in pieces of any size.

    Which events come, and their joined deltas, depend only on the whole text. A call is held back until it is complete:

        <tool_call> <function=NAME> (<parameter=KEY> VALUE </parameter>)* </function> </tool_call>

    with any whitespace between tags. A value loses one newline at either end, and ends at a `</parameter>` behind which
    another parameter or the function's end stands, so that it may contain anything else. The first character that
    breaks this form makes all of it text again, with a Note that says why, and reading goes on as text from there.
    Inside reasoning, nothing is a call.

    Whitespace that is dropped: around reasoning; newlines after it; before a call; after a call unless text follows.
    """

    def __init__(
        self, tools: Sequence[Mapping[str, Any]] | None, *, in_reasoning: bool = False, prompt_text: str = ""
    ) -> None:
        """`tools` in OpenAI's form, whose functions may be called; `in_reasoning`: the prompt ended inside `<think>`.

        The ids of calls are hashes of `prompt_text` and the call, so that they differ from turn to turn, and whoever
        parses the same reply to the same prompt finds the same.
        """
        self._schemas = dict(_name_and_schema(tool) for tool in tools or ())
        self._read = self._reasoning if in_reasoning else self._beginning
        self._text = ""  # given, but not yet decided upon
        self._final = False
        self._events: list[Event] = []
        self._reasoned = False
        self._space = ""  # whitespace after the text so far, which a call would swallow
        self._after_call = False
        self._reader: CallReader | None = None
        self._calls = 0
        self._ids = hashlib.blake2b(prompt_text.encode("utf-8", "surrogatepass"), digest_size=12)

    def feed(self, text: str) -> list[Event]:
        """The events that `text` completes."""
        self._text += text
        while self._text and self._read():
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
        thought, tag, rest = self._text.partition(_END_THINK)
        if not tag and not self._final:
            thought = _without_start_of(_END_THINK, thought)
        thought = thought.rstrip()
        kept = self._text[len(thought) :]
        if not self._reasoned:
            thought = thought.lstrip()
        if thought:
            self._events.append(ReasoningDelta(thought))
            self._reasoned = True
        if tag:
            self._text = rest
            self._read = self._after_reasoning
            return True
        self._text = "" if self._final else kept
        return False

    def _after_reasoning(self) -> bool:
        self._text = self._text.lstrip("\n")
        if self._text:
            self._read = self._answer
        return True

    def _answer(self) -> bool:
        before, tag, _ = self._text.partition(CALL)
        if not tag and not self._final:
            before = _without_start_of(CALL, before)
        self._emit_text(before)
        self._text = self._text[len(before) :]
        if tag:
            self._reader = CallReader(self._schemas)
            self._read = self._in_call
        return bool(tag)

    def _in_call(self) -> bool:
        assert self._reader is not None
        try:
            call = self._reader.read(self._text)
        except MalformedCallError as error:
            self._give_up(error.position, str(error))
            return True
        if call is not None:
            self._emit_call(call)
            return True
        if self._final:
            # What is behind the next end of a call was hardly meant to be part of this one.
            end = self._text.find(END_CALL)
            position = len(self._text) if end < 0 else end + len(END_CALL)
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

    def _emit_call(self, call: Call) -> None:
        index, raw = self._calls, self._text[: call.end]
        self._ids.update(f"{index} {raw}".encode())
        self._events += [
            ToolCallStart(index, f"call_{self._ids.hexdigest()}", call.name),
            ToolCallArguments(index, _to_json(call.arguments)),
            ToolCallEnd(index, raw),
        ]
        self._calls += 1
        self._text = self._text[call.end :]
        self._space = ""
        self._after_call = True
        self._read = self._answer

    def _give_up(self, position: int, reason: str) -> None:
        """What was read of a call up to `position` is text."""
        self._emit_text(self._text[:position])
        self._events.append(Note(f"Not a tool call, so it is left as text: {reason}."))
        self._text = self._text[position:]
        self._read = self._answer


def _name_and_schema(tool: Mapping[str, Any]) -> tuple[str, Any]:
    function = tool.get("function", tool)
    return function["name"], function.get("parameters")


def _without_start_of(tag: str, text: str) -> str:
    """`text` less the end of it that may be the start of `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return text[:-length]
    return text


def _to_json(arguments: dict[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, from an escape in a value: only an escape can carry it on
        text = json.dumps(arguments)
    return text
