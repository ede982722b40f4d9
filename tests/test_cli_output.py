"""Sizes, counts and one-line texts as the commands read and write them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramet.cli.output import format_size, parse_size, plural, printable, shorten


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 << 30),
        ("4g", 4 << 30),
        ("4 GB", 4 * 10**9),
        ("1.5KiB", 1536),
        ("500MB", 500 * 10**6),
        ("2TiB", 2 << 40),
        ("77", 77),
        ("77b", 77),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "4 XB", "-1", "4,5GiB", "0", "0.1", "1e9", "4GiBs"])
def test_what_is_not_a_size_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|byte"):
        parse_size(text)


@given(st.integers(1, 1 << 50))
def test_written_sizes_read_back_to_about_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06)


@given(st.text(max_size=80), st.integers(2, 40))
def test_shortened_text_is_one_line_of_the_width(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) <= width
    assert len(short.splitlines()) <= 1
    assert short.rstrip("…") in printable(" ".join(text.split()))


def test_counts_agree_with_their_noun() -> None:
    assert [plural(n, "row") for n in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]


@given(st.text(max_size=80))
def test_nothing_that_is_shown_can_command_the_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert [c for c in shown if c.isalnum()] == [c for c in text if c.isalnum()]


def test_an_escape_sequence_is_made_visible() -> None:
    assert printable("\x1b[2Jgone\x9b\r\n") == "␛[2Jgone\ufffd␍\n"
