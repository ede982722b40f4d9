"""Which answer wins: branches whose answers mean the same are one candidate; the one with the most branches wins."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ramet.agent.cells import Cell, plain

T = TypeVar("T")


@dataclass(frozen=True)
class Ballot(Generic[T]):
    """One branch's vote. `key` is None where the branch found no answer: it counts, but for nobody."""

    branch: T
    key: Hashable | None
    logprob: float
    """Of everything that the branch wrote; the likelier branch speaks for its candidate, and breaks ties."""
    telling: bool = True
    """Whether the answer rests on something that was found. One that does comes before any that does not."""
    doubts: int = 0
    """How many things speak against the query itself. Fewer come before more, whatever the number of branches."""


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """Branches that agree, the likeliest first."""

    branches: tuple[T, ...]
    share: float
    """Of all ballots, 0 to 1."""


def count(ballots: Sequence[Ballot[T]]) -> list[Candidate[T]]:
    """The candidates, the winner first: telling ones, then by doubts, number of branches, and the likeliest branch."""
    groups: dict[Hashable, list[Ballot[T]]] = {}
    for ballot in ballots:
        if ballot.key is not None:
            groups.setdefault(ballot.key, []).append(ballot)
    for group in groups.values():
        group.sort(key=lambda ballot: (ballot.doubts, -ballot.logprob))

    def rank(group: list[Ballot[T]]) -> tuple[bool, int, int, float]:
        return not group[0].telling, group[0].doubts, -len(group), -group[0].logprob

    ranked = sorted(groups.values(), key=rank)
    return [Candidate(tuple(b.branch for b in group), len(group) / len(ballots)) for group in ranked]


def rows_key(rows: Sequence[Sequence[Cell]]) -> Hashable:
    """What two results must share to count as the same answer.

    Numbers are compared to 9 significant digits, text without case, accents and punctuation, and rows in any order.
    The names of the columns do not matter.
    """
    return tuple(sorted(tuple(_cell_key(cell) for cell in row) for row in rows))


def _cell_key(cell: Cell) -> tuple[int, str]:
    if cell is None:
        return 0, ""
    if isinstance(cell, int | float):
        return 1, f"{float(cell):.9g}"
    return 2, plain(cell) or cell
