"""Nodes: the immutable steps of a conversation, and what matching a prompt against them says."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Bill:
    """What a node cost when it was made."""

    computed: int = 0
    """Tokens run through the model."""
    reused: int = 0
    """Tokens whose states were already there."""
    seconds: float = 0.0
    """Wall-clock time from admission to commit."""
    made: float = field(default_factory=time.time, compare=False)
    """When, in seconds of Unix time."""


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One step of a conversation: the tokens that follow its parent. Equal histories are the same node."""

    id: str
    parent: Node | None = field(repr=False)
    tokens: Tokens = field(repr=False)
    """int32, read-only; empty for the root only."""
    start: int
    """Absolute position of the first token."""
    message: dict[str, Any] | None = field(default=None, repr=False)
    """The chat message that the tokens render, where they render one."""
    bill: Bill | None = field(default=None, repr=False)
    reply: str | None = field(default=None, repr=False)
    """The text of the tokens, where a model wrote them."""

    @property
    def end(self) -> int:
        """Absolute position just past the last token."""
        return self.start + len(self.tokens)


def root_id(fingerprint: str) -> str:
    """The id of the root under a model's fingerprint."""
    return hashlib.blake2b(fingerprint.encode(), digest_size=16, person=b"ramet root").hexdigest()


def node_id(parent: str, tokens: Tokens) -> str:
    """The id of the node that adds `tokens` (int32) to the node `parent` (which carries the fingerprint)."""
    digest = hashlib.blake2b(bytes.fromhex(parent), digest_size=16, person=b"ramet node")
    digest.update(tokens.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()
