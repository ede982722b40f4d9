"""Messages -> a prompt: its tokens, where each message ends in them, and where later requests will leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramet.chat import declarations
from ramet.chat.call_messages import CallMessages
from ramet.chat.events import assistant_message
from ramet.chat.format import Format
from ramet.chat.formats import format_of_template
from ramet.chat.messages import MessageError, for_template
from ramet.chat.parser import Parser
from ramet.chat.segments import Segments, assign
from ramet.chat.sight import Sight, without_pixels
from ramet.chat.template import ChatTemplate, TemplateError, load_templates
from ramet.chat.tokenizer import Tokenizer
from ramet.chat.written import Place, WrittenReplies
from ramet.models.images import Images
from ramet.models.pictures import Placed

ReplyTokens = Callable[[str], Sequence[int] | None]
"""Gives the tokens that a model wrote for exactly this text, if one did."""

_NEAR = 8
"""Departures this many tokens apart share one saved state: computing the tokens between costs less than a state."""

_LATER: tuple[list[dict[str, Any]], ...] = (
    [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "0", "type": "function", "function": {"name": "f", "arguments": {}}}],
        },
        {"role": "tool", "tool_call_id": "0", "content": "r"},
    ],
    [{"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}],
)
"""How conversations go on: a call and its result, without reasoning; an answer and a new question."""

_OTHER_WORDS = "\u2063"
"""Stands for a question asked instead of the last one: an invisible character, with which no real one begins."""


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation.

    It is a run of segments, one for each message (results of tools that share a turn count as one), each ending with
    its end-of-turn token; the newline behind that already belongs to the next turn. So a reply, which ends with the
    same token, extends a prompt exactly to the boundary that it has when it comes back as a message.
    """

    text: str
    tokens: list[int]
    boundaries: list[int]
    """Positions in `tokens` at which a message ends, ascending."""
    messages: list[dict[str, Any] | None]
    """For each boundary, the message that ends there. A system message has the tools that it shows as `tools`; several
    results in one turn are `{"role": "tool", "messages": [...]}`; None is a turn that no message can be found for.
    They can be rendered again as they are."""
    texts: list[str]
    """For each boundary, the text of its segment."""
    save_at: list[int]
    """Positions at which a later request is expected to leave this one, ascending: states are worth saving there."""
    generation_prompt: str
    """The text behind the last boundary, in which a reply begins. When the reply comes back as a message,
    `reply_tokens` is asked for this text and what the model wrote, end-of-turn token included."""
    pictures: tuple[Placed, ...] = ()
    """The pictures that the messages show, in order, at the positions of their rows."""
    continued: int = 0
    """How many leading tokens are a node's own, taken as they are; 0 where the whole conversation was rendered."""

    @property
    def opens_reasoning(self) -> bool:
        """Whether a reply begins inside `<think>`."""
        return self.generation_prompt.rstrip().endswith("<think>")


class Chat:
    """The chat format of one checkpoint. Safe to use from several threads."""

    def __init__(self, templates: dict[str, ChatTemplate], tokenizer: Tokenizer, images: Images | None = None) -> None:
        """`templates` as `load_templates` gives them; `images` is the processor of a model with a vision tower."""
        self.tokenizer = tokenizer
        self._sight = None if images is None else Sight(images, tokenizer)
        self.format: Format = format_of_template("".join(template.source for template in templates.values()))
        self._templates = templates
        self._named = {**self.format.named, **tokenizer.named_tokens}
        self._calls = {name: CallMessages.of(template, self._named) for name, template in templates.items()}
        self._segments = Segments(tokenizer, self.format)
        self._replies = WrittenReplies()

    @classmethod
    def load(cls, path: str | Path, tokenizer: Tokenizer, images: Images | None = None) -> Chat:
        """The chat format of the checkpoint in folder `path`. Raises TemplateError if it has none."""
        return cls(load_templates(path), tokenizer, images)

    @property
    def sees(self) -> bool:
        """Whether messages may show pictures."""
        return self._sight is not None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        enable_thinking: bool | None = None,
        reply_tokens: ReplyTokens | None = None,
        **template_kwargs: Any,
    ) -> Prompt:
        """The prompt for a conversation in OpenAI's chat form.

        `enable_thinking` (if not None) and `template_kwargs` are variables of the template; some call the first one
        `thinking`, so that is set too. What is written like a control token inside messages and tools is encoded as
        ordinary text, so that no content can forge a turn. Where `reply_tokens` knows an assistant's turn, the tokens
        that the model wrote are used.

        Raises MessageError for messages in the wrong form, TemplateError with what the template says against them.
        """
        given = for_template(messages, sight=self.sees)
        looks = self._sight.looks(given) if self._sight is not None else []
        tools = list(tools) if tools else None
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        template, calls = self._templates[name], self._calls[name]
        variables = {**self._named, **template_kwargs, "documents": None, "tools": self._segments.protect(tools)}
        if enable_thinking is not None:
            variables = {"thinking": enable_thinking, **variables, "enable_thinking": enable_thinking}
        if tools and declarations.VARIABLE in template.source:
            variables["tools"] = declarations.sorted_keys(variables["tools"])
            variables[declarations.VARIABLE] = declarations.typescript(variables["tools"])

        def cut(conversation: list[dict[str, Any]], generate: bool) -> list[str]:
            given = {"messages": calls.told(conversation), "add_generation_prompt": generate}
            return self._segments.cut(_encodable(template.render({**variables, **given})))

        conversation = self._segments.protect(without_pixels(given) if looks else given)
        pieces = cut(conversation, add_generation_prompt)
        texts = [self._segments.unprotect(piece) for piece in pieces]
        shown = assign(texts[:-1], given, tools, self.format) if given else []
        parts: list[Sequence[int]] = []
        boundaries: list[int] = []
        tokens: list[int] = []
        pictures: list[Placed] = []
        left = len(looks)
        place = Place()
        for piece, text, message in zip(pieces, texts, shown, strict=False):
            written = None
            if reply_tokens is not None and (message is None or message["role"] == "assistant"):
                written = self._written(place, text, message, reply_tokens)
            part = written or self._segments.encode(piece)
            if looks and self._sight is not None and not written:
                part, placed = self._sight.expand(part, looks, len(tokens))
                pictures += placed
            parts.append(part)
            tokens.extend(part)
            boundaries.append(len(tokens))
            place.go_past(text)
        parts.append(self._segments.encode(pieces[-1]))
        tokens.extend(parts[-1])

        if looks:
            raise MessageError(f"this checkpoint's chat template shows {left - len(looks)} of {left} pictures")

        departures = {len(tokens)}
        if add_generation_prompt:
            ways = [[*conversation, *later] for later in _LATER]
            if (
                len(conversation) > 1 and conversation[-1]["role"] == "user"
            ):  # which may be taken back, and asked otherwise
                ways.append([*conversation[:-1], {**conversation[-1], "content": _OTHER_WORDS}])
            for way in ways:
                try:
                    departures.add(self._shared(pieces, parts, cut(way, True)))
                except TemplateError:
                    continue  # a format without tools, say: no request will go on like that
        return Prompt(
            text="".join(texts),
            tokens=tokens,
            boundaries=boundaries,
            messages=shown,
            texts=texts[:-1],
            save_at=_thinned(departures),
            generation_prompt=texts[-1],
            pictures=tuple(pictures),
        )

    def parser(self, tools: Sequence[Mapping[str, Any]] | None, prompt: Prompt) -> Parser:
        """A streaming parser of one reply to `prompt`, in which `tools` may be called."""
        return Parser(tools, format=self.format, in_reasoning=prompt.opens_reasoning, prompt_text=prompt.text)

    def parse(self, reply: str, tools: Sequence[Mapping[str, Any]] | None, prompt: Prompt) -> dict[str, Any]:
        """The assistant message, in OpenAI's chat form, that the whole text of a reply to `prompt` amounts to.

        Its text is remembered for `render`, which may have to show the message in other words.
        """
        parser = self.parser(tools, prompt)
        message = assistant_message([*parser.feed(reply), *parser.finish()])
        self._replies.remember(Place(prompt.texts), prompt.generation_prompt, reply, message)
        return message

    def _written(
        self, place: Place, segment: str, message: dict[str, Any] | None, reply_tokens: ReplyTokens
    ) -> Sequence[int] | None:
        """The tokens that a model wrote for `message`, which is shown as `segment` at `place`, if it did."""
        shown = self._segments.without_end(segment)
        end = segment[len(shown) :]
        known = self._known(shown, end, reply_tokens)
        if known is None and message is not None:
            written = self._replies.find(place, segment, message)
            known = None if written is None else self._known(written, end, reply_tokens)
        return known

    def _known(self, text: str, end: str, reply_tokens: ReplyTokens) -> Sequence[int] | None:
        """The tokens of a reply of this text whose turn the template ends with `end`."""
        closing = self.tokenizer.token_id(end)
        closing = self.tokenizer.eos_ids[0] if closing is None else closing
        for written in self._segments.ends:
            known = reply_tokens(text + written)
            if known is not None:
                return known if known[-1] == closing else [*known[:-1], closing]
        # A reply that was cut off by its length: the template closes the turn that the model left open.
        known = reply_tokens(text)
        return None if known is None else [*known, closing]

    def _shared(self, pieces: list[str], parts: list[Sequence[int]], others: list[str]) -> int:
        """How many tokens the prompt of `pieces`, encoded as `parts`, shares with another that is cut into `others`."""
        position = 0
        for piece, part, other in zip(pieces, parts, others, strict=False):
            if piece != other:
                return position + _common(part, self._segments.encode_new(other))
            position += len(part)
        return position


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            return index
    return min(len(ours), len(theirs))


def _thinned(positions: Iterable[int]) -> list[int]:
    """The first of each group of positions that are near one another; 0, where nothing is to save, is left out."""
    kept: list[int] = []
    for position in sorted(positions):
        if position and (not kept or position - kept[-1] > _NEAR):
            kept.append(position)
    return kept


def _encodable(text: str) -> str:
    """`text` with U+FFFD for halves of surrogate pairs, which no encoding of text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
