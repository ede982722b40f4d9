"""What generated tables are about: domains of columns with their value pools, in two sets that share no column title.

`domains.txt` lists them and explains how.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class ColumnSpec:
    title: str
    kind: str
    pool: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    adjectives: tuple[str, str] | None = None


@dataclass(frozen=True)
class Domain:
    columns: tuple[ColumnSpec, ...]


def _column(text: str) -> ColumnSpec:
    title, kind, *rest = text.split(":")
    if kind in ("n", "m"):
        span, *adjectives = rest[0].split(" ")
        low, high = (float(x) for x in span.split("~"))
        pair = tuple(adjectives[0].split(",")) if adjectives else None
        return ColumnSpec(title, kind if "." not in span else kind + ".", (), low, high, pair)  # type: ignore[arg-type]
    if kind == "cat":
        return ColumnSpec(title, kind, tuple(rest[0].split(",")) if rest else ())
    return ColumnSpec(title, kind, (rest[0],) if rest else ())


def _domains() -> dict[str, tuple[Domain, ...]]:
    """The two sets of domains, read from `domains.txt`."""
    sets: dict[str, list[list[ColumnSpec]]] = {}
    for line in files("ramet.train").joinpath("domains.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            domains = sets.setdefault(line[3:], [])
            domains.append([])
        elif line.startswith("  "):
            domains[-1].append(_column(line.strip()))
        elif not line and sets and domains[-1]:
            domains.append([])
    return {name: tuple(Domain(tuple(c)) for c in found if c) for name, found in sets.items()}


TRAIN, TEST = _domains()["train"], _domains()["test"]
