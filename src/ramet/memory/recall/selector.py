"""FluxMem's selector (arXiv 2602.14038): which structure an episode gets, by a small network over its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ramet.memory.recall.episodes import Floats

Structure = Literal["linear", "graph", "hierarchical"]
STRUCTURES: tuple[Structure, ...] = ("linear", "graph", "hierarchical")

_HIDDEN = 4


@dataclass(frozen=True, slots=True)
class Selector:
    """Standard scaling, then a network 12 -> 4 -> 3 (ReLU)."""

    mean: Floats
    spread: Floats
    weights: tuple[Floats, Floats, Floats, Floats]
    """[12, 4], [4], [4, 3], [3]."""

    def shares(self, features: Floats) -> Floats:
        """How likely each structure is the best, [episodes, 3] for features [episodes, 12]."""
        return _forward((features - self.mean) / self.spread, self.weights)[1]

    def choose(self, features: Floats) -> list[Structure]:
        """The likeliest structure of each episode."""
        return [STRUCTURES[at] for at in self.shares(features).argmax(1)]


def fit(features: Floats, labels: Sequence[Structure], steps: int = 600, seed: int = 0) -> Selector:
    """The selector that tells the labels of episodes [episodes, 12] best: cross-entropy, Adam, deterministic.

    Raises ValueError without an episode, or with another number of labels.
    """
    if not len(features) or len(features) != len(labels):
        raise ValueError(f"a selector is fitted to episodes and their labels; there are {len(features)}, {len(labels)}")
    mean, spread = features.mean(0), features.std(0) + 1e-9
    scaled = (features - mean) / spread
    wanted = np.eye(3)[[STRUCTURES.index(label) for label in labels]]
    dice = np.random.default_rng(seed)
    parts = [
        dice.normal(0, 0.3, (features.shape[1], _HIDDEN)), np.zeros(_HIDDEN), dice.normal(0, 0.5, (_HIDDEN, 3)),
        np.zeros(3),
    ]  # fmt: skip
    moments = [(np.zeros_like(part), np.zeros_like(part)) for part in parts]
    for step in range(1, steps + 1):
        hidden, likely = _forward(scaled, (parts[0], parts[1], parts[2], parts[3]))
        up = (likely - wanted) / len(wanted)
        below = (up @ parts[2].T) * (hidden > 0)
        gradients = [scaled.T @ below, below.sum(0), hidden.T @ up, up.sum(0)]
        for at, gradient in enumerate(gradients):
            gradient = gradient + 1e-3 * parts[at]
            first, second = moments[at]
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            moments[at] = first, second
            rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            parts[at] = parts[at] - rate * first / (np.sqrt(second) + 1e-8)
    return Selector(mean, spread, (parts[0], parts[1], parts[2], parts[3]))


def _forward(scaled: Floats, weights: tuple[Floats, Floats, Floats, Floats]) -> tuple[Floats, Floats]:
    """Hidden values [episodes, 4] and shares [episodes, 3]."""
    first, first_bias, second, second_bias = weights
    hidden = np.maximum(scaled @ first + first_bias, 0)
    logits = hidden @ second + second_bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return hidden, shares / shares.sum(1, keepdims=True)
