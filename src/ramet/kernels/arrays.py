"""Checks between Python and the compiled ops, which are given bare addresses."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(name: str, x: Tensor, columns: int | None = None, count: int | None = None) -> tuple[int, int]:
    """Address and row stride of a float32 `[count, columns]` tensor with adjacent columns.

    Raises a `ValueError` that names the tensor if it is anything else.
    """
    shape, strides = x.shape, x.stride()
    # A single column is adjacent to nothing: its stride says nothing.
    if len(shape) != 2 or x.dtype is not torch.float32 or not x.is_cpu or (strides[1] != 1 and shape[1] != 1):
        raise ValueError(f"{name} must be a float32 CPU tensor [rows, features] with adjacent columns, not {_is(x)}")
    if columns is not None and shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, not {_is(x)}")
    if count is not None and shape[0] != count:
        raise ValueError(f"{name} must have {count} rows, not {_is(x)}")
    return x.data_ptr(), strides[0]


def contiguous(name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> int:
    """The address of a contiguous CPU tensor of exactly this shape and dtype, or a `ValueError` naming it."""
    if x.shape != shape or x.dtype is not dtype or not x.is_contiguous() or not x.is_cpu:
        raise ValueError(f"{name} must be a contiguous {dtype} CPU tensor {list(shape)}, not {_is(x)}")
    return x.data_ptr()


def _is(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)} with strides {list(x.stride())} on {x.device}"
