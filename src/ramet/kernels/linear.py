"""Matrix products with weights that are packed once."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows


class PackedLinear:
    """`y = x @ weight.T`, each output summed over the inputs in order whatever the number of rows.

    The weight `[out, in]`, float32 or bfloat16, is copied into panels of 32 outputs and may be freed afterwards;
    bfloat16 stays bfloat16 in memory and gives the same bits as its float32 widening.
    """

    def __init__(self, weight: Tensor) -> None:
        if weight.dim() != 2 or weight.dtype not in (torch.float32, torch.bfloat16) or weight.device.type != "cpu":
            raise ValueError(
                f"weight must be a float32 or bfloat16 CPU matrix, not {weight.dtype} {list(weight.shape)}"
            )
        if weight.numel() == 0:
            raise ValueError(f"weight must not be empty, but it is {list(weight.shape)}")
        weight = weight.detach().contiguous()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self._half = weight.dtype is torch.bfloat16
        panels = -(-self.out_features // _ramet.PANEL)
        self.packed = torch.empty(panels * self.in_features * _ramet.PANEL, dtype=weight.dtype)
        _ramet.pack(weight.data_ptr(), self.packed.data_ptr(), self.out_features, self.in_features, self._half)

    def __call__(self, x: Tensor, *, add: Tensor | None = None) -> Tensor:
        """`[T, in] -> [T, out]`; with `add` `[T, out]`, `add + x @ weight.T` (a residual connection)."""
        count = x.shape[0]
        added = (0, 0) if add is None else rows("add", add, self.out_features, count)
        out = torch.empty(count, self.out_features, dtype=torch.float32)
        _ramet.linear(
            *rows("x", x, self.in_features), self.packed.data_ptr(), self._half, count, self.in_features,
            self.out_features, *added, out.data_ptr(),
        )  # fmt: skip
        return out

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the weight, int64 `[T]` -> float32 `[T, in]`: for embeddings tied to the output layer."""
        out = torch.empty(tokens.numel(), self.in_features, dtype=torch.float32)
        at = contiguous("tokens", tokens, (tokens.numel(),), torch.int64)
        _ramet.embed_packed(
            self.packed.data_ptr(), self._half, self.out_features, self.in_features, at, tokens.numel(), out.data_ptr()
        )
        return out


class PackedHeads:
    """A matrix for each head, weight `[heads, out, in]`, packed like `PackedLinear`."""

    def __init__(self, weight: Tensor) -> None:
        if weight.dim() != 3 or weight.numel() == 0:
            raise ValueError(f"weight must be [heads, out, in] and not empty, but it is {list(weight.shape)}")
        packed = [PackedLinear(head) for head in weight]
        self.heads, self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self.packed = torch.stack([head.packed for head in packed])

    def __call__(self, x: Tensor) -> Tensor:
        """The first `in` columns of each head of x by that head's matrix: `[T, heads * S] -> [T, heads * out]`."""
        count, width = x.shape
        if width % self.heads or width // self.heads < self.in_features:
            raise ValueError(f"x has {width} columns: no {self.heads} heads of at least {self.in_features} each")
        out = torch.empty(count, self.heads * self.out_features, dtype=torch.float32)
        _ramet.head_linear(
            *rows("x", x), width // self.heads, self.packed.data_ptr(), self.dtype is torch.bfloat16, self.heads,
            self.in_features, self.out_features, count, out.data_ptr(),
        )  # fmt: skip
        return out


def embed(weight: Tensor, tokens: Tensor) -> Tensor:
    """Rows of a float32 or bfloat16 `weight` `[vocab, H]` for int64 `tokens` `[T]`, widened: float32 `[T, H]`."""
    if weight.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"weight must be float32 or bfloat16, not {weight.dtype}")
    vocab, width = weight.shape
    out = torch.empty(tokens.numel(), width, dtype=torch.float32)
    weight_at = contiguous("weight", weight, (vocab, width), weight.dtype)
    at = contiguous("tokens", tokens, (tokens.numel(),), torch.int64)
    _ramet.embed(weight_at, weight.dtype is torch.bfloat16, vocab, width, at, tokens.numel(), out.data_ptr())
    return out
