"""What the tree keeps in memory: a radix tree of token runs, their pages of rows, and the saved states along them.

Nodes say how a conversation was cut into messages; segments say which tokens are shared. Two nodes that begin with the
same tokens pass through the same segment, so rows and states are stored once, whoever asked for them first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ramet.models.states import PAGE_TOKENS
from ramet.tree.node import Node, Tokens


@dataclass(frozen=True)
class Part:
    """A page or saved state on disk."""

    id: int
    node: Node
    """A node whose path passes through `position`."""
    position: int
    """Just past the last row of a page, or where a state was saved."""


class Page:
    """The rows of 64 tokens in a row. Shared by every segment and session that passes through those tokens."""

    __slots__ = ("block", "data", "fill", "holders", "part", "users")

    def __init__(self, block: int, data: Tensor | None, fill: int) -> None:
        self.block = block
        """Its rows are those of positions `64 * block` on."""
        self.data = data
        """The layout's `row_dtype`, `[page_elements]`; None while it is on disk only."""
        self.fill = fill
        """Rows written so far. A session may write on in place only where nobody has yet: at `fill`."""
        self.holders: list[Segment] = []
        """The segments that list it. Its rows are theirs up to the end of each (or of the block)."""
        self.users = 0
        """Live sessions that read it; it stays in memory while there are any."""
        self.part: Part | None = None
        """Its copy on disk, once it was written there."""

    @property
    def stored(self) -> int:
        """Rows that the copy on disk holds."""
        return 0 if self.part is None else self.part.position - PAGE_TOKENS * self.block


class StateBuffer:
    """The recurrent and window states of a session, read-only while more than one owner refers to it."""

    __slots__ = ("owners", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        """float32 `[state_elements]`."""
        self.owners = 1


class SavedState:
    """A state kept at one position: the only places where a session can resume."""

    __slots__ = ("branched", "data", "expected_by", "part", "passed_over", "position", "segment", "used", "writing")

    def __init__(self, segment: Segment, position: int, used: int) -> None:
        self.segment = segment
        self.position = position
        self.data: StateBuffer | None = None
        """None while it is on disk only."""
        self.part: Part | None = None
        self.writing = False
        """Whether it is on its way to disk, where the rows before it must therefore stay."""
        self.used = used
        """The tree's clock when it was last saved, resumed from or expected."""
        self.branched = 0
        """How often a session resumed here although another had already gone on: how shared it is."""
        self.expected_by: int | None = None
        """The latest request of its session, if that said that the next one may leave here."""
        self.passed_over = False
        """Whether its session, expected here or elsewhere, has gone on from elsewhere."""

    @property
    def on_disk(self) -> bool:
        """Whether it is on disk, or about to be."""
        return self.part is not None or self.writing


class Segment:
    """A run of tokens that no session leaves half-way, from `start` on; its children start with different tokens."""

    __slots__ = (
        "children",
        "nodes",
        "pages",
        "parent",
        "ram_states",
        "start",
        "states",
        "stored_states",
        "tokens",
        "used",
    )

    def __init__(self, parent: Segment | None, start: int, tokens: Tokens, pages: list[Page | None]) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.pages = pages
        """The pages of blocks `start // 64` to `(end - 1) // 64`; the first may be the parent's last.
        None where the rows are kept nowhere."""
        self.children: dict[int, Segment] = {}
        """By first token."""
        self.states: dict[int, SavedState] = {}
        """By position, in `(start, end]`."""
        self.nodes: list[Node] = []
        """The nodes that end where this segment ends."""
        self.ram_states = 0
        """Saved states in memory here and below: while there are any, the rows here must be in memory too."""
        self.stored_states = 0
        """Saved states on disk here and below: while there are any, the rows here must be on disk too."""
        self.used = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def first_block(self) -> int:
        return self.start // PAGE_TOKENS

    def up(self) -> Iterator[Segment]:
        """This segment and those above it, the root last."""
        segment: Segment | None = self
        while segment is not None:
            yield segment
            segment = segment.parent

    def down(self) -> Iterator[Segment]:
        """This segment and all below it, parents first."""
        stack = [self]
        while stack:
            segment = stack.pop()
            yield segment
            stack.extend(segment.children.values())

    def rows_in(self, block: int) -> int:
        """How many rows of a block the path to the end of this segment fills."""
        return min(self.end - PAGE_TOKENS * block, PAGE_TOKENS)

    def needed_in_ram(self) -> int:
        """The position up to which rows must be in memory for the states in memory here and below."""
        own = [position for position, state in self.states.items() if state.data is not None]
        return self.end if self.ram_states > len(own) else max(own, default=0)

    def needed_on_disk(self) -> int:
        """The position up to which rows must be on disk for the states on disk here and below."""
        own = [position for position, state in self.states.items() if state.on_disk]
        return self.end if self.stored_states > len(own) else max(own, default=0)


def blocks(position: int) -> int:
    """Pages that hold the rows of positions 0 to `position` - 1."""
    return -(-position // PAGE_TOKENS)


def path_pages(segment: Segment, position: int) -> list[Page | None]:
    """The pages of the rows [0, position) on the path to `segment`, which holds `position` in (start, end]."""
    top = blocks(position)
    pages: list[Page | None] = []
    lists = []
    for part in segment.up():
        if part.first_block < top:
            lists.append(part.pages[: top - part.first_block])
            top = part.first_block
    for part_pages in reversed(lists):
        pages.extend(part_pages)
    return pages


def segment_at(segment: Segment, position: int) -> Segment:
    """The segment of the path to `segment` that holds `position` in (start, end]; the root for position 0."""
    while segment.parent is not None and segment.start >= position:
        segment = segment.parent
    return segment


def previous_state(segment: Segment, position: int) -> int:
    """The last position before `position` on the path to `segment` where a session can resume; 0 if none."""
    for part in segment.up():
        found = max((at for at in part.states if at < position), default=0)
        if found:
            return found
    return 0
