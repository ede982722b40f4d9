"""What the kernel tests share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from ramet import kernels

each_isa = pytest.mark.parametrize("isa", kernels.available_isas())

some = settings(max_examples=25, deadline=None, print_blob=True)
"""How often a property is tried: per instruction set."""


@contextmanager
def running(isa: str, threads: int = 1) -> Iterator[None]:
    """Run the ops on this instruction set and number of threads."""
    before = kernels.isa(), kernels.threads()
    kernels.set_isa(isa)
    kernels.set_threads(threads)
    try:
        yield
    finally:
        kernels.set_isa(before[0])
        kernels.set_threads(before[1])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in every bit: the sign of a zero counts."""
    if a.shape != b.shape or a.dtype is not b.dtype:
        return False
    bits = torch.int16 if a.dtype is torch.bfloat16 else torch.int32
    return torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    return float((actual.double() - expected).abs().max() / expected.abs().max())


def cuts(length: int, pieces: Sequence[int]) -> list[tuple[int, int]]:
    """`[0, length)` cut into pieces of the given sizes in turn, over and over."""
    found, at, i = [], 0, 0
    while at < length:
        end = min(length, at + pieces[i % len(pieces)])
        found.append((at, end))
        at, i = end, i + 1
    return found
