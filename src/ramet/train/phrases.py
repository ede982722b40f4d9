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
    recombined: list[str] = field(default_factory=list)
    """For the last part of training; `recombine` leaves out what would say a held-out phrase."""
    held_out: list[str] = field(default_factory=list)
    """For tests alone."""


def _read() -> tuple[dict[str, Phrasings], dict[str, Phrasings]]:
    groups: dict[str, dict[str, Phrasings]] = {"filter": {}, "question": {}}
    phrasings = Phrasings()
    for line in files("ramet.train").joinpath("phrases.txt").read_text(encoding="utf-8").splitlines():
        mark, _, text = line.partition(" ")
        if mark in groups:
            phrasings = groups[mark].setdefault(text, Phrasings())
        elif mark in ("-", "+", "*", "!"):
            kinds = {"-": phrasings.plain, "+": phrasings.further, "*": phrasings.recombined, "!": phrasings.held_out}
            kinds[mark].append(text)
    return groups["filter"], groups["question"]


FILTERS, QUESTIONS = _read()


def fill(rng: random.Random, template: str) -> str:
    """One way through a template's choices."""
    while match := _CHOICE.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template


def ways(template: str) -> set[str]:
    """Every way through a template's choices."""
    match = _CHOICE.search(template)
    if match is None:
        return {" ".join(template.split())}
    parts = (template[: match.start()] + choice + template[match.end() :] for choice in match[1].split("|"))
    return {way for part in parts for way in ways(part)}


HELD_OUT_WAYS = {way for p in QUESTIONS.values() for template in p.held_out for way in ways(template)}


def says_held_out(filled: str) -> bool:
    """Whether a filled template says, or contains, a held-out phrasing (its filters aside)."""
    said = f" {' '.join(filled.replace('{f}', '').split())} "
    return any(f" {' '.join(way.replace('{f}', '').split())} " in said for way in HELD_OUT_WAYS)


def recombine(rng: random.Random, phrasings: Phrasings) -> str:
    """A recombined phrasing, its choices made, that says no held-out one."""
    while True:
        filled = fill(rng, rng.choice(phrasings.recombined))
        if not says_held_out(filled):
            return filled
