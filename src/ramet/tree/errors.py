"""What can go wrong with the tree, in words for the person who uses it."""

from __future__ import annotations

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
