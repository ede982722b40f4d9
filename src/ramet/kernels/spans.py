"""The sessions of one step, as the ops see them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ramet import _ramet

PAGE_TOKENS: int = _ramet.PAGE_TOKENS
"""Tokens per page, fixed in the attention kernel."""


class Spans:
    """Which rows of a step belong to which session, and where that session's states are. Built once per step.

    `lengths[s]` rows belong to session s, in order; the first of them is at absolute position `positions[s]`.
    `pages[s]` are its pages from position 0 on (`[page_elements]` each, all float32 or all bfloat16), enough for
    `positions[s] + lengths[s]` tokens; `states[s]` is its state buffer (float32 `[state_elements]`). `pages` or
    `states` may be left out for a model that has no such layers. Holds on to the tensors. Raises `ValueError` if they
    do not fit each other.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        positions: Sequence[int],
        *,
        pages: Sequence[Sequence[Tensor]] = (),
        states: Sequence[Tensor] = (),
    ) -> None:
        self.lengths = list(lengths)
        self.positions = list(positions)
        self.rows = sum(self.lengths)
        self._kept = (pages, states)
        every_page = [page for session in pages for page in session]
        half = bool(every_page) and every_page[0].dtype is torch.bfloat16
        page_elements = _same_size("page", every_page, torch.bfloat16 if half else torch.float32)
        state_elements = _same_size("state", states, torch.float32)
        self.native = _ramet.Spans(
            self.lengths,
            self.positions,
            [[page.data_ptr() for page in session] for session in pages],
            page_elements,
            half,
            [state.data_ptr() for state in states],
            state_elements,
        )

    def position_ids(self) -> Tensor:
        """The absolute position of every row, int64 `[rows]`."""
        starts = zip(self.positions, self.lengths, strict=True)
        return torch.cat([torch.arange(start, start + length) for start, length in starts])


def _same_size(name: str, buffers: Sequence[Tensor], dtype: torch.dtype) -> int:
    """The number of elements that all buffers have (0 if there are none)."""
    size = buffers[0].numel() if buffers else 0
    for buffer in buffers:
        if buffer.dtype is not dtype or not buffer.is_contiguous() or buffer.device.type != "cpu":
            wanted = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"every {name} must be a contiguous {wanted} CPU tensor, not {buffer.dtype} {list(buffer.shape)}"
            )
        if buffer.numel() != size:
            raise ValueError(f"every {name} must have the same number of elements, not {size} and {buffer.numel()}")
    return size
