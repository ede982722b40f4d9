"""For tests of the models: a session as the model sees one, and the model in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ramet.models.base import Model
from ramet.models.states import PAGE_TOKENS, Span

LENGTH = 150  # into the third page, and no multiple of anything


class Session:
    """Owns its pages and state; `span` gives the next tokens to run."""

    def __init__(self, model: Model) -> None:
        self.layout = model.layout
        self.pages: list[Tensor] = []
        self.state = model.layout.new_state()
        self.position = 0

    def span(self, tokens: Tensor, logits: int | None = None) -> Span:
        """The next span; logits of all its tokens unless told otherwise."""
        position, self.position = self.position, self.position + len(tokens)
        while len(self.pages) * PAGE_TOKENS < self.position:
            self.pages.append(self.layout.new_page())
        return Span(tokens, position, self.pages, self.state, len(tokens) if logits is None else logits)


def run(model: Model, tokens: Tensor, chunk: int | None = None) -> Tensor:
    """Logits of every token of one new session, `chunk` tokens a step (None: all at once)."""
    session = Session(model)
    return torch.cat([model.forward([session.span(part)]) for part in tokens.split(chunk or len(tokens))])


def oracle(checkpoint: Path) -> Any:
    """The checkpoint in transformers, float32.

    Its grouped experts take multiples of 16 bytes only, the eager ones all.
    """
    transformers = pytest.importorskip("transformers")
    told = {"dtype": torch.float32, "experts_implementation": "eager"}
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint, **told).eval()


def oracle_logits(checkpoint: Path, tokens: Tensor) -> Tensor:
    """The logits of all tokens of one sequence, int64 `[n]` -> `[n, vocab]`."""
    with torch.no_grad():
        logits: Tensor = oracle(checkpoint)(tokens.unsqueeze(0)).logits[0]
    return logits


@contextmanager
def ties_to_the_lowest_index() -> Iterator[None]:
    """torch's `topk` takes any of equal values, others for another shape; within this, the ones of lowest index.

    An indexer's scores tie where no head's product is positive: all of these are exactly zero.
    """

    def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
        values, indices = torch.sort(x, dim=dim, descending=largest, stable=True)
        return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))

    before = torch.topk, torch.Tensor.topk
    torch.topk = torch.Tensor.topk = topk  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.topk, torch.Tensor.topk = before  # type: ignore[method-assign]
