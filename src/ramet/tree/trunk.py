"""Growing the radix tree: where a session's tokens go, and which of its pages the tree takes over."""

from __future__ import annotations

from ramet.models.states import PAGE_TOKENS
from ramet.tree.match import common
from ramet.tree.node import Tokens
from ramet.tree.segment import Page, Segment, blocks


def split(segment: Segment, position: int) -> Segment:
    """Cut a segment at `position` (inside it); returns the new upper part. The lower part keeps its identity."""
    parent = segment.parent
    assert parent is not None and segment.start < position < segment.end
    length = position - segment.start
    first = segment.first_block
    upper = Segment(parent, segment.start, segment.tokens[:length], segment.pages[: blocks(position) - first])
    upper.used = segment.used
    upper.ram_states, upper.stored_states = segment.ram_states, segment.stored_states
    upper.children[int(segment.tokens[length])] = segment
    parent.children[int(upper.tokens[0])] = upper
    segment.parent = upper
    segment.start = position
    segment.tokens = segment.tokens[length:]
    segment.pages = segment.pages[position // PAGE_TOKENS - first :]
    for page in upper.pages:
        if page is not None:
            page.holders.append(upper)
            if page not in segment.pages[:1]:
                page.holders.remove(segment)
    for at in [at for at in segment.states if at <= position]:
        state = segment.states.pop(at)
        state.segment = upper
        upper.states[at] = state
        segment.ram_states -= state.data is not None
        segment.stored_states -= state.on_disk
    return upper


def grow(
    segment: Segment, tokens: Tokens, pages: list[Page] | None = None, position: int = 0
) -> tuple[Segment, list[Page]]:
    """Lead the tree on from the end of `segment` through `tokens`, splitting and adding segments as needed.

    `pages` are a session's, from position 0 on, with rows up to `position`. The tree takes those that it lacks; where
    it has the same rows already, the session is moved over to the tree's page. Returns the segment that ends after
    the last token, and the pages that the session no longer reads.
    """
    spare: list[Page] = []
    end = segment.end + len(tokens)
    while segment.end < end:
        rest = tokens[len(tokens) - (end - segment.end) :]
        child = segment.children.get(int(rest[0]))
        if child is None:
            child = Segment(segment, segment.end, rest, [None] * (blocks(end) - segment.end // PAGE_TOKENS))
            segment.children[int(rest[0])] = child
        else:
            shared = common(child.tokens, rest)
            if shared < len(child.tokens):
                child = split(child, child.start + shared)
        if pages is not None:
            spare += _share(child, pages, position)
        segment = child
    return segment, spare


def _share(segment: Segment, pages: list[Page], position: int) -> list[Page]:
    """Share the rows of `segment` between the tree and a session; returns the pages that the session left."""
    spare = []
    for index in range(segment.first_block, blocks(segment.end)):
        ours, theirs = segment.pages[index - segment.first_block], pages[index]
        if ours is theirs:
            continue
        if ours is None:
            segment.pages[index - segment.first_block] = theirs
            theirs.holders.append(segment)
        elif min(position, PAGE_TOKENS * (index + 1)) <= segment.end:
            # the tree's page has every row that the session has: one of the two is enough
            if ours.data is None:
                if len(ours.holders) > 1 or theirs.holders or theirs.users > 1:
                    continue
                ours.data, ours.fill, theirs.data = theirs.data, theirs.fill, None
            ours.users += 1
            pages[index] = ours
            spare.append(theirs)
    return spare
