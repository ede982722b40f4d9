"""The tree of sessions: every conversation that was run, and how to go on from any point of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ramet.models.states import StateLayout
from ramet.tree.archive import Archive
from ramet.tree.cursor import Cursor
from ramet.tree.disk import Database
from ramet.tree.errors import DiskError, NodeInUse
from ramet.tree.match import Match, find, resumable
from ramet.tree.memory import Memory, drop_page
from ramet.tree.node import Bill, Node, Tokens, node_id, root_id
from ramet.tree.nodes import Nodes
from ramet.tree.restore import restore
from ramet.tree.segment import Page, SavedState, Segment, StateBuffer, path_pages, segment_at
from ramet.tree.trunk import grow
from ramet.tree.writer import Writer


@dataclass(frozen=True)
class TreeStats:
    """What the tree holds and has done since it was opened. Sizes in bytes."""

    nodes: int
    sessions: int
    """Live ones: open cursors."""
    ram_bytes: int
    ram_budget: int
    ram_states: int
    pinned_nodes: int
    pages_copied: int
    """Pages copied because two sessions wrote on from the same partly filled one."""
    states_evicted: int
    """States that left the memory for want of room."""
    disk_bytes: int = 0
    disk_budget: int | None = None
    disk_states: int = 0
    states_restored: int = 0
    """States read back from disk."""
    damaged: int = 0
    """Pages and states on disk that were found damaged, and dropped."""
    trouble: str | None = None
    """Why the disk cannot be written to, if it cannot: sessions go on in memory."""


class Tree:
    """Nodes, the radix tree of their tokens, and the states along it, under a byte budget for memory.

    All calls come from one thread, save those that only read (`node`, `children`, `path`, `nodes`, `match`, `stats`)
    and `store`, which may come from any.
    """

    def __init__(
        self,
        layout: StateLayout,
        fingerprint: str,
        *,
        ram_bytes: int,
        directory: Path | None = None,
        disk_bytes: int | None = None,
    ) -> None:
        """A tree for a model's states, at most about `ram_bytes` of them in memory.

        With a `directory`, sessions are kept there too, at most about `disk_bytes` of rows and states, and those that
        are there already are back at once. Raises DiskError if it cannot be used.
        """
        self.lock = threading.RLock()
        self.memory = Memory(layout, ram_bytes)
        self.root = Node(root_id(fingerprint), None, _frozen(np.empty(0, np.int32)), 0)
        self._trunk = Segment(None, 0, self.root.tokens, [])
        self._nodes = Nodes(self.root, self._trunk)
        self.memory.place = self._nodes.place
        self._archive: Archive | None = None
        self._writer: Writer | None = None
        if directory is not None:
            self._open_archive(Database(directory, fingerprint, layout), disk_bytes)

    def _open_archive(self, database: Database, budget: int | None) -> None:
        archive = Archive(database, self.memory, budget, self.lock, self._nodes.find_place)
        try:
            with self.lock:
                restore(archive, self._nodes)
        except DiskError:
            database.close()
            raise
        self._archive, self._writer = archive, Writer(archive)
        self.memory.spill = self._writer.spill

    @property
    def on_disk(self) -> bool:
        """Whether sessions are kept on disk."""
        return self._archive is not None

    # --- reading ---

    def node(self, id: str) -> Node:
        """The node with this id. Raises UnknownNode."""
        with self.lock:
            return self._nodes.get(id)

    def children(self, node: Node) -> list[Node]:
        """The nodes that follow `node`, oldest first."""
        with self.lock:
            return self._nodes.children(node)

    def path(self, node: Node) -> list[Node]:
        """The nodes from the root (left out) to `node`."""
        nodes = []
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def path_tokens(self, node: Node) -> Tokens:
        """All tokens of a session up to the end of `node`, int32 `[node.end]`."""
        return np.concatenate([self.root.tokens, *(step.tokens for step in self.path(node))])

    def nodes(self) -> Iterator[Node]:
        """Every node but the root, parents before children."""
        with self.lock:
            found = self._nodes.below(self.root)
        return iter(found)

    def reply_tokens(self, text: str) -> list[int] | None:
        """The tokens in which a model wrote exactly `text`, the latest if it did so more than once."""
        with self.lock:
            return self._nodes.reply_tokens(text)

    def stats(self) -> TreeStats:
        with self.lock:
            memory, archive = self.memory, self._archive
            stats = TreeStats(
                nodes=len(self._nodes) - 1,
                sessions=len(self.memory.cursors),
                ram_bytes=memory.bytes,
                ram_budget=memory.budget,
                ram_states=len(memory.states),
                pinned_nodes=sum(deadline > time.monotonic() for deadline in memory.pins.values()),
                pages_copied=memory.pages_copied,
                states_evicted=memory.states_evicted,
            )
            if archive is None:
                return stats
            return replace(
                stats,
                disk_bytes=archive.bytes,
                disk_budget=archive.budget,
                disk_states=len(archive.states),
                states_restored=archive.restored,
                damaged=archive.damaged,
                trouble=None if self._writer is None else self._writer.trouble,
            )

    # --- sessions ---

    def match(self, tokens: Sequence[int] | Tokens) -> Match:
        """How much of a prompt the tree knows, where it leaves the tree, and where a session for it can resume."""
        with self.lock:
            return find(self._trunk, np.asarray(tokens, dtype=np.int32))

    def open(
        self,
        tokens: Sequence[int] | Tokens,
        *,
        match: Match | None = None,
        limit: int | None = None,
        boundaries: Sequence[int] = (),
    ) -> Cursor:
        """A live session for a prompt, at the last position (at most `limit`) whose state the tree has.

        Run `tokens[cursor.position:]`, committing a node at each message boundary. `boundaries` are the positions
        where the prompt's messages end: given them, the cursor starts at the deepest node that was cut at just these
        (`cursor.node`; boundaries past its end are still to be committed, even where they lie before the position).
        A `match` that an earlier call gave is used only as long as nothing was pruned since.
        """
        target = np.asarray(tokens, dtype=np.int32)
        with self.lock:
            if match is None:
                match = find(self._trunk, target)
            most = match.position if limit is None else min(match.position, limit)
            return self._open(match.segment, most, target, boundaries)

    def open_at(self, node: Node) -> Cursor:
        """A live session on the path to `node`, at the last saved state; `cursor.target` are the path's tokens."""
        with self.lock:
            place = self._nodes.place(node)
            boundaries = [step.end for step in self.path(node)]
            return self._open(place, node.end, self.path_tokens(node), boundaries)

    def _open(self, segment: Segment, limit: int, target: Tokens, boundaries: Sequence[int]) -> Cursor:
        self.memory.clock += 1
        for part in segment.up():
            part.used = self.memory.clock
        position, segment, pages, buffer = self._resume(segment, limit)
        if boundaries:
            node = self._nodes.cut_at(target, [boundary for boundary in boundaries if boundary <= position])
        else:
            node = next(part.nodes[-1] for part in segment.up() if part.nodes and part.end <= position)
        cursor = Cursor(self, node, segment, target[:position].copy(), pages, buffer, target)
        self.memory.cursors[cursor] = None
        return cursor

    def _resume(self, segment: Segment, limit: int) -> tuple[int, Segment, list[Page], StateBuffer | None]:
        """The last position up to `limit` that can be resumed from, with its pages and state for one more session."""
        while position := resumable(segment, limit):
            part = segment_at(segment, position)
            state = part.states[position]
            pages = [page for page in path_pages(part, position) if page is not None]
            absent = state.data is None or any(page.data is None for page in pages)
            if absent and self._archive is not None and not self._archive.fetch(state):
                continue  # it was damaged, and is not there any more
            assert state.data is not None
            self.memory.resumed(state)
            state.data.owners += 1
            for page in pages:
                page.users += 1
            return position, part, pages, state.data
        return 0, segment_at(segment, 0), [], None

    # --- what cursors ask for ---

    def commit(
        self,
        cursor: Cursor,
        tokens_end: int,
        message: dict[str, Any] | None,
        bill: Bill | None,
        reply: str | None,
    ) -> Node:
        """`Cursor.commit`: add the node and give its rows and saved states to the tree."""
        parent = cursor.node
        tokens = _frozen(cursor.tokens[parent.end : tokens_end].copy())
        segment, spare = grow(self._nodes.place(parent), tokens, cursor.pages, cursor.position)
        self.memory.leave_pages(spare)
        segment.used = self.memory.clock
        id = node_id(parent.id, tokens)
        node = self._nodes.find(id)
        if node is None:
            node = Node(id, parent, tokens, parent.end, message, bill, reply)
            self._nodes.add(node, segment)
            changed = True
        else:
            changed = self._nodes.complete(node, message, bill, reply)
        if changed and self._archive is not None:
            self._archive.node_changed(node)
        if tokens_end >= cursor.resumed:
            cursor.segment = segment
        for position in [at for at in cursor.saved if at <= tokens_end]:
            self.keep(cursor, position, cursor.saved.pop(position))
        return node

    def keep(self, cursor: Cursor, position: int, buffer: StateBuffer) -> None:
        """Hang a state on a cursor's path at `position`, taking over one ownership of `buffer`."""
        segment = segment_at(cursor.segment, position)
        state = segment.states.get(position)
        if state is None:
            state = segment.states[position] = SavedState(segment, position, self.memory.clock)
        if state.data is None:
            self.memory.keep(state, buffer)
            if self._archive is not None:
                self._archive.state_saved(state)
        else:
            self.memory.leave_state(buffer)
        state.used = self.memory.clock
        if position in cursor.expected:
            self.memory.expect(state, cursor.request)

    def expect(self, cursor: Cursor) -> None:
        """`Cursor.expect`: mark the states that are there already on its path."""
        for segment in cursor.segment.up():
            for position, state in segment.states.items():
                if position <= cursor.position:
                    state.expected_by = None
                    if position in cursor.expected:
                        self.memory.expect(state, cursor.request)

    # --- keeping and letting go ---

    def pin(self, node: Node, seconds: float) -> None:
        """Keep what this session will resume from in memory for so long, whatever the budget: its tool is running."""
        with self.lock:
            self._nodes.place(node)
            self.memory.pins[node] = time.monotonic() + seconds

    def unpin(self, node: Node) -> None:
        with self.lock:
            self.memory.pins.pop(node, None)

    def prune(self, node: Node) -> int:
        """Remove a node and all that follow it, their rows and states too; returns how many nodes.

        Raises NodeInUse while a live session is on one of them, UnknownNode if it is not in the tree.
        """
        with self.lock:
            self._nodes.place(node)
            doomed = [*([] if node is self.root else [node]), *self._nodes.below(node)]
            names = {each.id for each in doomed}
            for cursor in self.memory.cursors:
                if cursor.node.id in names:
                    raise NodeInUse(f"a session is running on node {cursor.node.id}: wait for it, or cancel it")
            left = {id(place): place for place in (self._remove(each) for each in reversed(doomed))}
            if self._archive is not None:
                for place in left.values():
                    self._archive.rehang(place)
            return len(doomed)

    def store(self, node: Node) -> None:
        """Return when a session would survive a power cut: its nodes, the last state saved on it, the rows before that.

        Raises DiskError if that cannot be done, or if there is no directory.
        """
        with self.lock:
            place = self._nodes.place(node)
            if self._writer is None:
                raise DiskError("sessions are kept in memory only: give a directory to store them in")
            position = resumable(place, node.end)
            self._writer.store(segment_at(place, position).states[position] if position else None)

    def flush(self) -> None:
        """Return when everything is on disk, if there is a directory. Raises DiskError."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is not on disk yet, and let the directory go. No session may be used after it."""
        if self._archive is not None and self._writer is not None:
            try:
                self._writer.close()
            finally:
                self._archive.database.close()

    def _remove(self, node: Node) -> Segment:
        """Take a leaf node away, with its own tokens; returns the segment that is left where its path was."""
        segment = self._nodes.remove(node)
        self.memory.pins.pop(node, None)
        if self._archive is not None:
            self._archive.node_removed(node)
        while segment.parent is not None and not segment.nodes and not segment.children:
            self._cut_off(segment)
            segment = segment.parent
        return segment

    def _cut_off(self, segment: Segment) -> None:
        """Take a leaf segment out of the tree with everything on it."""
        assert segment.parent is not None
        for state in list(segment.states.values()):
            if state.data is not None:
                self.memory.evict(state)
            if state.part is not None and self._archive is not None:
                self._archive.drop_state(state)
        for page in segment.pages:
            if page is not None:
                drop_page(page, segment)
                if not page.holders:
                    if self._archive is not None:
                        self._archive.drop_page(page)
                    if not page.users:
                        self.memory.empty_page(page)
        del segment.parent.children[int(segment.tokens[0])]


def _frozen(tokens: Tokens) -> Tokens:
    tokens.flags.writeable = False
    return tokens
