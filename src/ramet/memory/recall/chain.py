"""Evidence chained: what was found for a question speaks for what goes with it, once for each hop.

For questions whose answer lies in several turns. `Memory.recall` does not use it: docs/memory.md says what it earns.
"""

from __future__ import annotations

import numpy as np

from ramet.memory.base import Hit
from ramet.memory.recall.fusion import DEFAULT, Weights, weighted
from ramet.memory.recall.signals import Pool

_EVIDENCE = 5
"""Best candidates that speak for others."""


def chained(found: Pool, k: int, weights: Weights = DEFAULT, hops: int = 1, lent: float = 0.5) -> list[Hit]:
    """The `k` best candidates after `hops` hops; scores are sums of signals, and compare within one answer only.

    In each hop the evidence so far, the best five by their shares of a softmax, is joined into one vector, and every
    candidate gets `lent` standard deviations of its similarity to that. Without vectors nothing is lent.
    """
    if not len(found.values):
        return []
    own = weighted(found.values, weights)
    sums = own
    for _ in range(hops if found.vectors.shape[1] else 0):
        best = np.argsort(-sums, kind="stable")[:_EVIDENCE]
        share = np.exp(sums[best] - sums[best[0]])
        near = found.vectors @ (found.vectors[best].T @ (share / share.sum()))
        sums = own + lent * (near - near.mean()) / (near.std() + 1e-9)
    return [Hit(found.ids[at], float(sums[at])) for at in np.argsort(-sums, kind="stable")[:k].tolist()]
