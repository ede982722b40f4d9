"""OpenAI-form messages, checked and put into the form that chat templates read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ramet.errors import RametError

_READS = {False: "only text can be read", True: "only text, pictures and films can be read"}
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names under which clients send an assistant's reasoning, the standard one first."""


_IMAGES = ("image", "image_url")
_VIDEOS = ("video", "video_url")


def is_video(part: Any) -> bool:
    """Whether a part of a content is a film."""
    return isinstance(part, Mapping) and part.get("type") in _VIDEOS


def is_picture(part: Any) -> bool:
    """Whether a part of a content is a picture or a film."""
    return isinstance(part, Mapping) and part.get("type") in _IMAGES + _VIDEOS


class MessageError(RametError):
    """A conversation is not in OpenAI's chat form; the message names the place."""


def each_part(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of every content that is a list, and its place."""
    for place, message in _each(messages, "messages"):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list | tuple) else ()):
            yield f"{place}.content[{index}]", part


def for_template(messages: Sequence[Mapping[str, Any]], *, sight: bool = False) -> list[dict[str, Any]]:
    """Copies of `messages` as templates expect them; the originals are left alone.

    Fields that are None go (templates would print them), a call's arguments become an object, reasoning is called
    `reasoning_content`, the role `developer` is `system`, and system messages that open a conversation become one.
    Pictures are for models with `sight`. Raises MessageError where a message has not the form it should have.
    """
    plain: list[dict[str, Any]] = []
    for place, message in _each(messages, "messages"):
        copy = {key: value for key, value in message.items() if value is not None}
        if not isinstance(copy.get("role"), str):
            raise MessageError(f"{place} has no role")
        if copy["role"] == "developer":
            copy["role"] = "system"
        _check_content(copy.get("content"), place, sight)
        reasoning = next((copy[name] for name in _REASONING if isinstance(copy.get(name), str)), None)
        if reasoning is not None:
            copy["reasoning_content"] = reasoning
        if "tool_calls" in copy:
            copy["tool_calls"] = _calls(copy["tool_calls"], f"{place}.tool_calls")
        if copy["role"] == "system" and plain and all(earlier["role"] == "system" for earlier in plain):
            plain[0] = {**plain[0], "content": f"{text_of(plain[0])}\n\n{text_of(copy)}"}
        else:
            plain.append(copy)
    return plain


def _each(messages: Sequence[Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each message and its place; one that holds `messages` (a turn of several results) stands for those."""
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise MessageError(f"{place}[{index}] is not an object")
        if isinstance(message.get("messages"), list):
            yield from _each(message["messages"], f"{place}[{index}].messages")
        else:
            yield f"{place}[{index}]", message


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message's content, its parts joined."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text", "") for part in content)


def _check_content(content: Any, place: str, sight: bool) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, Sequence):
        raise MessageError(f"{place}.content must be text or a list of parts, not {type(content).__name__}")
    for index, part in enumerate(content):
        if not isinstance(part, Mapping):
            raise MessageError(f"{place}.content[{index}] is not an object")
        if sight and is_picture(part):
            continue
        if not isinstance(part.get("text"), str):
            kind = part.get("type", "unknown")
            raise MessageError(f"{place}.content[{index}] is of type {kind!r}; {_READS[sight]}")


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise MessageError(f"{place} must be a list")
    plain = []
    for index, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise MessageError(f"{place}[{index}] names no function")
        arguments = _arguments(function.get("arguments"), f"{place}[{index}].function.arguments")
        function = {**function, "arguments": arguments}
        plain.append({**call, "function": function} if "function" in call else function)
    return plain


def _arguments(arguments: Any, place: str) -> dict[str, Any]:
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}  # what clients send for a call without any
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise MessageError(f"{place} is not valid JSON ({error})") from error
        except RecursionError as error:
            raise MessageError(f"{place} is nested too deeply") from error
    if not isinstance(arguments, Mapping):
        raise MessageError(f"{place} must be a JSON object")
    return dict(arguments)
