"""What the three APIs have in common: one question to the model, in no API's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ramet.chat import Format
from ramet.engine import Grammar, Sampling
from ramet.engine.tool_grammar import tool_calls
from ramet.server.chat_schema import ContentPart, PictureUrl
from ramet.server.errors import ApiError, bad_request

ChatMessage = dict[str, Any]
"""A message in OpenAI's chat form: role, content, tool_calls, tool_call_id, reasoning_content."""

Content = str | list[dict[str, Any]] | None
"""A message's content: text, or parts where it shows pictures."""

_PICTURES = ("image_url", "input_image", "video_url", "video")

Tool = dict[str, Any]
"""A function in OpenAI's form: {"type": "function", "function": {"name", "description", "parameters", "strict"}}."""


@dataclass(frozen=True)
class ToolChoice:
    """Whether tools may, must or must not be called, and which."""

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] | None = None
    """The only tools that may be called; None: all."""
    parallel: bool = True
    """Whether one reply may hold several calls."""


@dataclass(frozen=True)
class TextForm:
    """What the reply's text must be: any JSON object, or JSON that fits a schema."""

    schema: Mapping[str, Any] | None = None
    """None: any object."""

    @property
    def json_schema(self) -> Mapping[str, Any]:
        """The schema that the text must fit."""
        return {"type": "object"} if self.schema is None else self.schema


@dataclass(frozen=True)
class Ask:
    """One question: messages, tools and how to answer. `after` is the node whose tokens are continued, if one is."""

    messages: list[ChatMessage]
    sampling: Sampling
    tools: list[Tool] | None = None
    choice: ToolChoice = ToolChoice()
    form: TextForm | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    """Such as `enable_thinking`; without it the template thinks or not as it does by itself."""
    after: str | None = None
    """Id of the node that ends with the reply before the new messages; None: messages are rendered whole."""
    new_from: int = 0
    """With `after`: index of the first message that follows the node."""
    store: bool = False
    """Whether the reply's node must be on disk before the answer ends."""


def choose(
    tools: Sequence[Tool] | None, mode: Literal["none", "auto", "required"], names: Sequence[str] | None, parallel: bool
) -> ToolChoice:
    """A checked `ToolChoice`. Raises `ApiError` if tools are required but none are given, or a name is unknown."""
    known = [tool["function"]["name"] for tool in tools or ()]
    if not known:
        if mode == "required":
            raise bad_request("tools must be called, but none are given", "tool_choice", "invalid_value")
        return ToolChoice()
    for name in names or ():
        if name not in known:
            raise bad_request(f"there is no tool named {name!r}; the tools are {', '.join(known)}", "tool_choice")
    return ToolChoice(mode, tuple(names) if names is not None else None, parallel)


def check_tools(tools: Sequence[Tool] | None, path: str) -> None:
    """Raise `ApiError` if two tools share a name. `path` is a format string for the name's field, given the index."""
    seen: set[str] = set()
    for index, tool in enumerate(tools or ()):
        name = tool["function"]["name"]
        if name in seen:
            raise bad_request(f"there is another tool named {name!r}", path.format(index), "invalid_value")
        seen.add(name)


def callable_tools(ask: Ask) -> list[Tool]:
    """The tools that a reply may call."""
    if not ask.tools or ask.choice.mode == "none":
        return []
    names = ask.choice.names
    return [tool for tool in ask.tools if names is None or tool["function"]["name"] in names]


def reply_grammar(ask: Ask, format: Format, *, after_reasoning: bool) -> Grammar | None:
    """The grammar that the request holds the reply to; None: the model may write freely.

    Raises GrammarError where a schema cannot be enforced.
    """
    choice, allowed = ask.choice, callable_tools(ask)
    if not ask.tools or choice.mode == "none":
        return None if ask.form is None else Grammar.json_schema(ask.form.json_schema, after_reasoning=after_reasoning)
    strict = any(tool["function"].get("strict") for tool in allowed)
    if choice.mode == "auto" and choice.names is None and choice.parallel and not strict and ask.form is None:
        return None
    return tool_calls(
        allowed,
        choice=choice.mode,
        parallel=choice.parallel,
        after_reasoning=after_reasoning,
        text_schema=None if ask.form is None else ask.form.json_schema,
        format=format,
    )


_RENDERERS_OWN = ("self", "messages", "tools", "add_generation_prompt", "reply_tokens")


def template_variables(effort: str | None, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The variables for the template: those `given` as chat_template_kwargs, and what a reasoning effort means.

    The efforts "none" and "minimal" mean not to think; any other is the template's variable `reasoning_effort`, which
    asks for it in its own words, refuses it, or takes no notice. What is among the variables comes first. Raises
    `ApiError` if a variable is not the client's to set.
    """
    variables = dict(given or {})
    for name in _RENDERERS_OWN:
        if name in variables:
            raise bad_request(f"{name!r} is not a variable that can be set here", f"chat_template_kwargs.{name}")
    think = variables.get("enable_thinking")
    if think is not None and not isinstance(think, bool):
        raise bad_request("enable_thinking is true or false", "chat_template_kwargs.enable_thinking", "invalid_type")
    if effort is not None:
        thinks = effort not in ("none", "minimal")
        variables |= {"enable_thinking": thinks} if think is None else {}
        variables = {"reasoning_effort": effort, **variables} if thinks else variables
    return variables


def content_of(parts: str | Sequence[ContentPart] | None, path: str, *, sees: bool) -> Content:
    """A message's content: its text, or, where it shows pictures, its parts in OpenAI's chat form.

    `sees`: the model reads pictures. Raises `ApiError` naming the part that is not served.
    """
    if parts is None or isinstance(parts, str):
        return parts
    content: list[dict[str, Any]] = []
    texts: list[str] = []
    for index, part in enumerate(parts):
        if sees and part.type in _PICTURES:
            content += [{"type": "text", "text": text} for text in texts]
            content.append(_picture(part, f"{path}[{index}]"))
            texts = []
            continue
        if part.type in ("text", "input_text", "output_text") and part.text is not None:
            texts.append(part.text)
        elif part.type == "refusal" and part.refusal is not None:
            texts.append(part.refusal)
        elif part.type in ("text", "input_text", "output_text", "refusal"):
            raise bad_request(f"a part of type {part.type!r} needs its text", f"{path}[{index}]")
        else:
            raise not_served("parts", part.type, sees, f"{path}[{index}].type")
    if not content:
        return "".join(texts)
    return [*content, *({"type": "text", "text": text} for text in texts)]


def not_served(what: str, kind: str, sees: bool, path: str) -> ApiError:
    """The error for a part or block of content that the model cannot read."""
    reads = "text, pictures and films" if sees else "text"
    return bad_request(f"{what} of type {kind!r} are not served: this model reads {reads} only", path)


def _picture(part: ContentPart, path: str) -> dict[str, Any]:
    """A picture or a film as a part in OpenAI's chat form."""
    field = "image_url" if part.type in ("image_url", "input_image") else part.type
    value = getattr(part, field, None)
    if part.file_id is not None and value is None:
        raise bad_request("files are not kept here: send the picture itself as a data: URL", f"{path}.file_id")
    if value is None:
        raise bad_request(f"'{path}.{field}' is required", f"{path}.{field}", "missing_required_parameter")
    if isinstance(value, PictureUrl):
        value = value.url
    told = {} if part.fps is None else {"fps": part.fps}
    if field == "video":
        return {"type": "video", "video": value, **told}
    return {"type": field, field: {"url": value}, **told}
