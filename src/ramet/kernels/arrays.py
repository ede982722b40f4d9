"""Checks between Python and the compiled ops, which are given bare addresses."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(name: str, x: Tensor, columns: int | None = None, count: int | None = None) -> int:
    """The address of a float32 `[count, columns]` tensor with adjacent columns, or a `ValueError` naming it."""
    if x.dtype is not torch.float32 or x.dim() != 2 or x.stride(1) != 1 or x.device.type != "cpu":
        if x.dim() == 2 and x.shape[1] == 1 and x.dtype is torch.float32 and x.device.type == "cpu":
            pass  # a single column is adjacent to nothing: its stride says nothing
        else:
            raise ValueError(
                f"{name} must be a float32 CPU tensor [rows, features] with adjacent columns, not {_is(x)}"
            )
    if columns is not None and x.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, not {_is(x)}")
    if count is not None and x.shape[0] != count:
        raise ValueError(f"{name} must have {count} rows, not {_is(x)}")
    return x.data_ptr()


def contiguous(name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> int:
    """The address of a contiguous CPU tensor of exactly this shape and dtype, or a `ValueError` naming it."""
    if x.shape != shape or x.dtype is not dtype or not x.is_contiguous() or x.device.type != "cpu":
        raise ValueError(f"{name} must be a contiguous {dtype} CPU tensor {list(shape)}, not {_is(x)}")
    return x.data_ptr()


def _is(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)} with strides {list(x.stride())} on {x.device}"
