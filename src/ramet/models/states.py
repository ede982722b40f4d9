"""What a model keeps per session: the three kinds of layer state and where each lies in memory.

A model declares its states once, as a `StateLayout`. Everything above the models (tree, engine) then moves two kinds of
opaque buffer: *pages*, which hold the rows of `PAGE_TOKENS` consecutive tokens for every layer, and *state buffers*,
which hold every recurrent and window state of a session at one position. Rows have the checkpoint's precision: they are
written once, and rounding them once is what every reader then sees. States are float32, as each token rounds them anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from ramet import kernels

PAGE_TOKENS: int = kernels.PAGE_TOKENS
"""Tokens per page: the key block of the attention kernel, so that blocks are fixed in absolute position."""


@dataclass(frozen=True)
class Rows:
    """One row per token, append-only, may be cut anywhere: keys and values. Or one per group of tokens, in the page
    in which the group ends, written when it does: compressed entries.

    `shape` is the shape of a whole page's block, e.g. `(kv_heads, head_dim, PAGE_TOKENS)` for keys kept transposed.
    """

    name: str
    shape: tuple[int, ...]
    ratio: int = 1
    """Tokens per row. If more than `PAGE_TOKENS`, a page has place for one row, and not every page holds one."""

    @property
    def elements_per_token(self) -> Fraction:
        """What a token adds: a fraction, where it adds a part of a row."""
        return Fraction(math.prod(self.shape), max(PAGE_TOKENS // self.ratio, 1) * self.ratio)


@dataclass(frozen=True)
class Recurrent:
    """A state of fixed size that every token replaces; valid only at the position where it was saved."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """The last `shape[0]` inputs of a layer (a convolution's tail), oldest first; saved with the recurrent states."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StateLayout:
    """Where each declared state lies: offsets in elements into a page (of `row_dtype`) or a state buffer (float32)."""

    rows: tuple[Rows, ...]
    fixed: tuple[Recurrent | Window, ...]
    row_dtype: torch.dtype = torch.float32
    """Of all rows: bfloat16 for a bfloat16 checkpoint, else float32."""
    row_offsets: dict[str, int] = field(init=False)
    fixed_offsets: dict[str, int] = field(init=False)
    page_elements: int = field(init=False)
    state_elements: int = field(init=False)

    def __post_init__(self) -> None:
        if self.row_dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"rows are kept in float32 or bfloat16, not {self.row_dtype}")
        row_offsets, page_elements = _lay_out(self.rows, self.row_dtype)
        fixed_offsets, state_elements = _lay_out(self.fixed, torch.float32)
        object.__setattr__(self, "row_offsets", row_offsets)
        object.__setattr__(self, "fixed_offsets", fixed_offsets)
        object.__setattr__(self, "page_elements", page_elements)
        # A position is held by its state, so a model of rows alone has one too, of one empty line.
        object.__setattr__(self, "state_elements", state_elements or 16)

    @property
    def page_bytes(self) -> int:
        return self.row_dtype.itemsize * self.page_elements

    @property
    def state_bytes(self) -> int:
        return 4 * self.state_elements

    def new_page(self) -> Tensor:
        """A zeroed page, `row_dtype` `[page_elements]`."""
        return torch.zeros(self.page_elements, dtype=self.row_dtype)

    def new_state(self) -> Tensor:
        """The state before any token: zeros, float32 `[state_elements]`."""
        return torch.zeros(self.state_elements, dtype=torch.float32)


def _lay_out(states: Sequence[Rows | Recurrent | Window], dtype: torch.dtype) -> tuple[dict[str, int], int]:
    """Offsets of each state, each aligned to 64 bytes, and the total number of elements."""
    offsets: dict[str, int] = {}
    line = 64 // dtype.itemsize
    end = 0
    for state in states:
        if state.name in offsets:
            raise ValueError(f"state {state.name!r} is declared twice")
        offsets[state.name] = end
        end += -(-math.prod(state.shape) // line) * line
    return offsets, end


@dataclass
class Span:
    """Tokens run in one step for one session.

    `pages` are the session's pages from position 0 on, enough to hold `position + len(tokens)` tokens; the model writes
    the new tokens' rows into them. `state` is read as the state at `position` and overwritten with the state at the
    end.
    """

    tokens: Tensor
    """int64 `[n]`, n >= 1."""
    position: int
    """Absolute position of the first token."""
    pages: Sequence[Tensor]
    """The layout's `row_dtype`, `[page_elements]` each."""
    state: Tensor
    """float32 `[state_elements]`."""
    logits: int = 1
    """For how many of the last tokens logits are wanted: 0 in the middle of a prompt, 1 to sample, n for all."""
    positions: Tensor | None = None
    """For rotary embeddings, int64 `[n, 3]` (time, height, width); None: `position`, `position + 1`, ... for all."""
    seen: Sequence[tuple[int, Tensor]] = ()
    """Rows that are embedded pictures: the first one's index among the tokens, and float32 `[rows, hidden]`."""
    hidden: Tensor | None = field(default=None, init=False)
    """Set by a model that predicts ahead: what the output layer saw, float32 `[n, hidden]`; drafts begin there."""
