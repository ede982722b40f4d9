"""Which answers count as the same, and which one wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ramet.agent.vote import Ballot, count, rows_key

cells = st.none() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.text(max_size=8)


def test_the_same_answer_in_other_clothes_is_the_same() -> None:
    assert rows_key([("Café Münster", 2)]) == rows_key([("cafe munster", 2.0)])
    assert rows_key([(0.1 + 0.2,)]) == rows_key([(0.3,)])
    assert rows_key([("a",), ("b",)]) == rows_key([("b",), ("a",)])


def test_different_answers_stay_apart() -> None:
    keys = [
        rows_key(rows) for rows in ([], [(None,)], [(0,)], [("0",)], [("a", "b")], [("a",), ("b",)], [("+",)], [("-",)])
    ]
    assert len(set(keys)) == len(keys)


def test_most_branches_win_and_those_without_an_answer_count_for_nobody() -> None:
    ballots = [Ballot(0, "x", -1.0), Ballot(1, "y", -9.0), Ballot(2, "y", -2.0), Ballot(3, None, -0.1)]
    first, second = count(ballots)
    assert (first.branches, first.share) == ((2, 1), 0.5)
    assert (second.branches, second.share) == ((0,), 0.25)


def test_an_answer_that_found_something_comes_before_those_that_did_not() -> None:
    ballots = [Ballot(0, "none", -0.1, telling=False), Ballot(1, "none", -0.1, telling=False), Ballot(2, "x", -5.0)]
    first, second = count(ballots)
    assert (first.branches, first.share) == ((2,), 1 / 3)
    assert second.branches == (0, 1)


def test_a_tie_goes_to_the_likeliest_branch() -> None:
    assert [c.branches for c in count([Ballot("a", 1, -3.0), Ballot("b", 2, -2.0)])] == [("b",), ("a",)]


@given(st.lists(st.tuples(st.none() | st.integers(0, 3), st.floats(-9, 0)), min_size=1, max_size=9))
def test_shares_are_of_all_ballots_and_ranked(votes: list[tuple[int | None, float]]) -> None:
    candidates = count([Ballot(index, key, logprob) for index, (key, logprob) in enumerate(votes)])
    shares = [candidate.share for candidate in candidates]
    assert shares == sorted(shares, reverse=True)
    assert sum(len(candidate.branches) for candidate in candidates) == sum(key is not None for key, _ in votes)
    assert all(len({votes[b][0] for b in candidate.branches}) == 1 for candidate in candidates)


@given(st.lists(st.tuples(cells, cells), max_size=6), st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[object, object]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rows_key(rows) == rows_key(shuffled)  # type: ignore[arg-type]
