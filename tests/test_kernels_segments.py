"""Attention among all rows of a segment: right, and each segment by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from ramet import kernels
from tests.kernels_support import each_isa, error, generator, running, same_bits, some


def expected(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], heads: int, scale: float) -> Tensor:
    """In float64, segment by segment."""
    out, start = [], 0
    for length in lengths:
        parts = (x[start : start + length].double().view(length, heads, -1).transpose(0, 1) for x in (q, k, v))
        query, key, value = parts
        weights = (query @ key.transpose(1, 2) * scale).softmax(-1)
        out.append((weights @ value).transpose(0, 1).flatten(1))
        start += length
    return torch.cat(out)


@each_isa
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    size=st.integers(1, 90),
    seed=st.integers(0, 2**31),
)
@example(lengths=[1], heads=1, size=1, seed=0)
@example(lengths=[128, 256, 129], heads=2, size=72, seed=1)
@example(lengths=[700], heads=1, size=16, seed=2)
@some
def test_segments(isa: str, lengths: list[int], heads: int, size: int, seed: int) -> None:
    random, rows = generator(seed), sum(lengths)
    # as a fused projection gives them: rows wider than what is used, large scores now and then
    q, k, v = torch.randn(rows, 3 * heads * size, generator=random).chunk(3, dim=1)
    q = q * (1 + 20 * (torch.rand(rows, 1, generator=random) > 0.9))
    scale = size**-0.5
    with running(isa):
        whole = kernels.segment_attention(q, k, v, lengths, heads=heads, scale=scale)
        assert error(whole, expected(q, k, v, lengths, heads, scale)) < 1e-5  # scores up to about 80
        start = 0
        for length in lengths:  # the bits of a segment alone, whatever stands beside it
            part = slice(start, start + length)
            alone = kernels.segment_attention(q[part], k[part], v[part], [length], heads=heads, scale=scale)
            assert same_bits(alone, whole[part])
            start += length
        first = [x[:, :size] for x in (q, k, v)]  # and of a head alone
        assert same_bits(kernels.segment_attention(*first, lengths, heads=1, scale=scale), whole[:, :size])
    with running(isa, threads=3):
        assert same_bits(kernels.segment_attention(q, k, v, lengths, heads=heads, scale=scale), whole)


@each_isa
def test_what_is_outside_a_segment_is_never_read(isa: str) -> None:
    q, k, v = torch.randn(3, 200, 32, generator=generator(0)).unbind()
    with running(isa):
        clean = kernels.segment_attention(q, k, v, [70, 130], heads=2, scale=0.25)
        spoilt = [torch.cat([x[:70], torch.full((130, 32), torch.nan)]) for x in (q, k, v)]
        dirty = kernels.segment_attention(*spoilt, [70, 130], heads=2, scale=0.25)
        assert same_bits(dirty[:70], clean[:70]) and dirty[70:].isnan().all()


def test_heads_that_are_laid_out_in_turns_have_the_same_bits() -> None:
    """A long segment's keys and values do not all fit where they are laid out."""
    rows, heads, size = 3000, 12, 64
    assert 2 * rows * heads * size > 1 << 22
    q, k, v = torch.randn(3, rows, heads * size, generator=generator(1)).unbind()
    whole = kernels.segment_attention(q, k, v, [rows], heads=heads, scale=size**-0.5)
    for head in (0, 8, 11):
        part = slice(head * size, (head + 1) * size)
        alone = kernels.segment_attention(q[:, part], k[:, part], v[:, part], [rows], heads=1, scale=size**-0.5)
        assert same_bits(alone, whole[:, part])


def test_errors_name_what_is_wrong() -> None:
    x = torch.zeros(4, 6)
    for message, call in (
        ("no 4 heads", lambda: kernels.segment_attention(x, x, x, [4], heads=4, scale=1.0)),
        ("have 3", lambda: kernels.segment_attention(x, x, x, [1, 2], heads=2, scale=1.0)),
        ("have 4", lambda: kernels.segment_attention(x, x, x, [5, -1], heads=2, scale=1.0)),
        ("k must have 4 rows", lambda: kernels.segment_attention(x, x[:3], x, [4], heads=2, scale=1.0)),
        ("v must have 6 columns", lambda: kernels.segment_attention(x, x, x[:, :4], [4], heads=2, scale=1.0)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert kernels.segment_attention(x[:0], x[:0], x[:0], [], heads=2, scale=1.0).shape == (0, 6)
    assert kernels.segment_attention(x, x, x, [0, 4], heads=2, scale=1.0).shape == (4, 6)
