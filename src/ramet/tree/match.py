"""How far a prompt is known: the longest path of the tree that begins it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ramet.tree.node import Node, Tokens
from ramet.tree.segment import Segment


@dataclass(frozen=True, slots=True)
class Match:
    """How much of a prompt the tree knows, and where it leaves the tree."""

    node: Node
    """The deepest node that the shared tokens reach into: `node.start < position <= node.end` (the root at 0)."""
    position: int
    """How many leading tokens the prompt shares with the tree."""
    resume: int
    """The last position up to `position` where a saved state lets a session go on."""
    there: int | None
    """The token that the tree has at `position`; None where it has none. The latest session's, if there are several."""
    next: Node | None = field(repr=False)
    """The node that holds the token `there`: the one that the prompt does not follow."""
    segment: Segment = field(repr=False)
    """Where in the tree `position` lies, in (start, end]."""


def find(root: Segment, tokens: Tokens) -> Match:
    """Match `tokens` (int32) against the tree below `root`."""
    segment, position = root, 0
    while position < len(tokens):
        child = segment.children.get(int(tokens[position]))
        if child is None:
            break
        segment = child
        position += common(child.tokens, tokens[position:])
        if position < child.end:
            break
    there: int | None = None
    following: Segment | None = segment
    if position < segment.end:
        there = int(segment.tokens[position - segment.start])
    else:
        following = max(segment.children.values(), key=_used, default=None)
        if following is not None:
            there = int(following.tokens[0])
    node = _node_over(segment, position)
    return Match(
        node=node,
        position=position,
        resume=resumable(segment, position),
        there=there,
        next=None if following is None else _node_over(following, position + 1),
        segment=segment,
    )


def common(ours: Tokens, theirs: Tokens) -> int:
    """How many leading tokens two runs share."""
    length = min(len(ours), len(theirs))
    different = ours[:length] != theirs[:length]
    first = int(np.argmax(different)) if length else 0
    return first if length and different[first] else length


def resumable(segment: Segment, limit: int) -> int:
    """The last position up to `limit`, on the path to `segment`, that has a saved state; 0 if there is none."""
    for part in segment.up():
        found = max((position for position in part.states if position <= limit), default=0)
        if found:
            return found
    return 0


def _node_over(segment: Segment, position: int) -> Node:
    """The latest node whose tokens include the one just before `position`, which lies in `segment`."""
    while True:
        reaching = [node for node in segment.nodes if node.start < position or node.parent is None]
        if reaching:
            return reaching[-1]
        below = max(segment.children.values(), key=_used, default=None)
        if below is None:  # every leaf ends a node, and a node over a later token may start after `position`
            return segment.nodes[-1]
        segment = below


def _used(segment: Segment) -> int:
    return segment.used
