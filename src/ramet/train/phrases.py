"""How questions are put into words: phrasings for training, further ones for its later part, others only for tests."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from importlib.resources import files

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


@dataclass
class Phrasings:
    """The templates of one kind of filter or question; `phrases.txt` says how they are written."""

    plain: list[str] = field(default_factory=list)
    """For training from its first step on."""
    further: list[str] = field(default_factory=list)
    """For the later part of training, by `fill_further`, which leaves out what would say a held-out phrase."""
    held_out: list[str] = field(default_factory=list)
    """For tests alone."""
    avoided: set[str] = field(default_factory=set)
    """Every way through every held-out template of the filters, or of the questions."""


def _read() -> tuple[dict[str, Phrasings], dict[str, Phrasings]]:
    groups: dict[str, dict[str, Phrasings]] = {"filter": {}, "question": {}}
    phrasings = Phrasings()
    for line in files("ramet.train").joinpath("phrases.txt").read_text(encoding="utf-8").splitlines():
        mark, _, text = line.partition(" ")
        if mark in groups:
            phrasings = groups[mark].setdefault(text, Phrasings())
        elif mark in ("-", "+", "!"):
            kinds = {"-": phrasings.plain, "+": phrasings.further, "!": phrasings.held_out}
            kinds[mark].append(text)
    for group in groups.values():
        avoided = {_bare(way) for p in group.values() for template in p.held_out for way in ways(template)}
        for phrasings in group.values():
            phrasings.avoided = avoided
    return groups["filter"], groups["question"]


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


def _bare(way: str) -> str:
    """A way through a template as one line of words, its filters aside."""
    return " ".join(way.replace("{f}", "").split())


FILTERS, QUESTIONS = _read()


def says_held_out(filled: str, phrasings: Phrasings) -> bool:
    """Whether a filled template of `phrasings` says, or contains, a held-out one (its filters aside)."""
    said = f" {_bare(filled)} "
    return any(f" {way} " in said for way in phrasings.avoided)


def fill_further(rng: random.Random, phrasings: Phrasings) -> str:
    """One of the further phrasings, its choices made, that says nothing held out."""
    while True:
        filled = fill(rng, rng.choice(phrasings.further))
        if not says_held_out(filled, phrasings):
            return filled
