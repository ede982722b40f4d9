"""Stop strings: the same end wherever the text is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramet.engine.stop import StopStrings


def watch(stops, pieces):
    """What comes out of `pieces`: text, the stop string found, and the text that had come out before the last piece."""
    watcher = StopStrings(stops)
    out = ""
    for piece in pieces:
        delta, stop = watcher.feed(piece)
        out += delta
        if stop is not None:
            return out, stop
    return out + watcher.rest(), None


def by_hand(stops, text):
    """Character by character: the first stop string that is complete, the longest if there are several."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_any_cut_gives_the_same_end(stops, pieces):
    text = "".join(pieces)
    assert watch(stops, pieces) == by_hand(stops, text)
    assert watch(stops, [text]) == by_hand(stops, text)


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    pieces=st.lists(st.text("abc", min_size=1, max_size=4), max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_only_what_may_become_a_stop_string_is_held_back(stops, pieces):
    watcher = StopStrings(stops)
    text = out = ""
    for piece in pieces:
        text += piece
        delta, stop = watcher.feed(piece)
        out += delta
        if stop is not None:
            return
        held = text[len(out) :]
        assert text.startswith(out)
        assert held == "" or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize("stops", [(), ("<end>",)])
def test_text_without_a_stop_string_comes_out_whole(stops):
    assert watch(stops, ["a<e", "n", "x", "<en"]) == ("a<enx<en", None)
