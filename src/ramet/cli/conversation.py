"""A chat as a place in a tree: every reply is a node, going back is choosing an ancestor."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from ramet.agent.loop import Called, Calling, Message, Toolbox, run
from ramet.agent.stream import Piece, reply
from ramet.engine import FinishEvent, Sampling
from ramet.engine.runtime import Runtime
from ramet.errors import RametError
from ramet.tree import Node

Content = str | list[dict[str, Any]]
"""What a user says: text, or parts in OpenAI's chat form, which may be pictures."""


class ChatError(RametError):
    """A chat command that cannot be followed here."""


class Conversation:
    """Where a terminal chat is in the tree, and the moves that it can make."""

    def __init__(self, runtime: Runtime, *, system: str | None = None, sampling: Sampling) -> None:
        self.runtime = runtime
        self.system = system
        self.sampling = sampling
        self.toolbox: Toolbox | None = None
        """What the model may call; None: the calls of a session that an agent began are shown and not run."""
        self.node: Node | None = None
        """The last reply (or, after going back, the one before); None at the start."""
        self.question: Content | None = None
        """What the user said last: what `retry` asks again."""

    def messages(self) -> list[dict[str, Any]]:
        """The messages from the start to here, in chat form."""
        said: list[dict[str, Any]] = []
        for node in self.path():
            if node.message is not None:
                # Results of tools that share a turn are one node.
                said += node.message.get("messages", [{k: v for k, v in node.message.items() if k != "tools"}])
        if self.system is not None and not said:
            said.insert(0, {"role": "system", "content": self.system})
        return said

    def tools(self) -> list[dict[str, Any]] | None:
        """Our tools, behind those of a session that an agent began: they are part of its prompt, also where nobody can
        run them."""
        path = self.path()
        begun = path[0].message.get("tools") if path and path[0].message is not None else None
        if self.toolbox is None:
            return begun
        ours = {tool["function"]["name"] for tool in self.toolbox.tools}
        return [*(tool for tool in begun or () if _name(tool) not in ours), *self.toolbox.tools]

    def exchange(self) -> list[Node]:
        """The nodes from the last question to here."""
        path = self.path()
        asked = self.last_question(path)
        return path[asked[0] :] if asked is not None else []

    def path(self) -> list[Node]:
        """The nodes from the first message to here."""
        return self.runtime.tree.path(self.node) if self.node is not None else []

    def say(self, content: Content) -> Generator[Piece | FinishEvent | Calling | Called]:
        """Ask and stream the reply, and what its calls of tools come to; ends with the FinishEvent of the last reply.

        The place moves only when the answer is whole. Closing the iterator early cancels it.
        """
        self.question = content
        before, whole, last = self.node, False, None
        asked: list[Message] = [{"role": "user", "content": content}]
        answer = self._reply(asked, True) if self.toolbox is None else run(self._reply, asked, self.toolbox)
        try:
            with closing(answer):
                for last in answer:
                    yield last
            whole = isinstance(last, FinishEvent) and last.node is not None and not _broke_off(last)
        finally:
            if not whole:
                self.node = before

    def _reply(self, said: list[Message], may_call: bool) -> Generator[Piece | FinishEvent]:
        """The reply to what is new here; the place moves to it when it is whole."""
        messages, choice = [*self.messages(), *said], "auto" if may_call else "none"
        for event in reply(
            self.runtime, messages, self.tools(), sampling=self.sampling, choice=choice, label="chat"
        ):  # fmt: skip
            if isinstance(event, FinishEvent) and event.node is not None and not _broke_off(event):
                self.node = self.runtime.tree.node(event.node)
            yield event

    def retry(self) -> Generator[Piece | FinishEvent | Calling | Called]:
        """Ask the last question again, from where it was asked: its new reply is a sibling of the old one."""
        if self.question is None:
            raise ChatError("there is nothing to ask again yet")
        question = self.question
        if self.node is not None and (asked := self.last_question(self.path())) is not None:
            index, before = asked
            if before == question:
                self.node = self.path()[index].parent
        return self.say(question)

    def back(self, turns: int) -> None:
        """Go back to before the last `turns` questions. Raises ChatError if there were not that many."""
        path = self.path()
        for done in range(turns):
            asked = self.last_question(path)
            if asked is None:
                raise ChatError(f"only {done} {'turn' if done == 1 else 'turns'} to go back")
            path = path[: asked[0]]
        self.node = path[-1] if path else None
        self.question = None

    def go(self, name: str) -> None:
        """Go to the node whose id begins with `name`. Raises ChatError if none or several do."""
        found = [node for node in self.runtime.tree.nodes() if node.id.startswith(name)]
        if len(found) != 1:
            raise ChatError(f"no node begins with {name!r}" if not found else f"{len(found)} nodes begin with {name!r}")
        self.node = found[0]
        asked = self.last_question(self.path())
        self.question = asked[1] if asked is not None else None

    @staticmethod
    def last_question(path: Sequence[Node]) -> tuple[int, Content] | None:
        """Index in `path` and content of the last user message."""
        for index in range(len(path) - 1, -1, -1):
            message = path[index].message
            if message is not None and message.get("role") == "user":
                content = message.get("content")
                return index, content if isinstance(content, list) else str(content)
        return None


def _broke_off(finish: FinishEvent) -> bool:
    return finish.reason in ("cancelled", "error")


def _name(tool: dict[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))
