"""Requests in flight that begin alike: one computes the common beginning, the others wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ramet.engine.branch import Branch, Following
from ramet.engine.schedule import SMALLEST_PREFIX


def find_leader(branch: Branch, branches: Sequence[Branch], resume: int) -> Following | None:
    """The earlier branch from whose work `branch`, which could itself resume at `resume`, gains the most, if any."""
    best: Following | None = None
    gain = 0
    for other in branches:
        if other.serial >= branch.serial:
            continue
        shared = min(common(branch.job.prompt, other.job.prompt), branch.job.limit)
        if other.mark is not None and other.mark.position <= shared and other.mark.position - resume > gain:
            best, gain = Following(other, other.mark.position), other.mark.position - resume
        if other.prompt_done or (other.following and other.following.in_tree):
            continue
        if resume <= other.position <= shared:
            if shared - resume > max(gain, SMALLEST_PREFIX - 1):
                best, gain = Following(other, shared), shared - resume
        elif other.position > shared:
            # It is past the place where both part. The states that it saved before are in the tree with its next node.
            known = other.cursor.node.end if other.cursor is not None else 0
            saved = max((position for position in other.saved if known < position <= shared), default=0)
            ahead = next((end for end in other.job.boundaries if end >= other.position), None)
            # Worth waiting only where running the same tokens anew would take longer.
            if ahead is not None and saved - resume > max(gain, ahead - other.position, SMALLEST_PREFIX - 1):
                best, gain = Following(other, ahead, in_tree=True), saved - resume
    return best


def common(ours: NDArray[np.int32], theirs: NDArray[np.int32]) -> int:
    """How many leading tokens two prompts share."""
    length = min(len(ours), len(theirs))
    different = np.flatnonzero(ours[:length] != theirs[:length])
    return int(different[0]) if len(different) else length
