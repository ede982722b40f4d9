"""Pictures on their way from a file to a vision tower: what a model is shown, and at which rows of a session.

A picture is named by what the model sees of it. In a session its rows have tokens of their own, made of that name, so
that two sessions with different pictures are different sessions; they are negative, as no word of a vocabulary is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ramet.models.states import Span

if TYPE_CHECKING:
    from ramet.models.images import Images


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, or a few frames of a film that are encoded together, resized for the tower."""

    frames: NDArray[np.uint8]
    """RGB, `[frames, height, width, 3]`."""
    grid: tuple[int, int, int]
    """Patches: time, height, width."""
    tokens: int
    """Rows that it takes up in a session."""
    digest: bytes = field(init=False)
    """SHA-256 of what is shown."""

    def __post_init__(self) -> None:
        shape = np.asarray([*self.frames.shape, *self.grid, self.tokens], "<i8")
        digest = hashlib.sha256(shape.tobytes() + np.ascontiguousarray(self.frames).tobytes()).digest()
        object.__setattr__(self, "digest", digest)

    @cached_property
    def names(self) -> NDArray[np.int32]:
        """The tokens that stand for it in a session, int32 `[1 + tokens]`, all negative, of 31 bits of a hash each.

        The first stands in place of the mark before it, which has the same meaning before every picture: should two
        pictures share that one by chance, what was computed up to there is shared rightly; to be taken for another, a
        picture's first row has to agree as well.
        """
        stream = hashlib.shake_256(self.digest).digest(4 * (1 + self.tokens))
        return -1 - (np.frombuffer(stream, "<u4") >> 1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Placed:
    """A picture in a session: the position of its first row. The mark before it is at `position - 1`."""

    position: int
    picture: Picture

    @property
    def end(self) -> int:
        """Just past its last row."""
        return self.position + self.picture.tokens


class Tower(Protocol):
    """A model's eyes."""

    def encode(self, picture: Picture) -> Tensor:
        """What the model reads in place of the embeddings of the picture's rows: float32 `[tokens, hidden]`."""
        ...

    def images(self, folder: Path) -> Images:
        """The processor that goes with it, as the checkpoint in `folder` sets it up. Raises CheckpointError."""
        ...

    def positions(self, placed: Sequence[Placed], start: int, count: int) -> Tensor | None:
        """Where `count` tokens from `start` on stand for rotary embeddings: int64 `[count, 3]`, or None: `start`, ...

        `placed` are the session's pictures, in order; those at or after `start + count` do not matter.
        """
        ...


def session_tokens(tokens: Sequence[int], placed: Sequence[Placed]) -> NDArray[np.int32]:
    """The tokens by which a session is known: those of its pictures' rows, and of the marks before, replaced."""
    named = np.asarray(tokens, np.int32)
    if placed:
        named = named.copy()
    for each in placed:
        named[each.position - 1 : each.end] = each.picture.names
    return named


def grid_positions(placed: Sequence[Placed], start: int, count: int, merge: int) -> Tensor | None:
    """Positions in time, height and width (mRoPE): a picture's rows stand at one time, at their places in its grid.

    What follows a picture stands behind its longer side, not behind its number of rows. None if no picture comes before
    `start + count`.
    """
    if not placed or placed[0].position >= start + count:
        return None
    positions = torch.empty(count, 3, dtype=torch.int64)
    shift = 0  # of text, so far
    reached = start
    for each in placed:
        _fill(positions, start, reached, min(each.position, start + count), shift)
        reached = max(reached, min(each.position, start + count))
        _, height, width = each.picture.grid
        rows, columns = height // merge, width // merge
        if reached < each.end and each.position < start + count:
            last = min(each.end, start + count)
            row = torch.arange(reached - each.position, last - each.position)
            base = each.position + shift
            at = torch.stack([row // (rows * columns), row // columns % rows, row % columns], 1)
            positions[reached - start : last - start] = base + at
            reached = last
        shift += max(rows, columns) - each.picture.tokens
    _fill(positions, start, reached, start + count, shift)
    return positions


def _fill(positions: Tensor, start: int, first: int, last: int, shift: int) -> None:
    """Text from `first` to `last`."""
    if first < last:
        positions[first - start : last - start] = torch.arange(first + shift, last + shift)[:, None]


def show(
    span: Span, tokens: Sequence[int], placed: Sequence[Placed], tower: Tower, encoded: Callable[[Picture], Tensor]
) -> Span:
    """Make `span` one as a model with a tower is given it: `tokens` of the vocabulary, and pictures where they are.

    `placed` are the session's pictures, in order; `encoded` gives the tower's rows of one.
    """
    count = len(tokens)
    start, end = span.position, span.position + count
    span.seen = [
        (first - start, encoded(each.picture)[first - each.position : last - each.position])
        for each in placed
        if (first := max(each.position, start)) < (last := min(each.end, end))
    ]
    span.positions = tower.positions(placed, start, count)
    span.tokens = torch.tensor(list(tokens), dtype=torch.int64)
    return span


def vocabulary_tokens(
    named: NDArray[np.int32], tokens: Sequence[int], placed: Sequence[Placed]
) -> tuple[list[int], list[Placed]] | None:
    """A session's tokens as `session_tokens` took them in, and its pictures, found again among those of another prompt.

    `placed` are that prompt's pictures and `tokens` its tokens. None if one of the session's is not among them.
    """
    known = {each.picture.names[:2].tobytes(): each for each in placed}
    plain = named.tolist()
    found: list[Placed] = []
    at = 0
    while (rows := np.flatnonzero(named[at:] < 0)).size:
        at += int(rows[0])
        each = known.get(named[at : at + 2].tobytes())
        if each is None or not np.array_equal(named[at : at + 1 + each.picture.tokens], each.picture.names):
            return None
        found.append(Placed(at + 1, each.picture))
        plain[at : found[-1].end] = tokens[each.position - 1 : each.end]
        at = found[-1].end
    return plain, found
