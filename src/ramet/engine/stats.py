"""What the engine counts, for metrics."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field


@dataclass
class Histogram:
    """Counts of observations by upper bound (the last bucket is unbounded), and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


STEP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAIT_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass
class EngineStats:
    """Counters only grow; `running`, `waiting` and `following` are how things stand now. Times are in seconds."""

    running: int = 0
    """Replies in progress (prompt or reply), each of n choices counted."""
    waiting: int = 0
    """Requests in the queue."""
    following: int = 0
    """Of the running, those that wait for another request to compute the prefix that they share."""
    requests: int = 0
    """Requests accepted."""
    finished: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("stop", "length", "tool_calls", "cancelled", "error"), 0)
    )
    """Choices finished, by reason."""
    steps: int = 0
    prompt_tokens: int = 0
    """Tokens of all admitted prompts."""
    computed_tokens: int = 0
    """Prompt tokens that were run."""
    reused_tokens: int = 0
    """Prompt tokens that were not run."""
    reply_tokens: int = 0
    """Tokens sampled."""
    pictures_encoded: int = 0
    """How many times the vision tower has run."""
    drafted_tokens: int = 0
    """Tokens guessed ahead."""
    accepted_tokens: int = 0
    """Of those, the ones that were then sampled."""
    step_seconds: Histogram = field(default_factory=lambda: Histogram(STEP_BOUNDS))
    queue_seconds: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    first_token_seconds: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    """From submission to the first sampled token."""
