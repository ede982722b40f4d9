"""The thread that puts what changed in the tree on disk: some time later, or when someone waits for it."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ramet.models.states import PAGE_TOKENS
from ramet.tree.archive import Archive, Pending, page_part, part_row, state_part
from ramet.tree.disk import PAGE, STATE, Batch, NodeRow
from ramet.tree.errors import DiskError
from ramet.tree.node import Node
from ramet.tree.policy import worth
from ramet.tree.segment import Page, Part, SavedState, path_pages

WRITE_DELAY = 1.0
"""Seconds that a change waits for others before it is written, unless someone waits for it."""
RETRY_DELAY = 30.0
"""Seconds before writing is tried again after it failed."""
BATCH_BYTES = 64 << 20
"""States and pages per transaction, roughly."""


@dataclass
class _Errand:
    """A write that someone waits for."""

    states: list[SavedState] = field(default_factory=list)
    durable: bool = False
    """Whether it must survive a power cut; its states are then worth more than any other."""
    done: bool = False
    error: DiskError | None = None


@dataclass
class _Taken:
    """A batch on its way to disk and what it stands for."""

    batch: Batch
    pending: Pending
    errands: list[_Errand]
    pages: dict[Page, Part] = field(default_factory=dict)
    states: dict[SavedState, Part] = field(default_factory=dict)
    unfit: set[SavedState] = field(default_factory=set)
    """States that must be stored and for which there was no room."""


class Writer:
    """Writes what is pending in an `Archive`. Its methods take the tree's lock, or find it held.

    The worthiest states go first; those that were superseded and dropped before their turn are never written.
    """

    def __init__(self, archive: Archive) -> None:
        self.trouble: str | None = None
        """Why the last write failed; None once one succeeds."""
        self._archive = archive
        self._changed = archive.changed
        self._errands: list[_Errand] = []
        self._retry_at = 0.0
        self._closing = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ramet-tree-writer", daemon=True)
        self._thread.start()

    # --- waiting for the disk ---

    def spill(self, states: list[SavedState]) -> None:
        """Write states now, so that they may leave the memory. Gives up at once while the disk fails."""
        if time.monotonic() >= self._retry_at:
            with self._changed:
                self._wait(_Errand(states))

    def store(self, state: SavedState | None) -> None:
        """Return when every node so far, and `state` with the rows before it, would survive a power cut.

        Raises DiskError if they cannot be written, or do not fit the budget.
        """
        with self._changed:
            self._wait(_Errand([] if state is None else [state], durable=True), raising=True)

    def flush(self) -> None:
        """Return when everything so far is on disk, as far as it fits the budget. Raises DiskError."""
        with self._changed:
            self._wait(_Errand(durable=True), raising=True)
            while self._archive.pending.states:
                self._wait(_Errand(durable=True), raising=True)

    def close(self) -> None:
        """Write what is pending, and stop. Raises DiskError if it cannot be written."""
        try:
            if not self._stopped:
                self.flush()
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join()

    def _wait(self, errand: _Errand, raising: bool = False) -> None:
        self._errands.append(errand)
        self._changed.notify_all()
        self._changed.wait_for(lambda: errand.done or self._stopped)
        if raising and not errand.done:
            raise DiskError(f"the sessions in {self._archive.database.path} are closed")
        if raising and errand.error is not None:
            raise errand.error

    # --- the thread ---

    def _run(self) -> None:
        try:
            while self._write_next():
                pass
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def _write_next(self) -> bool:
        """Wait for something to write, and write it; False when closing."""
        with self._changed:
            while not self._errands and not self._closing and (pause := self._pause()) != 0:
                self._changed.wait(pause)
            if self._closing and not self._errands:
                return False
            taken = self._take()
            self._archive.writing = True
        error = None
        try:
            self._archive.database.write(taken.batch, durable=any(errand.durable for errand in taken.errands))
            if taken.batch.removed_parts:
                self._archive.database.shrink()
        except DiskError as failure:
            error = failure
        with self._changed:
            if error is None:
                self._written(taken)
            else:
                self._failed(taken, error)
            self._archive.writing = False
            for errand in taken.errands:
                errand.done, errand.error = True, error or self._unfit(errand, taken)
            self._changed.notify_all()
        return True

    def _unfit(self, errand: _Errand, taken: _Taken) -> DiskError | None:
        """What to tell someone whose session had to be stored, and did not fit."""
        if not errand.durable or taken.unfit.isdisjoint(errand.states):
            return None
        path, budget = self._archive.database.path, self._archive.budget
        return DiskError(f"the session does not fit in {path}: it may hold {budget} bytes; allow it more")

    def _pause(self) -> float | None:
        """Seconds until there is something to write; None if there is nothing."""
        since = self._archive.pending.since
        if since is None:
            return None
        return max(0.0, max(since + WRITE_DELAY, self._retry_at) - time.monotonic())

    def _take(self) -> _Taken:
        """The next batch: all changes of nodes, the states that are waited for, and the worthiest of the others."""
        archive, memory = self._archive, self._archive.memory
        taken = _Taken(Batch(), archive.pending, self._errands)
        insisted = {state for errand in self._errands if errand.durable for state in errand.states}
        wanted = [state for errand in self._errands for state in errand.states]
        others = [state for state in archive.pending.states if state.data is not None and not state.on_disk]
        others.sort(key=lambda state: worth(state, memory.layout, memory.clock, on_disk=True), reverse=True)
        left = dict.fromkeys(others)
        size = 0
        for state in dict.fromkeys(wanted + others):
            if size >= BATCH_BYTES and state not in wanted:
                break
            left.pop(state, None)
            if state.data is not None and not state.on_disk:
                most = math.inf if state in insisted else worth(state, memory.layout, memory.clock, on_disk=True)
                planned = self._plan(state, size, most, insisted, taken)
                size += planned
                if not planned and state in insisted:
                    taken.unfit.add(state)
        # what was dropped to make room goes in the same transaction as what needs the room
        pending, self._errands = archive.pending, []
        archive.pending = Pending(states=left, since=time.monotonic() if left else None)
        taken.batch = Batch(
            nodes=[_node_row(node) for node in pending.nodes.values()],
            parts=[
                *((part_row(part, PAGE), page.data) for page, part in taken.pages.items() if page.data is not None),
                *((part_row(part, STATE), state.data.tensor) for state, part in taken.states.items() if state.data),
            ],
            moved_parts=list(pending.moved_parts.values()),
            removed_nodes=pending.removed_nodes,
            removed_parts=pending.removed_parts + [page.part.id for page in taken.pages if page.part is not None],
        )
        return taken

    def _plan(self, state: SavedState, size: int, most: float, keep: set[SavedState], taken: _Taken) -> int:
        """Add a state and the rows it lacks on disk to a batch; returns the bytes that adds, 0 if there is no room.

        Room is made by dropping states worth at most `most`, but none of `keep`.
        """
        archive, layout = self._archive, self._archive.memory.layout
        pages = []
        for page in path_pages(state.segment, state.position):
            assert page is not None
            if page not in taken.pages and page.stored < min(state.position - PAGE_TOKENS * page.block, PAGE_TOKENS):
                pages.append(page)
        # from here on the rows that are on disk already must stay there
        state.writing = True
        archive.count(state, 1)
        needed = layout.state_bytes + layout.page_bytes * len(pages)
        if not archive.make_room(size + needed, most, keep):
            self._give_up(state)
            return 0
        taken.pages.update({page: page_part(archive.new_id(), page) for page in pages})
        taken.states[state] = state_part(archive.new_id(), state)
        return needed

    def _give_up(self, state: SavedState) -> None:
        state.writing = False
        self._archive.count(state, -1)
        self._archive.trim(state.segment)

    def _written(self, taken: _Taken) -> None:
        """A batch is on disk: mark what it stands for, unless that went away meanwhile."""
        archive, layout = self._archive, self._archive.memory.layout
        self.trouble, self._retry_at = None, 0.0
        for page, part in taken.pages.items():
            archive.bytes += layout.page_bytes if page.part is None else 0
            page.part = part
            if page.holders:
                archive.rehang_page(page)
            else:
                archive.drop_page(page)
        for state, part in taken.states.items():
            archive.bytes += layout.state_bytes
            if state.segment.states.get(state.position) is state:
                state.writing, state.part = False, part
                archive.states[state] = None
                archive.rehang_state(state)
            else:
                archive.forget(part, layout.state_bytes)
                self._give_up(state)
        for page in taken.pages:
            for holder in page.holders.copy():
                archive.trim(holder)

    def _failed(self, taken: _Taken, error: DiskError) -> None:
        """A batch is not on disk: put everything back, to be tried again later."""
        archive, before = self._archive, taken.pending
        self.trouble, self._retry_at = str(error), time.monotonic() + RETRY_DELAY
        for state in taken.states:
            self._give_up(state)
        nodes = {id: node for id, node in before.nodes.items() if archive.place(node) is not None}
        after = archive.pending
        archive.pending = Pending(
            nodes=nodes | after.nodes,
            states=dict.fromkeys(state for state in taken.states if state.data is not None) | after.states,
            moved_parts=before.moved_parts | after.moved_parts,
            removed_nodes=before.removed_nodes + after.removed_nodes,
            removed_parts=before.removed_parts + after.removed_parts,
            since=time.monotonic(),
        )


def _node_row(node: Node) -> NodeRow:
    assert node.parent is not None
    told: dict[str, Any] = {}
    if node.message is not None:
        told["message"] = node.message
    if node.bill is not None:
        told["bill"] = [node.bill.computed, node.bill.reused, node.bill.seconds, node.bill.made]
    if node.reply is not None:
        told["written"] = node.reply
    return NodeRow(node.id, node.parent.id, node.tokens.astype("<i4", copy=False).tobytes(), told)
