"""How a memory recalls: candidates of an index, scored by soft sums of signals."""

from ramet.memory.recall.fusion import DEFAULT, GRAPH, HIERARCHICAL, LINEAR, SIGNALS, Weights, ranked, recall, signals

__all__ = ["DEFAULT", "GRAPH", "HIERARCHICAL", "LINEAR", "SIGNALS", "Weights", "ranked", "recall", "signals"]
