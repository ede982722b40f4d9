"""How much to read: few turns where a few stand out, more where none does.

The idea of HyMem's scheduler (arXiv 2602.13933), decided by scores alone, with no language model asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramet.memory.base import Hit


def breadth(hits: Sequence[Hit]) -> float:
    """How many hits share the score: e to the entropy of their shares of it, from 1 to len(hits); 0 for none.

    Scores are those of `fusion.ranked`: none is below 0.
    """
    if not hits:
        return 0.0
    scores = np.array([hit.score for hit in hits])
    share = scores / max(float(scores.sum()), 1e-300)
    return float(np.exp(-(share * np.log(share + 1e-12)).sum()))


def threshold(breadths: Sequence[float], escalated: float = 0.5) -> float:
    """The breadth that the share `escalated` of past questions exceed. Needs no answers."""
    return float(np.quantile(np.asarray(breadths), 1 - escalated))


def scheduled(hits: Sequence[Hit], limit: float, light: int = 10) -> list[Hit]:
    """The best `light` of the hits that the deep path would read; all of them where their breadth is over `limit`."""
    return list(hits if breadth(hits) > limit else hits[:light])
