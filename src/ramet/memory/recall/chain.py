"""Evidence chained: what is found for a question speaks for what goes with it, though the question does not name it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EVIDENCE = 5
"""Best candidates that speak for others."""
_LENT = 0.1
"""How much: in standard deviations of the candidates' own scores, for one of likeness."""


def chained(own: NDArray[np.float64], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The candidates' scores, [candidates], with what the best of them lend.

    The best five are joined into one vector by their shares of a softmax, and every candidate gets a tenth of a
    standard deviation of `own` for each one of its likeness to that. `vectors`: [candidates, dimensions], unit length;
    without any, nothing is lent.
    """
    if not len(own) or not vectors.shape[1]:
        return own
    best = np.argsort(-own, kind="stable")[:_EVIDENCE]
    share = np.exp(own[best] - own[best[0]])
    near = vectors @ (vectors[best].T @ (share / share.sum()).astype(np.float32))
    return np.asarray(own + _LENT * own.std() * (near - near.mean()) / (near.std() + np.float32(1e-6)))
