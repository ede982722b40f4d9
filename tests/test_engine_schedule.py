"""Where states are saved, and who gets how much of a step."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ramet.engine.schedule import NEAR, SPACING, Pace, save_points, saves_in_reply, share_prefill


@st.composite
def prompts(draw):
    length = draw(st.integers(1, 20_000))
    positions = st.lists(st.integers(1, length), max_size=12, unique=True).map(sorted)
    return length, draw(st.integers(0, length)), draw(positions), draw(positions)


@given(prompts())
@settings(max_examples=200, deadline=None)
def test_save_points(prompt):
    length, start, boundaries, save_at = prompt
    points = save_points(length, start, boundaries, save_at)
    assert points == sorted(set(points))
    assert all(start < point < length for point in points)
    for point in save_at:
        assert min(point, length - 1) in points or min(point, length - 1) < start + NEAR
    # No stretch between two places to resume from is long, however long the message that it is in.
    longest = max((b - a for a, b in zip([start, *points], [*points, length], strict=True)), default=0)
    assert longest <= 2 * SPACING


def test_what_is_worth_saving():
    # The system prompt's end, where the caller expects departures, and nothing else in a short prompt.
    assert save_points(400, 0, [200, 300, 390], [390, 400]) == [200, 390, 399]
    # Nothing expected: the last message's end and the prompt's.
    assert save_points(400, 0, [30, 300, 390], []) == [390, 399]
    # A prompt without messages: asked again, it runs one token.
    assert save_points(400, 0, [400], []) == [399]
    # What is reused already is not saved again.
    assert save_points(400, 300, [200, 300, 390], [390]) == [390]
    # Long stretches of short messages: at messages' ends.
    assert save_points(2000, 0, list(range(100, 2000, 100)), [1950]) == [100, 600, 1100, 1600, 1950]
    # Inside one long message: every 512 tokens, however long it is.
    assert save_points(3000, 0, [2990], [2990]) == [512, 1024, 1536, 2048, 2560, 2990]
    assert len(save_points(100_000, 0, [99_990], [99_990])) == 99_990 // SPACING + 1


def test_states_inside_a_reply():
    assert [n for n in range(5000) if saves_in_reply(n)] == [512, 1024, 2048, 4096]


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 600)), max_size=8), st.integers(1, 1000))
@settings(max_examples=200, deadline=None)
def test_shares_of_a_step(prompts, budget):
    remaining = [max(left, most) for left, most in prompts]
    most = [most for _, most in prompts]
    given = share_prefill(remaining, most, budget)
    assert all(0 <= got <= limit for got, limit in zip(given, most, strict=True))
    assert sum(given) == min(budget, sum(most))  # nothing is left over while someone could use it
    if most:
        assert given[0] >= min(most[0], budget // 2)  # the oldest moves, however many short ones come
        short = min(range(len(most)), key=lambda i: remaining[i])
        if short:
            assert given[short] >= min(most[short], budget // 2)  # a short one does not wait for a long one


def test_prompts_slow_down_while_replies_are_written():
    pace = Pace(512, 0.25)
    assert pace.budget(replying=False) == 512
    assert pace.budget(replying=True) == 64
    pace.observe(512, 0.512)  # a millisecond a token
    assert pace.budget(replying=True) == 250
    pace.observe(1, 5.0)  # a lone token says nothing about prompts
    assert pace.budget(replying=True) == 250
    for _ in range(20):
        pace.observe(512, 51.2)
    assert pace.budget(replying=True) == 64
    assert pace.budget(replying=False) == 512
    assert Pace(16, 0.25).budget(replying=True) == 16
