"""Rotary position embedding: what a layer rotates by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rope:
    """One set of frequencies; layers that share it share its table of a step."""

    inv_freq: Tensor
    """float32 `[R / 2]` on the CPU: R columns are rotated."""
    interleaved: bool = False
    """Column 2 i is paired with 2 i + 1 (DeepSeek), else i with i + R / 2."""
    scale: float = 1.0
    """Times the cosines and sines (YaRN's attention factor)."""
    axes: Tensor | None = None
    """int64 `[R / 2]`: whether a frequency goes by time (0), height (1) or width (2); None: all by the one position."""

    @classmethod
    def unscaled(cls, rotary: int, theta: float, *, interleaved: bool = False) -> Rope:
        """`theta ** (-2 i / R)`, for models that were trained at their full length."""
        powers = torch.arange(0, rotary, 2, dtype=torch.float32, device="cpu") / rotary
        return cls(1.0 / theta**powers, interleaved)
