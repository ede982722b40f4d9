"""The pages and states held in memory, counted in bytes, and what is let go of when they outgrow their budget."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ramet.models.states import PAGE_TOKENS, StateLayout
from ramet.tree.node import Node
from ramet.tree.policy import is_tip, worth, worth_unplaced
from ramet.tree.segment import Page, SavedState, Segment, StateBuffer, blocks, previous_state, segment_at

if TYPE_CHECKING:
    from ramet.tree.cursor import Cursor

SPILL = 4
"""States that go to disk together when one must, for fewer transactions."""


@dataclass(frozen=True)
class Unplaced:
    """A state that a live session saved behind its last node; it becomes the tree's with the next one."""

    cursor: Cursor
    position: int


class Memory:
    """Counts every page and state buffer in memory and keeps their sum under a budget where it can.

    Pages and states of live sessions are never let go of, nor are pinned ones: with those alone over the budget, it is
    overrun rather than a session failed.
    """

    def __init__(self, layout: StateLayout, budget: int) -> None:
        self.layout = layout
        self.budget = budget
        self.bytes = 0
        self.clock = 0
        """Counts sessions opened: the time by which the age of a saved state is measured."""
        self.states: dict[SavedState, None] = {}
        """Saved states in memory, in the order they came."""
        self.cursors: dict[Cursor, None] = {}
        """Live sessions."""
        self.pins: dict[Node, float] = {}
        """Pinned nodes with their deadlines, in seconds of the monotonic clock."""
        self.gap = 1.0
        """How many sessions are opened between two requests of one, by a running mean."""
        self._requests = 0
        self._expected: dict[int, list[SavedState]] = {}
        """Where each request said that the next one may leave it."""
        self.pages_copied = 0
        self.states_evicted = 0
        self.spill: Callable[[list[SavedState]], None] = lambda _: None
        """Called with states about to leave the memory, to put them on disk first where there is one."""
        self.place: Callable[[Node], Segment] = lambda _: next(iter(()))

    # --- buffers ---

    def new_page(self, block: int) -> Page:
        self.make_room(self.layout.page_bytes)
        self.bytes += self.layout.page_bytes
        return Page(block, self.layout.new_page(), 0)

    def copy_page(self, page: Page, rows: int) -> Page:
        """A private copy of a page of which the first `rows` rows are wanted."""
        self.make_room(self.layout.page_bytes)
        self.bytes += self.layout.page_bytes
        self.pages_copied += 1
        assert page.data is not None
        return Page(page.block, copied(page.data), rows)

    def fill_page(self, page: Page, data: Tensor) -> None:
        """Bring a page back into memory, with the rows that its copy on disk holds."""
        self.bytes += self.layout.page_bytes
        page.data = data
        page.fill = page.stored

    def empty_page(self, page: Page) -> None:
        """Let a page's copy in memory go, and with it the rows that the copy on disk lacks."""
        if page.data is not None:
            self.bytes -= self.layout.page_bytes
            page.data = None
        kept = page.stored
        for holder in [holder for holder in page.holders if holder.rows_in(page.block) > kept]:
            drop_page(page, holder)

    def leave_pages(self, pages: Iterable[Page]) -> None:
        """A session no longer reads `pages` (in order of position)."""
        for page in pages:
            page.users -= 1
        needed = False
        for page in reversed(list(pages)):
            if page.users or page.data is None:
                continue
            # the rows before a needed one are needed too
            needed = needed or _needed(page)
            if not page.holders or not needed:
                self.empty_page(page)

    def new_state(self, tensor: Tensor) -> StateBuffer:
        """Count `tensor` (float32 `[state_elements]`) from now on."""
        self.bytes += self.layout.state_bytes
        return StateBuffer(tensor)

    def leave_state(self, buffer: StateBuffer) -> None:
        buffer.owners -= 1
        if not buffer.owners:
            self.bytes -= self.layout.state_bytes

    # --- saved states ---

    def keep(self, state: SavedState, buffer: StateBuffer) -> None:
        """Hold a saved state in memory; takes over one ownership of `buffer`."""
        assert state.data is None
        state.data = buffer
        self.states[state] = None
        for segment in state.segment.up():
            segment.ram_states += 1

    def evict(self, state: SavedState) -> None:
        """Let a saved state's copy in memory go, with the rows that only it needed there."""
        assert state.data is not None
        self.leave_state(state.data)
        state.data = None
        self.states.pop(state)
        for segment in state.segment.up():
            segment.ram_states -= 1
        if state.part is None:
            del state.segment.states[state.position]
            self._bequeath(state)
        self.trim(state.segment)

    def _bequeath(self, gone: SavedState) -> None:
        """Whoever would have asked for a state that is gone asks for the one before it."""
        before = previous_state(gone.segment, gone.position)
        if not before:
            return
        heir = segment_at(gone.segment, before).states[before]
        heir.used = max(heir.used, gone.used)
        if gone.expected_by is not None and heir.expected_by is None:
            heir.expected_by, heir.passed_over = gone.expected_by, False
            self._expected.setdefault(gone.expected_by, []).append(heir)

    def new_request(self) -> int:
        self._requests += 1
        return self._requests

    def expect(self, state: SavedState, request: int) -> None:
        """`request` says that its session may go on from this state."""
        state.expected_by, state.passed_over, state.used = request, False, self.clock
        self._expected.setdefault(request, []).append(state)

    def resumed(self, state: SavedState) -> None:
        """A session goes on from this state, and so not from the others that were expected along with it."""
        state.branched += not is_tip(state, state.segment, on_disk=state.data is None)
        if state.expected_by is not None or is_tip(state, state.segment, on_disk=state.data is None):
            self.gap += (self.clock - state.used - self.gap) / 16
        state.used = self.clock
        if state.expected_by is not None:
            request = state.expected_by
            for other in self._expected.pop(request, []):
                if other.expected_by == request:
                    other.expected_by, other.passed_over = None, other is not state

    def trim(self, segment: Segment) -> None:
        """Let go of the rows here and above that no saved state in memory and no live session needs."""
        for part in segment.up():
            need = part.needed_in_ram()
            first = max(0, blocks(need) - part.first_block)
            for page in part.pages[first:]:
                if page is not None and page.data is not None and not page.users and not _needed(page):
                    self.empty_page(page)
            if part.ram_states:
                break

    def make_room(self, wanted: int) -> None:
        """Evict the least worthy saved states until `wanted` more bytes fit the budget, or nothing more can go."""
        if self.bytes + wanted <= self.budget:
            return
        pinned = self.pinned_states()
        candidates: list[SavedState | Unplaced] = [
            state for state in self.states if state not in pinned and state.data is not None and state.data.owners == 1
        ]
        for cursor in self.cursors:
            candidates += [Unplaced(cursor, at) for at, buffer in cursor.saved.items() if buffer.owners == 1]
        # the number in between decides between equals
        queue = [(self._worth(state), number, state) for number, state in enumerate(candidates)]
        heapq.heapify(queue)
        # some slack, so that not every page asks again
        target = self.budget - wanted - self.budget // 64
        while queue and self.bytes > target:
            _, number, state = heapq.heappop(queue)
            now = self._worth(state)
            if queue and now > queue[0][0] * 1.001:  # it grew with the eviction of the one before it on its path
                heapq.heappush(queue, (now, number, state))
            elif isinstance(state, Unplaced):
                self._forget(state)
                self.states_evicted += 1
            else:
                if state.part is None:
                    others = [other for _, _, other in queue[: SPILL - 1] if isinstance(other, SavedState)]
                    self.spill([state, *others])
                if state.data is not None:
                    self.evict(state)
                    self.states_evicted += 1

    def _forget(self, state: Unplaced) -> None:
        """Let a state go that is not part of the tree yet; the one before it takes its place as in `_bequeath`."""
        cursor, position = state.cursor, state.position
        self.leave_state(cursor.saved.pop(position))
        earlier = [at for at in cursor.saved if at < position]
        if earlier and position in cursor.expected:
            cursor.expected.add(max(earlier))

    def _worth(self, state: SavedState | Unplaced) -> float:
        if isinstance(state, SavedState):
            return worth(state, self.layout, self.clock, self.gap)
        cursor, position = state.cursor, state.position
        before = max((at for at in cursor.saved if at < position), default=0)
        if not before:  # what it resumed from may be gone
            before = previous_state(cursor.segment, max(cursor.resumed, cursor.node.end) + 1)
        return worth_unplaced(
            position - before, position in cursor.expected or position == max(cursor.saved), self.layout
        )

    def pinned_states(self) -> set[SavedState]:
        """The states that pinned nodes' sessions are expected to resume from."""
        now = time.monotonic()
        self.pins = {node: deadline for node, deadline in self.pins.items() if deadline > now}
        pinned = set()
        for node in self.pins:
            latest = True
            for segment in self.place(node).up():
                for position in sorted(segment.states, reverse=True):
                    state = segment.states[position]
                    if state.data is not None and (latest or state.expected_by is not None):
                        pinned.add(state)
                        latest = False
        return pinned


def copied(tensor: Tensor) -> Tensor:
    """A copy made by this thread alone: waiting for torch's others takes longer where the cores are busy."""
    # numpy has no bfloat16
    return torch.from_numpy(tensor.view(torch.uint8).numpy().copy()).view(tensor.dtype)


def drop_page(page: Page, holder: Segment) -> None:
    """Take a page off a segment whose rows it does not hold any more."""
    holder.pages[page.block - holder.first_block] = None
    page.holders.remove(holder)


def _needed(page: Page) -> bool:
    """Whether a saved state in memory lies behind the page's first row."""
    return any(holder.needed_in_ram() > PAGE_TOKENS * page.block for holder in page.holders)
