"""A chat that is kept in a memory, and whose model may use it."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

from ramet.agent.loop import Toolbox
from ramet.chat.messages import text_of
from ramet.memory import Memory, Turn
from ramet.memory.tools import TOOLS, call
from ramet.tree import Node

CONVERSATION = "chat"
"""In the memory, all chats of a terminal are one conversation; each sitting is a session of it."""

Saying = tuple[str, str, str]
"""The node of the question, the text, and the calls of tools as JSON."""
Allow = Callable[[list[Turn], int], bool]
"""(turns that are named, how many others were derived from them) -> whether the user wants all of it forgotten."""


_ID = re.compile(r'"id":\s*("(?:[^"\\]|\\.)*")')


class Remembering:
    """Keeps what is said in one sitting of a chat. Here 'now' is the conversation's clock."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.session = f"{now().isoformat(' ')} {secrets.token_hex(2)}"
        self._stored: dict[Saying, dict[str, Turn]] = defaultdict(dict)
        """What this sitting has put into the memory, by where it was said and by id."""
        self._taken_back: dict[Saying, dict[str, Turn]] = defaultdict(dict)

    def toolbox(self, place: Callable[[], Node | None], allow: Allow | None = None) -> Toolbox:
        """The memory's tools. Calls have the time at which they are made; what is remembered, also the node at `place`.

        It forgets what `allow` says yes to; without that, nothing.
        """

        def run(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
            timed = {**arguments, "time": arguments.get("time") or now().isoformat()}
            if name != "remember":
                return call(self.memory, name, timed)
            node = place()
            found = call(self.memory, name, {**timed, "node": node.id if node is not None else None}, CONVERSATION)
            turn = self.memory.get(found["id"]) if "id" in found else None
            if turn is not None and node is not None:
                self._taken_back.pop(saying(node), None)  # it is said anew
                self._stored[saying(node)][turn.id] = turn
            return found

        def refuse(name: str, arguments: Mapping[str, Any]) -> str | None:
            given = arguments.get("ids")
            if name != "forget" or not isinstance(given, list):
                return None
            ids = [id for id in given if isinstance(id, str)]
            going = self.memory.with_derived(ids)
            if not going:
                return None
            named = [turn for turn in going if turn.id in ids]
            if allow is None:
                return (
                    "nothing was forgotten: the user cannot be asked here. To forget it they can run "
                    f"ramet memory forget {shlex.join(turn.id for turn in named)}, with --store and the memory's place"
                )
            return None if allow(named, len(going) - len(named)) else "nothing was forgotten: the user said no"

        return Toolbox(TOOLS, run, refuse)

    def keep(self, nodes: Sequence[Node], asked: datetime) -> int:
        """Store what user and assistant said in `nodes`, each turn by itself; how many are new in this sitting.

        `asked` is when the user spoke; the assistant did now.
        """
        new = 0
        for node in nodes:
            message = node.message or {}
            speaker = message.get("role")
            text = text_of(message) if speaker in ("user", "assistant") else ""
            place = saying(node)
            id = f"n_{blake2b(f'{self.session} {place}'.encode(), digest_size=12).hexdigest()}"
            if not text.strip() or self.memory.get(id) is not None:
                continue
            self._taken_back.pop(place, None)
            self._stored[place][id] = self.memory.remember(
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

    def take_back(self, left: Iterable[Node], stays: Iterable[Node]) -> None:
        """Forget what this sitting has stored of the nodes `left`, but for what is said in those that stay, too."""
        places = {saying(node) for node in left} - {saying(node) for node in stays}
        gone = set(self.memory.forget([id for place in places for id in self._stored.get(place, ())]))
        for place in places:
            taken = self._stored.pop(place, {})
            self._taken_back[place] |= {id: turn for id, turn in taken.items() if id in gone}

    def bring_back(self, nodes: Iterable[Node]) -> None:
        """Store again what `take_back` has forgotten of these nodes; only that.

        It is as it was, but behind what was said since: it is not put between the turns of another branch.
        """
        places = list(dict.fromkeys(saying(node) for node in nodes))
        back = {place: dict(self._taken_back[place]) for place in places if place in self._taken_back}
        own = {turn.id: turn for turns in back.values() for turn in turns.values() if turn.session == self.session}
        if own:
            since = self.memory.store.end(CONVERSATION) - min(turn.position for turn in own.values())
            for turns in back.values():
                for id in turns.keys() & own.keys():
                    turns[id] = replace(own[id], position=own[id].position + max(since, 0))
        self.memory.remember_turns(turn for turns in back.values() for turn in turns.values())
        for place, turns in back.items():
            self._stored[place] |= turns
            del self._taken_back[place]


def saying(node: Node) -> Saying:
    """What is said in a node, and after which question.

    A reply is another node once more is said after it: templates leave out the reasoning of earlier replies.
    """
    message, asked = node.message or {}, node
    while asked.parent is not None and (asked.message or {}).get("role") != "user":
        asked = asked.parent
    return asked.id, text_of(message), json.dumps(message.get("tool_calls"))


def holding(tree: Sequence[Node], nodes: Iterable[str], removed: Iterable[str]) -> list[str]:
    """Ids of the nodes that still have turns which were `removed` from a memory, and had been said in `nodes`.

    Of the tree, given parents first, the topmost: those in which it was said, and those in which a tool showed a turn
    to the model. After them the rest of `nodes`, which are in another tree or nowhere.
    """
    own = dict.fromkeys(nodes)
    said = {saying(node) for node in tree if node.id in own}
    gone = set(removed)
    found, below = list[str](), set[str]()
    for node in tree:
        own.pop(node.id, None)
        if node.parent is not None and node.parent.id in below:
            below.add(node.id)
        elif saying(node) in said or any(id in gone for id in _shown(node)):
            below.add(node.id)
            found.append(node.id)
    return [*found, *own]


def _shown(node: Node) -> Iterator[str]:
    """The ids of turns, and of whatever else has one, in the results of tools that the model was given."""
    message = node.message or {}
    for one in message.get("messages", [message]):
        for id in _ID.findall(text_of(one)) if one.get("role") == "tool" else ():
            with suppress(ValueError):  # what is no JSON
                yield json.loads(id)


def now() -> datetime:
    """The time here, with its zone, to the second."""
    return datetime.now().astimezone().replace(microsecond=0)
