"""One reply of a model in this process, as it comes."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ramet.chat import ReasoningDelta, TextDelta
from ramet.engine import FinishEvent, Sampling, tool_calls
from ramet.engine.runtime import Runtime


@dataclass(frozen=True)
class Piece:
    """A piece of a streamed reply."""

    text: str
    reasoning: bool


def reply(
    runtime: Runtime,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    sampling: Sampling,
    choice: str = "auto",
    thinking: bool | None = None,
    label: str = "",
) -> Generator[Piece | FinishEvent]:
    """Stream the reply to messages in OpenAI's chat form; its text and reasoning, and last the FinishEvent.

    `choice`: "auto" (tools may be called), "none", "required", or the name of the tool that must be. `thinking`: None
    for what the template does by itself. The reply's node is on disk before its end, where the tree has a disk. Closing
    the generator early cancels the reply. Raises RametError for messages or tools that cannot be rendered or held to.
    """
    prompt = runtime.chat.render(messages, tools, reply_tokens=runtime.tree.reply_tokens, enable_thinking=thinking)
    grammar = None
    if tools and choice not in ("auto", "none"):
        grammar = tool_calls(
            tools, choice=choice, after_reasoning=prompt.opens_reasoning, format=runtime.chat.format
        )  # fmt: skip
    request = runtime.request(prompt, tools, sampling=sampling, grammar=grammar, may_call=not tools or choice != "none")
    parser = runtime.chat.parser(tools, prompt)
    handle = runtime.engine.submit(replace(request, store=runtime.tree.on_disk, label=label))
    try:
        for event in handle:
            events = parser.feed(event.text_delta)
            if isinstance(event, FinishEvent):
                events = [*events, *parser.finish()]
            for part in events:
                if isinstance(part, TextDelta | ReasoningDelta):
                    yield Piece(part.text, isinstance(part, ReasoningDelta))
            if isinstance(event, FinishEvent):
                yield event
    finally:
        if not handle.finished:
            handle.cancel()
            handle.result()
