"""Names, numbers and dates read off texts: whatever the letters, and in a time that grows with the text."""

import time
from datetime import datetime

import pytest

from ramet.memory import Memory
from ramet.memory.entities import entities
from ramet.memory.recall.question import Asked

SAID = datetime(2023, 5, 8)


@pytest.mark.parametrize(
    "text",
    ["5 auguſt 2023", "aprıl 5", "APRİL 5, 2023", "last frıday", "last ſunday", "laſt month", "fıve days ago"],
)
def test_letters_that_only_ignoring_case_makes_ascii_ones_are_none(text: str) -> None:
    assert not any(name.startswith("2023-") for name in entities(text, SAID))
    assert not Asked.read(text, ["Ann"], SAID).months
    with Memory.open(None) as memory:
        memory.remember(text, conversation="c", time=SAID)
        assert len(memory.recall(text, time=SAID)) == 1


def test_the_ends_of_the_calendar_are_dates() -> None:
    with Memory.open(None) as memory:
        for when in (datetime.min, datetime.max):
            memory.remember("the lake was painted", conversation="c", time=when)
        assert len(memory.recall("Who painted the lake on May 3?")) == 2
        assert len(memory.recall("Who painted the lake yesterday?", time=datetime.min)) == 2
    new_year = Asked.read("on January 1", [])
    assert new_year.dated(datetime.min) == new_year.dated(datetime(1, 1, 4)) == 2
    assert new_year.dated(datetime(1, 1, 5)) == 1
    assert Asked.read("on December 31", []).dated(datetime.max) == 2


@pytest.mark.parametrize(
    "text",
    ["a" * 60_000 + " #x", "a." * 30_000 + " #x", "a-" * 30_000 + "#", "0123456789" * 6_000, "_" * 60_000 + "#",
     "东" * 60_000 + "1", "May 5 " * 20_000, "yesterday " * 20_000, "5 days ago " * 20_000, ".-/" * 20_000,
     "2023-05-08 " * 20_000],
    ids=lambda text: text[:10],
)  # fmt: skip
def test_reading_takes_a_time_that_grows_with_the_text(text: str) -> None:
    """Encoded data and logs; by the square of their lengths each would take 10 s to 500 s."""
    start = time.process_time()
    entities(text, SAID)
    Asked.read(text, ["Ann"], SAID)
    assert time.process_time() - start < 5
