"""What the tests of the tree share: a small real model, sessions run cold, and a check of all the books."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ramet.models import load
from ramet.models.base import Model
from ramet.models.random import write_random_checkpoint
from ramet.models.states import PAGE_TOKENS, Recurrent, Rows, Span, StateLayout
from ramet.tree import Cursor, Node, Tree
from ramet.tree.segment import Page, blocks, path_pages

MEMORY = "/dev/shm"
"""Where files cost no waiting for a disk; any folder will do."""


def quick_folder() -> Path:
    """A new folder in memory where there is one; the caller removes it."""
    return Path(tempfile.mkdtemp(dir=MEMORY if Path(MEMORY).is_dir() else None))


@functools.cache
def tiny_model(dtype: torch.dtype = torch.float32, preset: str = "tiny") -> Model:
    """A random model, a Qwen3.5 of four layers, through the compiled kernels; rows have its weights' precision."""
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(folder, seed=7, dtype=dtype, preset=preset)
        return load(folder)


class Recorder:
    """Stands where a model would when only the books matter: a state is a running hash, a row is the state after it.

    Its logits are the state and a sum over all rows, so a wrong row or state anywhere shows. All in whole numbers, so
    that however a session is cut the bits are the same; and quick, for processes that are killed by the hundred.
    """

    def __init__(self, row: int = 8, state: int = 32) -> None:
        self.layout = StateLayout((Rows("row", (row, PAGE_TOKENS)),), (Recurrent("hash", (state,)),))
        self.fingerprint = f"recorder {row} {state}"
        self.row, self.state = row, state

    def forward(self, spans: Sequence[Span]) -> Tensor:
        modulus, found = 1 << 20, []
        for span in spans:
            end = span.position + len(span.tokens)
            steps = (span.tokens + 1) * torch.arange(span.position + 1, end + 1) * 2654435761 % modulus
            hashes = (int(span.state[0]) + steps.cumsum(0)) % modulus
            states = (hashes[:, None] * torch.arange(1, 2 * self.state, 2) % modulus).float()
            for block in range(span.position // PAGE_TOKENS, blocks(end)):
                first, last = max(span.position, PAGE_TOKENS * block), min(end, PAGE_TOKENS * (block + 1))
                new = states[first - span.position : last - span.position, : self.row].T
                self._rows(span.pages[block])[:, first - PAGE_TOKENS * block : last - PAGE_TOKENS * block] = new
            span.state[: self.state] = states[-1]
            rows = torch.cat([self._rows(page) for page in span.pages[: blocks(end)]], 1)[:, :end]
            total = (rows.long() * torch.arange(1, end + 1)).sum(1) % modulus
            found.append(torch.cat([total.float(), states[-1]]))
        return torch.stack(found)

    def _rows(self, page: Tensor) -> Tensor:
        return page[: self.row * PAGE_TOKENS].view(self.row, PAGE_TOKENS)


def cold(model: Model | Recorder, tokens: Sequence[int], logits: int = 1) -> Tensor:
    """The logits of the last `logits` tokens of a session that nobody shares anything with."""
    pages = [model.layout.new_page() for _ in range(blocks(len(tokens)))]
    span = Span(torch.tensor(list(tokens), dtype=torch.int64), 0, pages, model.layout.new_state(), logits)
    return model.forward([span])


def run(model: Model | Recorder, cursor: Cursor, tokens: Sequence[int], save: Sequence[int] = ()) -> Tensor:
    """Run a session on to the end of `tokens` (its whole path), saving at the given positions; the last logits."""
    logits = torch.empty(0)
    for stop in sorted({*(at for at in save if cursor.position < at < len(tokens)), len(tokens)}):
        logits = model.forward([cursor.span(tokens[cursor.position : stop])])
        cursor.advance(stop - cursor.position)
        if stop in save:
            cursor.save()
    return logits


def grow(
    model: Model | Recorder, tree: Tree, tokens: Sequence[int], save: Sequence[int] | None = None, **told: object
) -> Node:
    """Run a session for `tokens`, commit them as one node and close it; saves at the end unless told where."""
    cursor = tree.open(tokens, limit=len(tokens) - 1, boundaries=[len(tokens)])
    run(model, cursor, tokens, [len(tokens)] if save is None else save)
    node = cursor.commit(len(tokens), **told)  # type: ignore[arg-type]
    cursor.close()
    return node


def check_books(tree: Tree) -> None:
    """Every count and invariant of the tree, recomputed from scratch."""
    with tree.lock:
        _check_books(tree)


def _check_books(tree: Tree) -> None:
    layout, memory, archive = tree.memory.layout, tree.memory, tree._archive
    segments = list(tree._trunk.down())
    pages: set[Page] = set()
    for segment in segments:
        own = [state for part in segment.down() for state in part.states.values()]
        assert segment.ram_states == sum(state.data is not None for state in own)
        assert segment.stored_states == sum(state.on_disk for state in own)
        assert len(segment.pages) == (blocks(segment.end) - segment.first_block if len(segment.tokens) else 0)
        assert segment.children or segment.nodes, "a leaf that ends no node"
        for offset, page in enumerate(segment.pages):
            if page is not None:
                assert page.block == segment.first_block + offset
                assert page.holders.count(segment) == 1
                pages.add(page)
                rows = segment.rows_in(page.block)
                assert page.stored >= rows if page.data is None else page.fill >= rows
        for position, state in segment.states.items():
            assert state.segment is segment
            assert segment.start < position == state.position <= segment.end
            assert state.data is not None or state.part is not None
            for page in path_pages(segment, position):
                assert page is not None
                rows = min(position - PAGE_TOKENS * page.block, PAGE_TOKENS)
                assert state.part is None or page.stored >= rows
                assert state.data is None or page.data is not None or page.stored >= rows
    for page in pages:
        assert set(page.holders) <= set(segments)
        assert page.users == sum(cursor.pages.count(page) for cursor in memory.cursors)
    private = {page for cursor in memory.cursors for page in cursor.pages}
    held = sum(page.data is not None for page in pages | private)
    buffers = {id(state.data) for state in memory.states}
    buffers |= {id(buffer) for cursor in memory.cursors for buffer in (cursor._state, *cursor.saved.values()) if buffer}
    assert memory.bytes == held * layout.page_bytes + len(buffers) * layout.state_bytes
    if archive is not None:
        stored = sum(page.part is not None for page in pages)
        assert archive.bytes == stored * layout.page_bytes + len(archive.states) * layout.state_bytes
