"""How questions are put into words: phrasings for training, further ones for its later part, others only for tests."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from importlib.resources import files

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


@dataclass(frozen=True)
class Phrasings:
    """The templates of one kind of filter or question; `phrases.txt` says how they are written."""

    plain: list[str] = field(default_factory=list)
    """For training from its first step on."""
    further: list[str] = field(default_factory=list)
    """For the later part of training."""
    held_out: list[str] = field(default_factory=list)
    """For tests alone."""


def _read() -> tuple[dict[str, Phrasings], dict[str, Phrasings]]:
    groups: dict[str, dict[str, Phrasings]] = {"filter": {}, "question": {}}
    phrasings = Phrasings()
    for line in files("ramet.train").joinpath("phrases.txt").read_text(encoding="utf-8").splitlines():
        mark, _, text = line.partition(" ")
        if mark in groups:
            phrasings = groups[mark].setdefault(text, Phrasings())
        elif mark in ("-", "+", "!"):
            {"-": phrasings.plain, "+": phrasings.further, "!": phrasings.held_out}[mark].append(text)
    return groups["filter"], groups["question"]


FILTERS, QUESTIONS = _read()


def fill(rng: random.Random, template: str) -> str:
    """One way through a template's choices."""
    while match := _CHOICE.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template
