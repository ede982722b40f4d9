"""A chat that is kept in a memory, and whose model may use it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

from ramet.agent.loop import Toolbox
from ramet.chat.messages import text_of
from ramet.memory import Memory
from ramet.memory.tools import TOOLS, call
from ramet.tree import Node

CONVERSATION = "chat"
"""In the memory, all chats of a terminal are one conversation; each sitting is a session of it."""


class Remembering:
    """Keeps what is said in one sitting of a chat. Here 'now' is the conversation's clock."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.session = f"{now().isoformat(' ')} {secrets.token_hex(2)}"

    def toolbox(self, place: Callable[[], Node | None]) -> Toolbox:
        """The memory's tools. What the model remembers has the time of the call and the node at `place`."""

        def run(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
            if name == "remember":
                node = place()
                arguments = {
                    **arguments,
                    "time": arguments.get("time") or now().isoformat(),
                    "node": node.id if node is not None else None,
                }
            return call(self.memory, name, arguments, CONVERSATION)

        return Toolbox(TOOLS, run)

    def keep(self, nodes: Sequence[Node], asked: datetime) -> int:
        """Store what user and assistant said in `nodes`; how many of them are new in this sitting.

        `asked` is when the user spoke; the assistant did now.
        """
        new = 0
        with self.memory.store.writing():
            for node in nodes:
                message = node.message or {}
                speaker = message.get("role")
                text = text_of(message) if speaker in ("user", "assistant") else ""
                id = f"n_{blake2b(f'{self.session} {node.id}'.encode(), digest_size=12).hexdigest()}"
                if not text.strip() or self.memory.get(id) is not None:
                    continue
                self.memory.remember(
                    text,
                    conversation=CONVERSATION,
                    session=self.session,
                    speaker=str(speaker),
                    time=asked if speaker == "user" else now(),
                    node=node.id,
                    id=id,
                )
                new += 1
        return new


def now() -> datetime:
    """The time here, with its zone, to the second."""
    return datetime.now().astimezone().replace(microsecond=0)
