"""Which experts each row goes to, and with what weights. Ties go to the lowest index, everywhere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows

Score = Literal["sigmoid", "sqrtsoftplus"]
"""What makes a logit a score: `sigmoid(x)`, or `sqrt(log(1 + exp(x)))`."""


def route(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The `top_k` experts of each row and their weights, `[T, E]` -> int32 `[T, top_k]`, float32 `[T, top_k]`.

    Largest logit first, of equal ones the lowest index. The weights are the softmax of the row, divided by the sum over
    the chosen experts.
    """
    count, experts = logits.shape
    chosen, weights = _results(count, experts, top_k, experts)
    _ramet.route(*rows("logits", logits), count, experts, top_k, chosen.data_ptr(), weights.data_ptr())
    return chosen, weights


def route_by_score(
    logits: Tensor,
    bias: Tensor,
    top_k: int,
    *,
    score: Score = "sigmoid",
    groups: int = 1,
    groups_kept: int = 1,
    normalise: bool = True,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """DeepSeek V3's router: the `top_k` experts of each row by score plus bias, weighted by the score alone.

    logits `[T, E]`, bias float32 `[E]` -> int32 `[T, top_k]` in falling order of score + bias, float32 `[T, top_k]`.
    With `groups`, the experts are so many consecutive groups, and only those of the `groups_kept` groups whose two best
    experts sum highest can be chosen. The weights are divided by their sum + 1e-20 if `normalise`, then times `scale`.
    Of equals, experts or groups, the lowest index is taken. Raises `ValueError` if the sizes do not fit.
    """
    count, experts = logits.shape
    if not 1 <= groups_kept <= groups or experts % groups or (groups_kept < groups and experts < 2 * groups):
        raise ValueError(f"{experts} experts are no {groups} groups of two or more, of which {groups_kept} are kept")
    chosen, weights = _results(count, experts, top_k, experts // groups * groups_kept)
    _ramet.route_by_score(
        *rows("logits", logits), contiguous("bias", bias, (experts,)), count, experts, top_k, groups, groups_kept,
        score == "sqrtsoftplus", normalise, scale, chosen.data_ptr(), weights.data_ptr(),
    )  # fmt: skip
    return chosen, weights


def weigh_experts(logits: Tensor, chosen: Tensor, *, scale: float = 1.0) -> Tensor:
    """The weights of experts that are chosen already: `sqrt(log(1 + exp(logit)))` over the sum of it, times `scale`.

    logits `[T, E]`, chosen int32 `[T, top_k]` -> float32 `[T, top_k]`. `ValueError` for an expert that does not exist.
    """
    count, experts = logits.shape
    top_k = chosen.shape[1]
    weights = torch.empty(count, top_k, dtype=torch.float32)
    _ramet.weigh_experts(
        *rows("logits", logits), count, experts, top_k, contiguous("chosen", chosen, (count, top_k), torch.int32),
        scale, weights.data_ptr(),
    )  # fmt: skip
    return weights


def _results(count: int, experts: int, top_k: int, eligible: int) -> tuple[Tensor, Tensor]:
    if not 1 <= top_k <= eligible:
        raise ValueError(f"top_k must be from 1 to the number of experts, {eligible} of {experts}, not {top_k}")
    return torch.empty((count, top_k), dtype=torch.int32), torch.empty(count, top_k, dtype=torch.float32)
