"""What vision towers are made of. A tower is run picture by picture, so what else is running cannot touch its bits.

Products go through the packed kernels, whose sums have one order; what torch computes here is exact in every lane
(additions, products) or rounded from more precision than is kept, so the number of threads does not show either.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ramet import kernels
from ramet.models.layers import Layer


class BiasLinear(Layer):
    """`W x + b`; the weight may have more dimensions (a convolution over patches), which are flattened."""

    def __init__(self, inputs: int | tuple[int, ...], outputs: int) -> None:
        super().__init__()
        shape = (inputs,) if isinstance(inputs, int) else inputs
        self.weight: Tensor | None = nn.Parameter(torch.empty(outputs, *shape))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.packed: kernels.PackedLinear | None = None

    def pack(self) -> None:
        assert self.weight is not None
        self.packed, self.weight = kernels.PackedLinear(self.weight.flatten(1)), None
        self.bias = nn.Parameter(self.bias.detach().float().contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        assert self.packed is not None, "a tower runs packed"
        return self.packed(x, add=self.bias.expand(x.shape[0], -1))


def gelu(x: Tensor) -> Tensor:
    """`x * (1 + erf(x / sqrt 2)) / 2`: `[T, C]`."""
    wide = x.double()
    return (wide * 0.5 * (1 + torch.erf(wide * math.sqrt(0.5)))).float()


def resampled(table: Tensor, grid: tuple[int, int], *, cubic: bool) -> Tensor:
    """Learned position embeddings `[H, W, C]` at `grid` (height, width): `[height * width, C]`, by rows.

    Linear with the corners aligned, or cubic (Keys, a = -0.75) with half-pixel centres. Up to 4 by 4 entries are summed
    in order for each place.
    """
    down, along = (_taps(size, side, cubic) for size, side in zip(grid, table.shape, strict=False))
    wide = table.float()
    out = torch.zeros(*grid, table.shape[2], dtype=torch.float32)
    for row, row_weight in zip(*down, strict=True):
        for column, column_weight in zip(*along, strict=True):
            out += wide[row][:, column] * (row_weight[:, None] * column_weight)[..., None]
    return out.flatten(0, 1)


def _taps(size: int, side: int, cubic: bool) -> tuple[Tensor, Tensor]:
    """For each of a few taps, the entries and the weights for all places: int64 and float32 `[taps, size]`."""
    index = torch.arange(size, dtype=torch.float32)
    at = (index + 0.5) * side / size - 0.5 if cubic else index * (side - 1) / max(size - 1, 1)
    floor = at.floor()
    offsets = torch.arange(-1, 3) if cubic else torch.arange(2)
    entries = (floor.long() + offsets[:, None]).clamp(0, side - 1)
    away = (at - floor - offsets[:, None]).abs()
    if not cubic:
        return entries, (1 - away).clamp(min=0)
    near = (1.25 * away - 2.25) * away * away + 1
    far = ((-0.75 * away + 3.75) * away - 6) * away + 3
    return entries, torch.where(away <= 1, near, far)
