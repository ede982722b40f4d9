"""What can go wrong with the tree, in words for the person who uses it."""

from __future__ import annotations

import sqlite3

from ramet.errors import RametError


class UnknownNode(RametError):
    """No node has this id."""

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no session node {id!r}: it was pruned, or it belongs to another model")
        self.id = id


class NodeInUse(RametError):
    """The node cannot be pruned while a running session is on it."""


class DiskError(RametError):
    """The sessions' database could not be opened, read or written."""


class DamagedPart(Exception):
    """A stored page or state is not what was written. Never shown: it is dropped and computed again."""


def explained(error: sqlite3.Error) -> str:
    """What SQLite says of a file, and what its owner can do about it."""
    text = str(error)
    if "full" in text:
        advice = "free some space, or give --disk less; what was stored before is intact"
    elif "malformed" in text or "not a database" in text:
        advice = "the file is damaged: move it away to start anew; nothing in it was changed"
    elif "readonly" in text or "unable to open" in text:
        advice = "make the directory writable, or choose another"
    elif "locked" in text:
        advice = "another program has it open: close that"
    else:
        advice = "check the disk; what was stored before is intact"
    return f"{text}; {advice}"
