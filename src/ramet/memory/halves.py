"""Vectors in half precision, as the stores keep them, read as float32 of unit length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ramet import _ramet
from ramet.memory.base import Vector

Order = Literal["<f2", ">f2"]
"""Which byte of a half comes first."""


def unit_vectors(stored: bytes, dimensions: int, order: Order, chosen: NDArray[np.int64] | None = None) -> Vector:
    """float32 [vectors, dimensions] of the vectors in `stored`, one after the other; zeros stay.

    `chosen`: only these of them, -1 for zeros. Raises ValueError if `stored` is not whole vectors.
    """
    halves = np.frombuffer(stored, order).reshape(-1, dimensions).astype("<f2", copy=False)
    out = np.empty((len(halves) if chosen is None else len(chosen), dimensions), np.float32)
    chosen_at = 0 if chosen is None else chosen.ctypes.data
    _ramet.unit_vectors(halves.ctypes.data, chosen_at, len(out), dimensions, out.ctypes.data)
    return out


def vectors_of(found: Sequence[tuple[int, bytes]], rows: Sequence[int], dimensions: int, order: Order) -> Vector:
    """float32 [rows, dimensions] of unit length, from (row, vector) as stored; zeros for a row without one."""
    at = {row: index for index, (row, _) in enumerate(found)}
    chosen = np.array([at.get(row, -1) for row in rows], np.int64)
    return unit_vectors(b"".join([data for _, data in found]), dimensions, order, chosen)
