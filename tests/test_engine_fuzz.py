"""Random crowds of requests, cancelled and failing at random: each that ends gets the tokens it would get alone."""

import random
from functools import cache

import pytest

from tests.engine_support import Bench, request, running, text_tokens


@cache
def alone(tokens, fields):
    with running() as bench:
        return [reply.tokens for reply in bench.engine.submit(request(list(tokens), **dict(fields))).result()]


def random_request(dice):
    """Tokens, fields that decide the reply, and fields that must not matter."""
    base = text_tokens(dice.randrange(3), 1500)
    shared = dice.choice([0, 1, 64, 1000, dice.randrange(1500), dice.randrange(1500)])
    tokens = base[:shared] + [dice.randrange(3) for _ in range(dice.choice([0, 1, 5, 70]))] or [1]
    places = range(1, len(tokens) + 1)
    fields = {"n": dice.choice([1, 1, 1, 2]), "max_tokens": dice.choice([0, 1, 3, 12]), "seed": dice.randrange(4)}
    fields |= {"temperature": 1.0, "top_k": 30}
    marks = {
        "boundaries": sorted(dice.sample(places, min(len(places), dice.randrange(4)))),
        "save_at": sorted(dice.sample(places, min(len(places), dice.randrange(3)))),
    }
    return tokens, fields, marks


def crowd(bench: Bench, dice: random.Random, *, failing: bool) -> None:
    asked = []
    for _ in range(dice.choice([3, 10, 25])):
        tokens, fields, marks = random_request(dice)
        asked.append((bench.engine.submit(request(tokens, **fields, **marks)), tokens, fields))
        if dice.random() < 0.1:
            dice.choice(asked)[0].cancel()
    for handle, tokens, fields in asked:
        for reply in handle.result():
            if reply.finish.reason == "length":
                assert reply.tokens == alone(tuple(tokens), tuple(fields.items()))[reply.choice]
            else:
                assert reply.finish.reason == "cancelled" or (failing and reply.finish.reason == "error")
    assert bench.tree.stats().sessions == 0
    stats = bench.engine.stats()
    assert (stats.running, stats.waiting, stats.following) == (0, 0, 0)


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 106))])
def test_a_random_crowd(seed):
    dice = random.Random(seed)
    failing = seed % 3 == 2
    options = {"step_tokens": dice.choice([16, 100, 512]), "max_running": dice.choice([2, 5, 32])}
    with running(ram_bytes=dice.choice([1, 300_000, 2_000_000, 1 << 28]), **options) as bench:
        if failing:
            faults = random.Random(seed)

            def before(spans):
                if faults.random() < 0.03:
                    for span in spans:
                        span.state.fill_(float("nan"))
                    raise RuntimeError("a wire came loose")

            bench.model.before = before
        crowd(bench, dice, failing=failing)
