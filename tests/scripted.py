"""A model that says what a test tells it to, over a real tokenizer: what is above the models can be tried on any reply.

Its rows are the tokens themselves, so whatever the tree forks, rewinds or brings back from disk is what it continues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ramet.chat import Tokenizer
from ramet.models.states import PAGE_TOKENS, Recurrent, Rows, Span, StateLayout

Script = Callable[[str], Mapping[str, float]]
"""From a prompt's text to the replies that may follow it, with their probabilities."""


class ScriptedModel:
    """Implements `ramet.models.base.Model`, but for guessing ahead."""

    predicts_ahead = False

    def __init__(self, tokenizer: Tokenizer, script: Script, *, context_length: int = 4096) -> None:
        self.layout = StateLayout((Rows("tokens", (PAGE_TOKENS,)),), (Recurrent("none", (1,)),))
        self.vocab_size = tokenizer.vocab_size
        self.context_length = context_length
        self.fingerprint = "scripted"
        self.visual = None
        self._tokenizer = tokenizer
        self._script = script
        self._opening = tokenizer.encode("<|im_start|>assistant\n")
        self._unthinking = tokenizer.encode("<think>\n\n</think>\n\n")

    def forward(self, spans: Sequence[Span]) -> Tensor:
        """Logits, float32 `[sum(span.logits), vocab_size]`."""
        rows = []
        for span in spans:
            for index, token in enumerate(span.tokens.tolist()):
                page, row = divmod(span.position + index, PAGE_TOKENS)
                span.pages[page][row] = float(token)
            end = span.position + len(span.tokens)
            known = torch.cat([page[:PAGE_TOKENS] for page in span.pages])[:end].int().tolist()
            rows += [self._next(known[: end - later]) for later in range(span.logits - 1, -1, -1)]
        return torch.stack(rows) if rows else torch.empty(0, self.vocab_size)

    def _next(self, tokens: list[int]) -> Tensor:
        logits = torch.full((self.vocab_size,), -math.inf)
        size = len(self._opening)
        starts = [at for at in range(len(tokens) - size, -1, -1) if tokens[at : at + size] == self._opening]
        if not starts:
            return logits.fill_(0.0)
        said = tokens[starts[0] + size :]
        if said[: len(self._unthinking)] == self._unthinking:
            said = said[len(self._unthinking) :]
        for reply, probability in self._script(self._tokenizer.decode(tokens[: starts[0]], specials=True)).items():
            whole = [*self._tokenizer.encode(reply), self._tokenizer.eos_ids[0]]
            if whole[: len(said)] == said and len(whole) > len(said):
                logits[whole[len(said)]] = torch.logaddexp(
                    logits[whole[len(said)]], torch.tensor(math.log(probability))
                )
        return logits
