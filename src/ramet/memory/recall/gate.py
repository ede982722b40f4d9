"""FluxMem's Beta-mixture gate (arXiv 2602.14038): which episodes a new page joins, with its fault mended.

As published, the similarities of one page are scaled so that the best becomes 1 and the best is always kept: no second
episode ever opens. Here the mixture is fitted to the last 2,000 cosines, of this page and those before,
unscaled, and nothing need be kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 30
_EDGE = 1e-4


class Gate:
    """Decides by the history of similarities. Deterministic; not safe to use from several threads at once."""

    def __init__(self, floor: float = 0.3, least: int = 20, kept: int = 2000) -> None:
        """Below the cosine `floor` nothing joins; until `least` similarities are known the floor alone decides.

        Of the history the last `kept` similarities count.
        """
        self.floor, self.least, self.kept = floor, least, kept
        self._history: list[float] = []

    def joins(self, similarities: Sequence[float]) -> list[bool]:
        """For each episode, whether the page with these cosines to it joins; none: it opens one."""
        new = np.asarray(similarities, np.float64)
        self._history = [*self._history, *new.tolist()][-self.kept :]
        passes = new >= self.floor
        if len(self._history) >= self.least and len(new):
            passes &= posterior(unit(np.array(self._history)), unit(new)) >= 0.5
        return [bool(one) for one in passes]


def unit(cosines: Floats) -> Floats:
    """Cosines as shares in the open interval (0, 1); those below 0 count as 0."""
    return np.clip(cosines, _EDGE, 1 - _EDGE)


def posterior(history: Floats, asked: Floats) -> Floats:
    """Share of the higher of two Beta components at each of `asked`, both fitted to `history`; all in (0, 1).

    Means start at the 0.3 and 0.7 quantiles; expectation in log space, parameters by moments. Beyond the mean of a
    component the share does not turn back, so a higher similarity never has a lower share.
    """
    means = np.quantile(history, [0.3, 0.7])
    spreads = np.full(2, max(float(history.var()), 1e-4))
    weights = np.array([0.5, 0.5])
    for _ in range(_STEPS):
        shares = _shares(history, means, spreads, weights)
        total = shares.sum(0) + 1e-9
        means = (shares * history[:, None]).sum(0) / total
        spreads = np.maximum((shares * (history[:, None] - means) ** 2).sum(0) / total, 1e-4)
        weights = total / total.sum()
    grid = np.sort(np.concatenate([means, asked]))
    shares = _shares(grid, means, spreads, weights)[:, int(means.argmax())]
    inside = np.clip(asked, means.min(), means.max())
    return np.interp(inside, grid, np.maximum.accumulate(shares * (grid >= means.min())))


def _shares(values: Floats, means: Floats, spreads: Floats, weights: Floats) -> Floats:
    """Responsibilities [values, 2] of Beta components with these moments."""
    means = np.clip(means, _EDGE, 1 - _EDGE)
    size = np.maximum(means * (1 - means) / spreads - 1, 1e-2)
    a, b = means * size, (1 - means) * size
    norm = [math.lgamma(x + y) - math.lgamma(x) - math.lgamma(y) for x, y in zip(a, b, strict=True)]
    logs = np.log(weights + 1e-12) + norm + np.outer(np.log(values), a - 1) + np.outer(np.log1p(-values), b - 1)
    likely = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(likely / likely.sum(1, keepdims=True))
