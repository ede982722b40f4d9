"""The tree as the database has it: nodes and their tokens at once, rows and states when they are asked for."""

from __future__ import annotations

import numpy as np

from ramet.models.states import PAGE_TOKENS
from ramet.tree.archive import Archive
from ramet.tree.disk import PAGE
from ramet.tree.node import Bill, Node, node_id
from ramet.tree.nodes import Nodes
from ramet.tree.segment import Page, Part, SavedState, Segment, path_pages, segment_at
from ramet.tree.trunk import grow, split


def restore(archive: Archive, nodes: Nodes) -> None:
    """Add every stored node, and hang the stored parts on them; remove from disk what belongs to nothing.

    Raises DiskError if the database cannot be read.
    """
    node_rows, part_rows, doomed = archive.database.load()
    for row in node_rows:
        parent = nodes.find(row.parent)
        tokens = np.frombuffer(row.tokens, dtype="<i4").astype(np.int32)
        tokens.flags.writeable = False
        if parent is None or not len(tokens) or node_id(row.parent, tokens) != row.id:
            doomed.removed_nodes.append(row.id)
            continue
        told = row.told
        node = Node(
            row.id,
            parent,
            tokens,
            parent.end,
            told.get("message"),
            Bill(*told["bill"]) if "bill" in told else None,
            told.get("written"),
        )
        nodes.add(node, grow(nodes.place(parent), tokens)[0])
    layout = archive.memory.layout
    for stored in part_rows:
        hung = False
        on = nodes.find(stored.node)
        if on is not None and 0 < stored.position <= on.end:
            hang = _hang_page if stored.kind == PAGE else _hang_state
            hung = hang(archive, nodes.place(on), Part(stored.id, on, stored.position))
        if hung:
            archive.bytes += layout.page_bytes if stored.kind == PAGE else layout.state_bytes
        else:
            doomed.removed_parts.append(stored.id)
        archive.used_id(stored.id)
    if doomed:
        archive.database.write(doomed, durable=False)
        archive.database.shrink()
    _remove_unusable(archive, nodes.place(nodes.root))


def _hang_page(archive: Archive, segment: Segment, part: Part) -> bool:
    block = (part.position - 1) // PAGE_TOKENS
    page = Page(block, None, 0)
    page.part = part
    segment = segment_at(segment, part.position)
    if part.position < segment.end and part.position % PAGE_TOKENS:
        segment = split(segment, part.position)  # it has no rows for the rest
    for holder in segment.up():
        if holder.parent is None or holder.end <= PAGE_TOKENS * block:
            break
        if holder.pages[block - holder.first_block] is None:
            holder.pages[block - holder.first_block] = page
            page.holders.append(holder)
    return bool(page.holders)


def _hang_state(archive: Archive, segment: Segment, part: Part) -> bool:
    segment = segment_at(segment, part.position)
    if part.position in segment.states:
        return False
    archive.memory.clock += 1
    state = segment.states[part.position] = SavedState(segment, part.position, archive.memory.clock)
    state.part = part
    archive.states[state] = None
    archive.count(state, 1)
    return True


def _remove_unusable(archive: Archive, root: Segment) -> None:
    """Remove states that lack a page before them, and pages that no state needs."""
    for state in list(archive.states):
        for page in path_pages(state.segment, state.position):
            if page is None or page.stored < min(state.position - PAGE_TOKENS * page.block, PAGE_TOKENS):
                archive.drop_state(state)
                break
    for segment in list(root.down()):
        archive.trim(segment)
