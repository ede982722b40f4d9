"""What of the tree is on disk: what is to be written, what is read back, and what is dropped for space."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from torch import Tensor

from ramet.models.states import PAGE_TOKENS
from ramet.tree.disk import PAGE, STATE, Database, PartRow
from ramet.tree.errors import DamagedPart
from ramet.tree.memory import Memory, drop_page
from ramet.tree.node import Node
from ramet.tree.policy import worth
from ramet.tree.segment import Page, Part, SavedState, Segment, path_pages


@dataclass
class Pending:
    """What changed in the tree and is not on disk yet."""

    nodes: dict[str, Node] = field(default_factory=dict)
    """New or newly told, by id; parents first."""
    states: dict[SavedState, None] = field(default_factory=dict)
    """Saved, in that order."""
    moved_parts: dict[int, PartRow] = field(default_factory=dict)
    removed_nodes: list[str] = field(default_factory=list)
    removed_parts: list[int] = field(default_factory=list)
    since: float | None = None
    """When the oldest of these came, in seconds of the monotonic clock; None if there are none."""


class Archive:
    """The disk tier of a tree. Methods are called with the tree's lock held.

    A state on disk has every row before it on disk too.
    """

    def __init__(
        self,
        database: Database,
        memory: Memory,
        budget: int | None,
        lock: threading.RLock,
        place: Callable[[Node], Segment | None],
    ) -> None:
        self.database = database
        self.memory = memory
        self.budget = budget
        """Bytes of pages and states that may be on disk; None for no limit."""
        self.changed = threading.Condition(lock)
        """Told when something is pending, and when it was written."""
        self.place = place
        """The segment at whose end a node ends; None for a node that was pruned."""
        self.bytes = 0
        """Of the pages and states on disk."""
        self.states: dict[SavedState, None] = {}
        """Saved states on disk, in the order they came."""
        self.pending = Pending()
        self.writing = False
        """Whether a batch is on its way to disk, and what it replaces may be gone from there already."""
        self.damaged = 0
        """Stored pages and states found damaged, and dropped."""
        self.restored = 0
        """States read back from disk."""
        self._next_part = 1
        self._fetching: SavedState | None = None

    # --- what the tree tells ---

    def node_changed(self, node: Node) -> None:
        self.pending.nodes[node.id] = node
        self._touch()

    def node_removed(self, node: Node) -> None:
        self.pending.nodes.pop(node.id, None)
        self.pending.removed_nodes.append(node.id)
        self._touch()

    def state_saved(self, state: SavedState) -> None:
        if not state.on_disk:
            self.pending.states[state] = None
            self._touch()

    def rehang(self, segment: Segment) -> None:
        """Hang the parts here and above on nodes that are still there, after others were pruned."""
        for holder in segment.up():
            for page in holder.pages:
                if page is not None:
                    self.rehang_page(page)
            for state in holder.states.values():
                self.rehang_state(state)

    def rehang_page(self, page: Page) -> None:
        """Hang a page on a node that is still there, if the one that it hung on is not."""
        if page.part is not None and self.place(page.part.node) is None:
            page.part = page_part(page.part.id, page, page.stored)
            self.pending.moved_parts[page.part.id] = part_row(page.part, PAGE)
            self._touch()

    def rehang_state(self, state: SavedState) -> None:
        """Hang a state on a node that is still there, if the one that it hung on is not."""
        if state.part is not None and self.place(state.part.node) is None:
            state.part = state_part(state.part.id, state)
            self.pending.moved_parts[state.part.id] = part_row(state.part, STATE)
            self._touch()

    # --- dropping ---

    def forget(self, part: Part, size: int) -> None:
        """Remove a part of `size` bytes from disk."""
        self.bytes -= size
        self.pending.moved_parts.pop(part.id, None)
        self.pending.removed_parts.append(part.id)
        self._touch()

    def drop_state(self, state: SavedState) -> None:
        """Remove a state's copy on disk, with the rows that only it needed there."""
        assert state.part is not None
        self.forget(state.part, self.memory.layout.state_bytes)
        state.part = None
        self.states.pop(state)
        if state.data is None:
            state.segment.states.pop(state.position, None)
        self.count(state, -1)
        self.trim(state.segment)

    def drop_page(self, page: Page) -> None:
        """Remove a page's copy on disk."""
        if page.part is not None:
            self.forget(page.part, self.memory.layout.page_bytes)
            page.part = None
        if page.data is None:
            for holder in page.holders.copy():
                drop_page(page, holder)

    def trim(self, segment: Segment) -> None:
        """Remove the rows here and above that no saved state needs on disk."""
        for part in segment.up():
            need = part.needed_on_disk()
            for page in part.pages[max(0, -(-need // PAGE_TOKENS) - part.first_block) :]:
                if page is not None and page.part is not None and not _needed(page):
                    self.drop_page(page)
            if part.stored_states:
                break

    def make_room(self, needed: int, most: float, keep: Set[SavedState]) -> bool:
        """Drop states worth at most `most`, but none of `keep`, until `needed` more bytes fit the budget.

        Returns whether they do.
        """
        if self.budget is None or self.bytes + needed <= self.budget:
            return True
        clock, layout = self.memory.clock, self.memory.layout
        queue = [
            (worth(state, layout, clock, on_disk=True), number, state)
            for number, state in enumerate(self.states)
            if state is not self._fetching and state not in keep
        ]
        heapq.heapify(queue)
        while queue and self.bytes + needed > self.budget and queue[0][0] <= most:
            self.drop_state(heapq.heappop(queue)[2])
        return self.bytes + needed <= self.budget

    def count(self, state: SavedState, change: int) -> None:
        """Count a state as one that rows on disk are needed for (1), or no longer (-1)."""
        for segment in state.segment.up():
            segment.stored_states += change

    # --- reading ---

    def fetch(self, state: SavedState) -> bool:
        """Bring a state and the rows before it back into memory. False if any was damaged; that is dropped then."""
        memory, pages = self.memory, [page for page in path_pages(state.segment, state.position) if page is not None]
        missing = [page for page in pages if page.data is None]
        held = state.data
        # making room must not take away what is here already, in memory or on disk
        for page in pages:
            page.users += 1
        if held is not None:
            held.owners += 1
        self._fetching = state
        try:
            memory.make_room(len(missing) * memory.layout.page_bytes + (held is None) * memory.layout.state_bytes)
            for page in missing:
                try:
                    memory.fill_page(page, self._read(page, PAGE))
                except DamagedPart:
                    self._lose_page(page)
                    return False
            if held is None:
                try:
                    tensor = self._read(state, STATE)
                except DamagedPart:
                    self.damaged += 1
                    self.drop_state(state)
                    return False
                memory.keep(state, memory.new_state(tensor))
                self.restored += 1
            return True
        finally:
            self._fetching = None
            if held is not None:
                memory.leave_state(held)
            memory.leave_pages(pages)

    def _read(self, copied: Page | SavedState, kind: int) -> Tensor:
        """The copy on disk. Raises DamagedPart."""
        assert copied.part is not None
        try:
            return self.database.read(copied.part.id, kind)
        except DamagedPart:
            if not self.writing:
                raise
        # not damaged if the batch on its way to disk has put a fuller copy of the page in its place
        self.changed.wait_for(lambda: not self.writing)
        assert copied.part is not None
        return self.database.read(copied.part.id, kind)

    def _lose_page(self, page: Page) -> None:
        """Drop a damaged page and every state behind it that needs it."""
        self.damaged += 1
        behind = [
            state
            for holder in page.holders
            for segment in holder.down()
            for state in segment.states.values()
            if state.position > PAGE_TOKENS * page.block and page in path_pages(segment, state.position)
        ]
        for state in behind:
            if state.data is not None:
                self.memory.evict(state)
            if state.part is not None:
                self.drop_state(state)
        self.drop_page(page)

    # --- ids of parts ---

    def new_id(self) -> int:
        self._next_part += 1
        return self._next_part - 1

    def used_id(self, id: int) -> None:
        """An id that is taken: later ones will be greater."""
        self._next_part = max(self._next_part, id + 1)

    def _touch(self) -> None:
        if self.pending.since is None:
            self.pending.since = time.monotonic()
            self.changed.notify_all()


def page_part(id: int, page: Page, rows: int = PAGE_TOKENS) -> Part:
    """Where a page hangs on disk: with as many of its first `rows` rows as one path through it has."""
    holder = max(page.holders, key=lambda segment: segment.rows_in(page.block))
    return Part(id, _node_below(holder), PAGE_TOKENS * page.block + min(rows, holder.rows_in(page.block)))


def state_part(id: int, state: SavedState) -> Part:
    """Where a state hangs on disk."""
    return Part(id, _node_below(state.segment), state.position)


def part_row(part: Part, kind: int) -> PartRow:
    """A part as the database describes it."""
    return PartRow(part.id, kind, part.node.id, part.position)


def _node_below(segment: Segment) -> Node:
    """A node whose path passes through all of `segment`."""
    while not segment.nodes:
        segment = next(iter(segment.children.values()))
    return segment.nodes[0]


def _needed(page: Page) -> bool:
    """Whether the copy on disk is needed by a state on disk, or is the only copy and needed by one in memory."""
    start = PAGE_TOKENS * page.block
    return any(
        holder.needed_on_disk() > start or (page.data is None and holder.needed_in_ram() > start)
        for holder in page.holders
    )
