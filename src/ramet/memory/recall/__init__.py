"""How a memory recalls: candidates of an index, scored by soft sums of signals."""

from ramet.memory.recall.fusion import (
    DEFAULT,
    GRAPH,
    HIERARCHICAL,
    LEXICAL_AND_DENSE,
    LINEAR,
    Weights,
    adapted,
    best,
    fit,
    ranked,
    scores,
    weighted,
)
from ramet.memory.recall.signals import SIGNALS, Pool, pool

__all__ = [
    "DEFAULT", "GRAPH", "HIERARCHICAL", "LEXICAL_AND_DENSE", "LINEAR", "SIGNALS", "Pool", "Weights", "adapted", "best",
    "fit", "pool", "ranked", "scores", "weighted",
]  # fmt: skip
