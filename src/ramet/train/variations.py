"""Changes of form that fit any question, for the later part of training."""

from __future__ import annotations

import random

_OPENINGS = (
    "please", "hey", "ok so", "so", "now", "could you say", "i would like to know", "i wonder", "help me",
    "quick question", "in this table", "looking at the table", "according to the table", "based on this data",
    "from the list", "can you work out", "let me know", "say", "for my report", "just", "and", "then",
    "i am looking for", "would you give me", "do you see", "please find out", "in the data",
)  # fmt: skip
_ENDINGS = (
    "please", "in this table", "according to the table", "in the data", "if you can", "thanks", "on this list",
    "in the chart", "as listed", "from the table", "here", "exactly", "do you think", "by the table",
)  # fmt: skip
_LIGHT = {
    "the", "a", "an", "is", "was", "are", "were", "do", "does", "did", "of", "there", "that", "it", "its", "their",
    "has", "have", "had", "in", "for",
}  # fmt: skip
_FRONTS = (
    "among {es} {f}", "considering only {es} {f}", "if we only look at {es} {f}", "only {es} {f}",
    "looking at {es} {f}", "out of the {es} {f}", "when we take just {es} {f}", "from {es} {f}", "{f}",
    "with {es} {f} in mind",
)  # fmt: skip


def with_filter_first(rng: random.Random, template: str, words: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A question whose filters come before it rather than inside, now and then."""
    if "{f}" in template and words.get("f") and "es" in words and rng.random() < 0.12:
        front = rng.choice(_FRONTS)
        return f"{front} " + template.replace("{f}", ""), words
    return template, words


def reword(rng: random.Random, text: str) -> str:
    """An opening or an ending that means nothing, or light words lost, now and then."""
    style = rng.random()
    if style < 0.14:
        return f"{rng.choice(_OPENINGS)} {text}"
    if style < 0.22:
        return f"{text} {rng.choice(_ENDINGS)}"
    if style < 0.34:
        kept = [w for i, w in enumerate(text.split()) if i == 0 or w.lower() not in _LIGHT or rng.random() < 0.6]
        return " ".join(kept)
    return text
