"""A tree of sessions drawn for people: one line a node, with its role, its tokens and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rich.text import Text
from rich.tree import Tree as RichTree

from ramet.cli.output import shorten

_ROLE_STYLES = {"system": "magenta", "user": "bold cyan", "assistant": "green", "tool": "yellow"}

NodeT = TypeVar("NodeT")


def message_text(message: Mapping[str, Any] | None) -> str:
    """What a message says, for one line: its text, or the calls that it makes."""
    if message is None:
        return ""
    content = message.get("content")
    if isinstance(content, list):
        content = " ".join(_part_text(part) for part in content if isinstance(part, Mapping))
    parts = [str(content)] if content else []
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        parts.append(f"{function.get('name')}({function.get('arguments')})")
    return " ".join(parts)


def _part_text(part: Mapping[str, Any]) -> str:
    kind = str(part.get("type", "text")).removesuffix("_url")
    return f"[{kind}]" if kind in ("image", "video") else str(part.get("text", ""))


def node_line(
    message: Mapping[str, Any] | None, *, tokens: int, cost: str = "", name: str = "", width: int = 60
) -> Text:
    """`assistant  SELECT ...  14 tokens · 14 computed`: role, text, tokens, and what else the caller knows."""
    role = str(message.get("role", "")) if message is not None else "tokens"
    line = Text()
    if name:
        line.append(f"{name} ", "dim")
    line.append(role, _ROLE_STYLES.get(role, "dim"))
    if text := shorten(message_text(message), width):
        line.append(f"  {text}")
    line.append(f"  {tokens:,} tokens" + (f" · {cost}" if cost else ""), "dim")
    return line


def draw(
    title: Text | str,
    roots: Iterable[NodeT],
    children: Callable[[NodeT], Sequence[NodeT]],
    line: Callable[[NodeT], Text],
) -> RichTree:
    """The tree below `roots`. What follows without a branch is one block of lines: indentation means a branch."""
    drawing = RichTree(title, guide_style="dim")
    waiting = [(root, drawing) for root in reversed(list(roots))]
    while waiting:
        node, parent = waiting.pop()
        block = line(node)
        below = children(node)
        while len(below) == 1:
            block = Text.assemble(block, "\n", line(below[0]))
            below = children(below[0])
        branch = parent.add(block)
        waiting.extend((child, branch) for child in reversed(below))
    return drawing
