"""What the commands print with: one console for results, one for messages, and the words for sizes and errors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

import typer
from rich.console import Console
from rich.text import Text

_PIPE_WIDTH = 160

console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH)
"""Results: what a user may pipe into something else."""

messages = Console(stderr=True, highlight=False)
"""Everything else: progress, hints, errors."""

Number = TypeVar("Number", int, float)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}


def as_option(parse: Callable[[str], Number]) -> Callable[[str], Number]:
    """`parse` as typer wants it, which words a ValueError in its own way."""

    def parsed(text: str) -> Number:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parsed


def parse_size(text: str) -> int:
    """Bytes of a size as people write it: `4GiB`, `500 MB`, `1.5g`, `4096`.

    `k`, `m`, `g`, `t` alone and with `iB` are powers of 1024, with `B` powers of 1000. Raises ValueError for anything
    else and for sizes of less than a byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write for example 4GiB, 500MB or 1.5g")
    size = int(float(match[1]) * _UNITS[match[2]])
    if size < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return size


def format_size(size: int) -> str:
    """A number of bytes for people, in powers of 1024: `19.0 MiB`."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def printable(text: str) -> str:
    """The text with control characters made visible: cells and replies may hold escape sequences of terminals."""
    return _CONTROL.sub(lambda match: chr(0x2400 + ord(match[0])) if match[0] < " " else "\ufffd", text)


def plural(count: int, noun: str) -> str:
    """`1 row`, `2 rows`, `1,234 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shorten(text: str, width: int) -> str:
    """The text on one line, cut to `width` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def show_error(message: str) -> None:
    """One red paragraph on stderr."""
    messages.print(Text.assemble(("Error: ", "bold red"), (message, "red")))


@contextmanager
def written(file: Path) -> Iterator[TextIO]:
    """A file to write what was said into, for its owner alone: whole in the end, or as it was before."""
    if file.exists() and not file.is_file():  # a pipe, or /dev/stdout
        with file.open("w", encoding="utf-8") as out:
            yield out
        return
    part = file.with_name(f"{file.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            yield out
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
