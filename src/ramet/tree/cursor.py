"""A live session: the tokens it has run, the pages it reads and writes, and its working state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ramet.models.states import PAGE_TOKENS, Span
from ramet.tree.memory import copied
from ramet.tree.node import Bill, Node, Tokens
from ramet.tree.segment import Page, Segment, StateBuffer, blocks

if TYPE_CHECKING:
    from ramet.tree.tree import Tree


class Cursor:
    """A session that is being run. Made by `Tree.open`, `Tree.open_at` and `Cursor.fork`; close it when done.

    A step is `span = cursor.span(tokens)`, `model.forward([span, ...])`, `cursor.advance(len(tokens))`. A cursor whose
    forward failed is good for nothing but `close()`: what it had not committed or saved is lost, the tree is not.
    """

    def __init__(
        self,
        tree: Tree,
        node: Node,
        segment: Segment,
        tokens: Tokens,
        pages: list[Page],
        state: StateBuffer | None,
        target: Tokens,
    ) -> None:
        self.node = node
        """The last node on this session's path: the parent of the next one to be committed."""
        self.target = target
        """The tokens (int32) that the cursor was opened for; `target[position:]` are still to be run."""
        self.resumed = len(tokens)
        """The position at which the session was opened."""
        self.segment = segment
        """How far this session's path is part of the tree."""
        self._tree = tree
        self._tokens = tokens
        self._count = len(tokens)
        self.pages = pages
        self._buffers: list[Tensor] = [page.data for page in pages if page.data is not None]
        self._state = state  # None: zeros, at position 0
        self.saved: dict[int, StateBuffer] = {}  # at positions past the last node
        self.expected: set[int] = set()
        self.request = tree.memory.new_request()
        self._running = 0  # tokens of the span that was handed out and not advanced over
        self._closed = False

    @property
    def position(self) -> int:
        """How many tokens have been run."""
        return self._count

    @property
    def tokens(self) -> Tokens:
        """The tokens that have been run, int32 `[position]`; a view, not to be written."""
        return self._tokens[: self._count]

    @property
    def closed(self) -> bool:
        return self._closed

    def span(self, tokens: Sequence[int], logits: int = 1) -> Span:
        """The next `tokens` (at least one) as a span for `Model.forward`, with pages and state that it may write.

        Copies the last page if another session has gone on in it, and the state if someone else refers to it.
        """
        self._check_open()
        if not len(tokens):
            raise ValueError("a span needs at least one token")
        if self._running:
            raise ValueError("advance over the last span before asking for another")
        memory, offset = self._tree.memory, self._count % PAGE_TOKENS
        end = self._count + len(tokens)
        with self._tree.lock:
            if offset:
                page = self.pages[-1]
                if page.fill != offset:
                    copy = memory.copy_page(page, offset)
                    copy.users = 1
                    self.pages[-1] = copy
                    self._buffers[-1] = _data(copy)
                    memory.leave_pages([page])
            for block in range(len(self.pages), blocks(end)):
                page = memory.new_page(block)
                page.users = 1
                self.pages.append(page)
                self._buffers.append(_data(page))
            for page in self.pages[self._count // PAGE_TOKENS :]:
                page.fill = min(end - PAGE_TOKENS * page.block, PAGE_TOKENS)
            state = self._writable_state()
        self._running = len(tokens)
        self._append(tokens)
        return Span(torch.tensor(list(tokens), dtype=torch.int64), self._count, self._buffers, state, logits)

    def read_back(self, span: Span) -> None:
        """The tokens of the span that was handed out are known only now: take them from it."""
        self._tokens[self._count : self._count + self._running] = span.tokens.numpy()

    def advance(self, count: int) -> None:
        """The `count` tokens of the last span have been run: they are part of the session now."""
        if count != self._running:
            raise ValueError(f"the last span has {self._running} tokens, not {count}")
        self._count += count
        self._running = 0

    def save(self) -> None:
        """Keep the state at this position, so that sessions can resume here. Copies nothing until the next span."""
        self._check_open()
        if self._running:
            raise ValueError("advance over the last span before saving")
        if self._state is None or self._count in self.saved:
            return
        with self._tree.lock:
            self._state.owners += 1
            if self._count == self.node.end:
                self._tree.keep(self, self._count, self._state)
            else:
                self.saved[self._count] = self._state

    def expect(self, positions: Sequence[int]) -> None:
        """Say where this session's next request may leave its path: states saved there are kept the longest.

        Replaces what earlier requests on the same path expected. May be called again as the session grows.
        """
        self._check_open()
        self.expected = {int(position) for position in positions}
        with self._tree.lock:
            self._tree.expect(self)

    def commit(
        self,
        tokens_end: int,
        message: dict[str, Any] | None = None,
        bill: Bill | None = None,
        reply: str | None = None,
    ) -> Node:
        """Make the tokens from the last node's end up to `tokens_end` (at most `position`) a node, or find it.

        A `reply` is the text of these tokens where a model wrote them: they are remembered as how it was written.
        States saved on the way become part of the tree. Raises ValueError for an end that is not in
        (node.end, position].
        """
        self._check_open()
        if not self.node.end < tokens_end <= self._count:
            raise ValueError(f"a node must end in ({self.node.end}, {self._count}], not at {tokens_end}")
        with self._tree.lock:
            self.node = self._tree.commit(self, tokens_end, message, bill, reply)
            self._buffers[:] = [_data(page) for page in self.pages]
        return self.node

    def fork(self) -> Cursor:
        """Another session that begins with everything this one has run. Copies no rows and no state."""
        self._check_open()
        if self._running:
            raise ValueError("advance over the last span before forking")
        tree = self._tree
        with tree.lock:
            for page in self.pages:
                page.users += 1
            if self._state is not None:
                self._state.owners += 1
            for buffer in self.saved.values():
                buffer.owners += 1
            other = Cursor(
                tree, self.node, self.segment, self.tokens.copy(), self.pages.copy(), self._state, self.target
            )
            other.resumed = self.resumed
            other.saved = self.saved.copy()
            other.expected = self.expected.copy()
            tree.memory.cursors[other] = None
            return other

    def close_before(self, position: int) -> None:
        """End a fork that was not to be: whoever stands at `position` may write on where it wrote, in place."""
        if position % PAGE_TOKENS:
            page = self.pages[position // PAGE_TOKENS]
            if page.users > 1 and page.fill == min(self._count - PAGE_TOKENS * page.block, PAGE_TOKENS):
                page.fill = position % PAGE_TOKENS
        self.close()

    def close(self) -> None:
        """End the session: what it has not committed is forgotten. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        tree = self._tree
        with tree.lock:
            del tree.memory.cursors[self]
            for buffer in (*self.saved.values(), *([] if self._state is None else [self._state])):
                tree.memory.leave_state(buffer)
            tree.memory.leave_pages(self.pages)
        self.pages, self._buffers, self.saved, self._state = [], [], {}, None

    def _writable_state(self) -> Tensor:
        memory = self._tree.memory
        if self._state is None or self._state.owners > 1:
            memory.make_room(memory.layout.state_bytes)
            old = self._state
            self._state = memory.new_state(memory.layout.new_state() if old is None else copied(old.tensor))
            if old is not None:
                memory.leave_state(old)
        return self._state.tensor

    def _append(self, tokens: Sequence[int]) -> None:
        """Write tokens behind those that were run, growing the array by doubling."""
        end = self._count + len(tokens)
        if end > len(self._tokens):
            grown = np.empty(max(end, 2 * len(self._tokens), 256), dtype=np.int32)
            grown[: self._count] = self._tokens[: self._count]
            self._tokens = grown
        self._tokens[self._count : end] = tokens

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this session is closed")


def _data(page: Page) -> Tensor:
    assert page.data is not None
    return page.data
