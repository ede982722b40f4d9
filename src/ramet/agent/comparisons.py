"""What a question says of a number: `at least 3`, `3 or more`, `under 3`. Words that leave one reading settle it."""

from __future__ import annotations

import re

_BEFORE = (
    (">=", "at least|no (?:less|fewer|lower) than|not (?:less|fewer|lower) than|not (?:below|under)|"
           "a minimum of|minimum of|starting at|from at least"),
    ("<=", "at most|no (?:more|greater|higher|larger) than|not (?:more|greater|higher|larger) than|"
           "not (?:above|over|exceeding)|a maximum of|maximum of|up to|not exceed|does not exceed|do not exceed"),
    (">", "(?:more|greater|higher|larger|bigger|longer|taller|heavier) than|above|over|exceed|exceeds|exceeded|"
          "exceeding|surpassing|surpasses|beyond"),
    ("<", "(?:less|fewer|lower|smaller|shorter|lighter) than|below|under|beneath"),
    ("=", "exactly|equal to|equals|equalling|precisely"),
)  # fmt: skip
_AFTER = (
    (
        ">=",
        "or (?:more|higher|above|greater|over|larger|longer)|and (?:more|above|up|over)|at (?:least|minimum)",
    ),
    ("<=", "or (?:less|fewer|lower|below|smaller|under|shorter)|and (?:less|below|under)|at (?:most|maximum)"),
)
_RANGE = re.compile(r"\b(?:between|from|range|ranging|within|anywhere|through|to)\b")
_TURNED = re.compile(r"\b(?:not|t|cannot|without|never|no|nor|or|neither|fail|fails|failed)\b")
"""Words that may turn `over 3` into its opposite, or widen it; `didn't` is read as `didn t`."""
_LINK = r"(?: c\d+ \w+)*"
"""What the linker writes behind a value: the columns that have it, each with its kind."""


def said_of(text: str, handle: int) -> str | None:
    """The operator that a linked question puts before the number `v{handle}`; None if it leaves that open.

    None as well for numbers in a range, and for one that the question uses more than once.
    """
    places = list(re.finditer(rf"\bv{handle} num{_LINK}(?= |$)", text))
    if len(places) != 1:
        return None
    before, after = text[: places[0].start()].rstrip(), text[places[0].end() :].lstrip()
    if _RANGE.search(" ".join(before.split()[-4:])) or re.match(r"(?:to|through|and) v\d", after):
        return "<=" if before.endswith("up to") else None
    # The column may stand between the number and what follows it: `3 c4 int goals or more`.
    after = re.sub(r"^(?:c\d+ \w+ )?(?:\w+ ){1,3}?(?=or )", "", after)
    for operator, words in _BEFORE:
        if found := re.search(rf"\b(?:{words})$", before):
            return None if _TURNED.search(_last(before[: found.start()])) else operator
    for operator, words in _AFTER:
        if re.match(rf"(?:{words})\b(?! than| v\d)", after):
            return None if _TURNED.search(_last(before)) else operator
    return None


def _last(text: str) -> str:
    """The last words of a text, where a word that turns what follows would stand."""
    return " ".join(text.split()[-4:])
