"""YaRN: rotary frequencies of a model trained at one length, stretched to a longer one (arXiv 2309.00071)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ramet.models.fields import Fields
from ramet.models.rope import Rope


@dataclass(frozen=True)
class Yarn:
    """How frequencies are stretched, under the names of `rope_scaling` in `config.json`."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    """Frequencies that turn more often than this over the original length stay as they are."""
    beta_slow: float = 1.0
    """Those that turn less often than this are divided by `factor`; between the two there is a ramp."""
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    """Times the cosines and sines; if None, it follows from the factor and the two mscales."""

    @classmethod
    def from_fields(cls, fields: Fields, max_position_embeddings: int) -> Yarn:
        """Read `rope_scaling` or `rope_parameters`. Raises CheckpointError."""
        fields.must_be("truncate", True)
        return cls(
            factor=fields.number("factor"),
            original_max_position_embeddings=fields.integer(
                "original_max_position_embeddings", max_position_embeddings
            ),
            beta_fast=fields.number("beta_fast", 32.0),
            beta_slow=fields.number("beta_slow", 1.0),
            mscale=fields.number("mscale") if fields.get("mscale") else 0.0,
            mscale_all_dim=fields.number("mscale_all_dim") if fields.get("mscale_all_dim") else 0.0,
            attention_factor=fields.number("attention_factor") if fields.get("attention_factor") else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The fields that are said, without the kind."""
        return {name: value for name, value in vars(self).items() if value}

    def rope(self, rotary: int, theta: float, *, interleaved: bool) -> Rope:
        """The stretched frequencies of `rotary` columns."""
        plain = Rope.unscaled(rotary, theta).inv_freq
        low, high = (self._column(turns, rotary, theta) for turns in (self.beta_fast, self.beta_slow))
        first, last = max(math.floor(low), 0), min(math.ceil(high), rotary - 1)
        pairs = torch.arange(rotary // 2, dtype=torch.float32, device="cpu")
        kept = 1.0 - ((pairs - first) / max(last - first, 0.001)).clamp(0.0, 1.0)
        return Rope(plain / self.factor * (1.0 - kept) + plain * kept, interleaved, self._scale())

    def softmax_factor(self) -> float:
        """Times the scale of the attention scores."""
        return _attention_scale(self.factor, self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0

    def _column(self, turns: float, rotary: int, theta: float) -> float:
        """The pair of columns whose frequency turns so many times over the original length."""
        length = self.original_max_position_embeddings
        return rotary * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    def _scale(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return _attention_scale(self.factor, self.mscale) / _attention_scale(self.factor, self.mscale_all_dim)
        return _attention_scale(self.factor, 1.0)


def _attention_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
