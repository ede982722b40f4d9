"""What an episode looks like: the 12 features by which FluxMem's selector chooses a structure (arXiv 2602.14038)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ramet.memory.base import Turn
from ramet.memory.entities import entities
from ramet.memory.recall.episodes import Episode, Floats
from ramet.memory.recall.question import COMMON
from ramet.memory.words import terms

FEATURES = (
    "pages", "words a page", "entities", "relations", "topic diversity", "topic transitions", "questions answered",
    "decisions", "one entity", "days", "pages a day", "dispersion",
)  # fmt: skip

_RELATION = re.compile(
    r"\b(?:because|since|so that|therefore|due to|caused?|leads? to|after|before|between|both|with|than|part of|"
    r"belongs?|owns?|(?:my|her|his|their|your) (?:\w+ )?(?:mother|mom|father|dad|sister|brother|son|daughter|kids?|"
    r"children|wife|husband|partner|friends?|boss|colleagues?|neighbou?rs?|dog|cat))\b",
    re.IGNORECASE,
)
_DECISION = re.compile(
    r"\b(?:if|unless|otherwise|else|either|whether|instead|rather than|option|choose|chose|decid\w+|depends?|plan b)\b",
    re.IGNORECASE,
)
_APART = 0.35
"""Pages whose vectors have a cosine below this are about different things."""


def features(episode: Episode) -> Floats:
    """The features of an episode in the order of `FEATURES`, [12]; counts of words are a share of all words."""
    turns = [turn for page in episode.pages for turn in page.turns]
    texts = [turn.text for turn in turns]
    words = max(1, sum(len(text.split()) for text in texts))
    bags = [term for text in texts for term in terms(text) if term not in COMMON]
    mentioned = Counter(entity for turn in turns for entity in entities(turn.text, turn.time))
    mentions = max(1, mentioned.total())
    vectors = np.stack([page.vector for page in episode.pages])
    steps = (vectors[1:] * vectors[:-1]).sum(1)
    days = _days(turns)
    pages = len(episode.pages)
    return np.array(
        [
            pages,
            words / pages,
            mentioned.total() / words,
            sum(len(_RELATION.findall(text)) for text in texts) / words,
            len(set(bags)) / max(1, len(bags)),
            float((steps < _APART).mean()) if len(steps) else 0.0,
            sum(text.rstrip().endswith("?") for text in texts[:-1]) / len(texts),
            sum(len(_DECISION.findall(text)) for text in texts) / words,
            max(mentioned.values(), default=0) / mentions,
            np.log1p(days),
            pages / (1 + days),
            1 - float(np.linalg.norm(vectors.mean(0))),
        ]
    )


def _days(turns: Sequence[Turn]) -> float:
    """Days between the first and the last turn, by the conversation's clock; 0 where no two have a time."""
    times = [turn.time.timestamp() for turn in turns if turn.time is not None]
    return (max(times) - min(times)) / 86400 if times else 0.0
