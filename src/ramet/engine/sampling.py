"""From a row of logits to a token: each row by itself, so that a reply does not depend on what runs beside it.

The order is the one that the field agrees on: penalties, logit_bias, the grammar's
mask, temperature, top-k, top-p, min-p, and a draw from what is left. Of equal logits the lower token id comes first.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramet.engine.request import RequestError, Sampling
from ramet.models.fields import read_json

Scores = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

NEUTRAL = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0)
"""Settings that leave the model's own distribution as it is."""

_COLDEST = 1e-5
"""Below this temperature only the likeliest token has any weight, and float32 may have no number for the others'."""

_NUCLEUS_GUESSES = (256, 8192)
"""Tokens looked at first for top-p; only where they hold too little of the mass is the whole row sorted."""


def checkpoint_defaults(path: str | Path) -> Sampling:
    """The sampling that a checkpoint's generation_config.json asks for; neutral where it says nothing.

    `do_sample: false` means temperature 0. Raises CheckpointError if the file is not a JSON object, RequestError for
    values that are out of range.
    """
    file = Path(path) / "generation_config.json"
    if not file.exists():
        return NEUTRAL
    config = read_json(file)
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty")
    given = {name: config[name] for name in names if config.get(name) is not None}
    if config.get("do_sample") is False:
        given["temperature"] = 0.0
    defaults = Sampling(**given).over(NEUTRAL)
    try:
        check_sampling(defaults, vocab_size=None)
    except RequestError as error:
        raise RequestError(f"{file}: {error}") from None
    return defaults


def check_sampling(sampling: Sampling, vocab_size: int | None) -> None:
    """Raise RequestError naming the first setting that is out of its range. Open (`None`) settings pass."""

    def number(
        name: str, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, whole: bool = False
    ) -> None:
        value = getattr(sampling, name)
        if value is None:
            return
        whole_number = isinstance(value, int) and not isinstance(value, bool)
        good = whole_number or (not whole and isinstance(value, float) and math.isfinite(value))
        if not good or not (low < value if open_low else low <= value) or value > high:
            kind = "a whole number" if whole else "a number"
            least = "" if low == -math.inf else f" above {low:g}" if open_low else f", at least {low:g}"
            most = "" if high == math.inf else f" and at most {high:g}"
            raise RequestError(f"{name} must be {kind}{least}{most}, not {value!r}")

    number("temperature", 0)
    number("top_p", 0, 1, open_low=True)
    number("top_k", 0, whole=True)
    number("min_p", 0, 1)
    number("repetition_penalty", 0, open_low=True)
    number("frequency_penalty")
    number("presence_penalty")
    number("seed", whole=True)
    number("max_tokens", 0, whole=True)
    number("logprobs", 0, 100, whole=True)
    number("n", 1, whole=True)
    if isinstance(sampling.stop, str):
        raise RequestError(f"stop must be a sequence of strings, such as ({sampling.stop!r},), not one string")
    if any(not stop for stop in sampling.stop):
        raise RequestError("stop must not have an empty string: it would end every reply at once")
    for name, ids in (("stop_token_ids", sampling.stop_token_ids), ("logit_bias", sampling.logit_bias)):
        for token in ids:
            if not isinstance(token, int) or token < 0 or (vocab_size is not None and token >= vocab_size):
                raise RequestError(
                    f"{name} names token {token!r}; the model's vocabulary is 0 to {(vocab_size or 0) - 1}"
                )
    for token, bias in sampling.logit_bias.items():
        if math.isnan(bias) or bias == math.inf:
            raise RequestError(f"logit_bias of token {token} must be a finite number or -infinity, not {bias!r}")


class Sampler:
    """Draws the tokens of one reply: keeps its random numbers and what its penalties need."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], choice: int, known_tokens: int) -> None:
        """`sampling` has no open settings. Tokens from `known_tokens` on (the vocabulary's padding) are never drawn."""
        self._settings = sampling
        self._known = known_tokens
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(choice,))))
        self._counts: dict[int, int] = {}
        self._repetition = sampling.repetition_penalty or 1.0
        self._presence = sampling.presence_penalty or 0.0
        self._prompt = np.unique(np.asarray(prompt, np.int64)) if self._repetition != 1.0 else None
        bias = {token: value for token, value in sampling.logit_bias.items() if token < known_tokens}
        self._bias_ids = np.fromiter(bias.keys(), np.int64)
        self._bias = np.fromiter(bias.values(), np.float32)

    def draw(self, logits: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None) -> int:
        """The next token from one row of logits `[vocab]`; `allowed` `[known_tokens]` is a grammar's mask.

        Raises RequestError if the logits are not numbers or no token is left to draw.
        """
        settings = self._settings
        scores = self._adjusted(logits[: self._known], allowed)
        if (settings.temperature or 0.0) < _COLDEST:
            token = int(scores.argmax())
            if not scores[token] > -math.inf:  # also where it is NaN
                raise _nothing_to_draw(scores)
        else:
            ids, weights = candidates(scores, settings)
            cumulative = np.cumsum(weights)
            # One number per token, whatever the settings: replies of one seed stay comparable.
            point = self._random.random() * cumulative[-1]
            token = int(ids[min(int(np.searchsorted(cumulative, point, side="right")), len(ids) - 1)])
        self._counts[token] = self._counts.get(token, 0) + 1
        return token

    def _adjusted(self, logits: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """The row with penalties, bias and mask applied, `[known_tokens]`."""
        settings = self._settings
        scores = logits.copy()
        reply = np.fromiter(self._counts.keys(), np.int64)
        if self._prompt is not None:
            seen = np.union1d(self._prompt, reply)
            seen = seen[seen < self._known]
            penalised = scores[seen]
            scores[seen] = np.where(penalised > 0, penalised / self._repetition, penalised * self._repetition)
        if len(reply) and (settings.frequency_penalty or self._presence):
            counts = np.fromiter(self._counts.values(), np.float64)
            scores[reply] -= (settings.frequency_penalty * counts + self._presence).astype(np.float32)
        if len(self._bias_ids):
            scores[self._bias_ids] += self._bias
        if allowed is not None:
            np.copyto(scores, -math.inf, where=~allowed)
        return scores


def candidates(scores: Scores, settings: Sampling) -> tuple[Ids, Floats]:
    """Temperature, top-k, top-p and min-p: the tokens left and their weights (probabilities up to a common factor).

    `scores` is `[vocab]`; `settings` has no open fields and a temperature above 0. Top-p counts the mass of what top-k
    left, min-p compares with the likeliest token. Raises RequestError if nothing is left or scores are NaN.
    """
    assert settings.temperature and settings.top_p is not None and settings.min_p is not None
    temperature = settings.temperature
    best = scores.max()
    if not math.isfinite(best):
        raise _nothing_to_draw(scores)

    def weigh(ids: Ids) -> Floats:
        weights: Floats = np.exp((scores[ids].astype(np.float64) - best) / temperature)
        return weights

    mass = 0.0
    if settings.top_k and settings.top_k < len(scores):
        ids = largest(scores, settings.top_k)
        weights = weigh(ids)
        mass = float(weights.sum())
    else:
        # Sums over the whole vocabulary stay in the scores' own precision: float32 exponentials are ten times faster.
        everything = np.exp((scores - best) / temperature)
        if settings.top_p < 1.0:
            mass = float(everything.sum(dtype=np.float64))
            for guess in (*_NUCLEUS_GUESSES, len(scores)):
                ids = largest(scores, guess)
                weights = weigh(ids)
                if weights.sum() >= settings.top_p * mass:
                    break
        else:
            ids, weights = np.arange(len(scores)), everything.astype(np.float64)
    if settings.top_p < 1.0:
        enough = int(np.searchsorted(np.cumsum(weights), settings.top_p * mass, side="left")) + 1
        ids, weights = ids[:enough], weights[:enough]
    if settings.min_p:
        kept = weights >= settings.min_p  # the likeliest token's weight is 1
        ids, weights = ids[kept], weights[kept]
    return ids, weights


def largest(scores: Scores, k: int) -> Ids:
    """Ids of the k largest scores, largest first, lower ids first among equals. Fewer if others are -infinity."""
    # The k-th largest of the maxima of disjoint groups is at most the k-th largest score, so whatever is below it is
    # out. That leaves a few tokens to sort, for two passes over the row instead of a partition of it.
    groups = len(scores) // 64
    floor = -math.inf
    if groups > k:
        maxima = scores[: 64 * groups].reshape(64, groups).max(0)
        floor = np.partition(maxima, groups - k)[groups - k]
    ids = np.flatnonzero(scores >= floor if floor > -math.inf else scores > -math.inf)
    return ids[np.argsort(-scores[ids], kind="stable")[:k]]


def log_probabilities(
    logits: NDArray[np.float32], token: int, k: int, known_tokens: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The model's own log probability of `token`, and those of the k likeliest of the tokenizer's: float64.

    They are the log_softmax of the raw row `[vocab]`, its padding included.
    """
    row = logits.astype(np.float64)
    best = row.max()
    offset = best + math.log(np.exp(row - best).sum())
    top = largest(row[:known_tokens], k) if k else ()
    return float(row[token] - offset), tuple((int(i), float(row[i] - offset)) for i in top)


def _nothing_to_draw(scores: Scores) -> RequestError:
    if np.isnan(scores).any():
        return RequestError("the model gave logits that are not numbers (NaN): the checkpoint may be damaged")
    return RequestError("no token is left to draw: the grammar, logit_bias and the vocabulary exclude each other")
