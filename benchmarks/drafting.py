"""What guessing ahead costs and gives: tokens per second of a greedy reply, plain and with guesses.

The checkpoint is random, so its own guesses never come true: they show the cost, until the engine gives them up. The
other runs put the right token in the place of so many of the guesses, as a trained head would: what is to be gained.

    python benchmarks/drafting.py                   # the shape of Qwen3.5-0.8B, bfloat16
    python benchmarks/drafting.py --preset tiny
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ramet import models
from ramet.chat import Tokenizer
from ramet.engine import Engine, Request, Sampling, TokenEvent
from ramet.models.base import Model
from ramet.models.random import PRESETS, write_random_checkpoint
from ramet.models.states import Span
from ramet.tree import Tree
from report import Figure, report


class Guided:
    """A model, so many of whose guesses are replaced by the tokens that `truth` says will come."""

    def __init__(self, model: Model, truth: Sequence[int], right: float) -> None:
        self.model, self.truth, self.right = model, truth, right
        self.dice = random.Random(0)

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def draft(self, spans: Sequence[Span], guesses: int, before: Sequence[Tensor | None]) -> None:
        self.model.draft(spans, guesses, before)
        for span in spans:
            for i in range(len(span.tokens) - guesses, len(span.tokens)):
                at = span.position + i
                if at < len(self.truth) and self.dice.random() < self.right:
                    span.tokens[i] = self.truth[at]


def reply(model: Model, tokenizer: Tokenizer, prompt: list[int], length: int, drafts: int) -> tuple[list[int], float]:
    """A greedy reply, and its tokens per second, the prompt not counted."""
    tree = Tree(model.layout, model.fingerprint, ram_bytes=4 << 30)
    engine = Engine(model, tree, tokenizer, drafts=drafts)
    engine.start()
    sampling = Sampling(max_tokens=length, temperature=0.0, ignore_eos=True)
    handle = engine.submit(Request(prompt, sampling=sampling))
    first, tokens = 0.0, list[int]()
    for event in handle:
        first = first or time.perf_counter()
        if isinstance(event, TokenEvent):
            tokens.append(event.token)
    seconds = time.perf_counter() - first
    engine.stop()
    assert len(tokens) == length
    return tokens, (length - 1) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="0.8b")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_random_checkpoint(scratch, seed=0, preset=options.preset, dtype=torch.bfloat16, ahead=True)
        model, tokenizer = models.load(folder, ahead=True), Tokenizer.load(folder)
        prompt = random.Random(0).choices(range(256), k=128)
        truth, _ = reply(model, tokenizer, prompt, options.tokens, 0)
        _, plain = reply(model, tokenizer, prompt, options.tokens, 0)
        figures.append(Figure("plain", plain, "token/s"))
        for drafts, right in ((1, 0.0), (1, 0.7), (1, 1.0), (2, 0.7), (3, 1.0)):
            guided = Guided(model, [*prompt, *truth], right)
            tokens, speed = reply(guided, tokenizer, prompt, options.tokens, drafts)  # type: ignore[arg-type]
            assert tokens == truth, "guesses changed the reply"
            name = f"{drafts} guessed a step, {right:.0%} of them right"
            figures.append(Figure(name, speed, "token/s", peer=f"plain {plain:.1f}", note=f"{speed / plain:.2f} x"))
    report(f"Guessing ahead, {options.preset}", figures, options.json)


if __name__ == "__main__":
    main()
