"""What every model family offers to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ramet.models.pictures import Tower
from ramet.models.states import Span, StateLayout


class Model(Protocol):
    """A loaded checkpoint, ready to run. Implementations are one file per family."""

    layout: StateLayout
    vocab_size: int
    context_length: int
    visual: Tower | None
    """What encodes pictures; None for a model that reads text only."""
    mapped: bool
    """Whether weights are read from the files as they are used, since there is no memory for all."""
    fingerprint: str
    """Hex digest of the config, every weight and the kernels' build: states are valid only under the same one."""

    @property
    def predicts_ahead(self) -> bool:
        """Whether `draft` can be called."""
        ...

    def draft(self, spans: Sequence[Span], guesses: int, before: Sequence[Tensor | None]) -> None:
        """Guess the last `guesses` tokens of each span, which are to be run next; writes them into `span.tokens`.

        `before[i]`, float32 `[n, hidden]`, is `Span.hidden` for the n tokens before the span's second, ... last known
        one (None for a span with one known token: the state holds what is before the first). Writes rows at the span's
        positions, which `forward` writes anew, and nothing else.
        """
        ...

    def forward(self, spans: Sequence[Span]) -> Tensor:
        """Run every span one step on, writing their rows and states.

        Returns logits, float32 `[sum(span.logits), vocab_size]`, in the order of the spans and their tokens. The bits
        of a span's logits do not depend on the other spans, nor on how its session's tokens were cut into spans.

        Raises `ContextLengthError` if a span goes past `context_length`, `ValueError` for an empty span.
        """
        ...
