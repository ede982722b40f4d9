"""Optimizers: AdamW for everything, or Muon for the matrices inside the layers and AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest matrices of equal singular values (Newton-Schulz): `[n, rows, columns]`, rows <= columns."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for 2-D weights. Weights of one shape are updated in one batch."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for (rows, columns), weights in shapes.items():
                updates = []
                for p in weights:
                    state = self.state[p]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(p)
                    grad = p.grad
                    assert grad is not None
                    velocity = state["momentum"].lerp_(grad, 1 - group["momentum"])
                    updates.append(grad.lerp(velocity, group["momentum"]))
                stacked = torch.stack(updates)
                flip = rows > columns
                whitened = orthogonalise(stacked.mT if flip else stacked)
                whitened = whitened.mT if flip else whitened
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for p, update in zip(weights, whitened, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)


def make_optimizers(model: nn.Module, kind: str, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """`kind` is `muon` or `adamw`. With Muon, `lr` is its rate, and AdamW's for the rest is a tenth of it."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        inner = (
            p.dim() == 2 and min(p.shape) >= 8 and "embed" not in name and "conv" not in name and "lm_head" not in name
        )
        (matrices if inner and kind == "muon" else rest).append(p)
    decayed, bare = [p for p in rest if p.dim() >= 2], [p for p in rest if p.dim() < 2]
    rate = lr / 10 if kind == "muon" else lr
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": bare, "weight_decay": 0.0}]
    adam: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-9)
    if kind == "adamw":
        return [adam]
    return [Muon(matrices, lr=lr, weight_decay=weight_decay), adam]
