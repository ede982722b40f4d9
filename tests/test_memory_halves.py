"""Vectors in half precision against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramet.memory.halves import Order, unit_vectors, vectors_of
from tests.kernels_support import each_isa, running, some


@each_isa
@some
@given(
    seed=st.integers(0, 2**32), count=st.integers(0, 9), dimensions=st.integers(1, 70),
    order=st.sampled_from(["<f2", ">f2"]),
)  # fmt: skip
def test_vectors_are_of_unit_length(isa: str, seed: int, count: int, dimensions: int, order: Order) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 16, (count, dimensions)).astype(np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] ^= 0x4000  # all numbers, subnormal ones too, but none that is not finite
    bits[rng.random(count) < 0.2] = 0
    halves = bits.view(np.float16)
    exact = halves.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    expected = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    stored = halves.astype(order)
    with running(isa):
        found = unit_vectors(stored.tobytes(), dimensions, order)
        chosen = rng.integers(-1, count, 12)
        picked = unit_vectors(stored.tobytes(), dimensions, order, chosen)
        of_rows = vectors_of([(3 * i, own.tobytes()) for i, own in enumerate(stored)], chosen * 3, dimensions, order)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    assert (picked == np.concatenate([found, np.zeros((1, dimensions), np.float32)])[chosen]).all()
    assert (of_rows == picked).all()


@each_isa
def test_every_half_is_widened(isa: str) -> None:
    """Each beside the largest one: a wrong bit of any would show."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    with running(isa):
        pairs = np.stack([halves, np.full_like(halves, 65504)], 1)
        found = unit_vectors(pairs.tobytes(), 2, "<f2")
    wide = pairs.astype(np.float32)
    lengths = np.sqrt((wide.astype(np.float64) ** 2).sum(1))
    np.testing.assert_allclose(found, wide / lengths[:, None], rtol=3e-7, atol=0)


def test_what_is_no_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        unit_vectors(bytes(10), 4, "<f2")
