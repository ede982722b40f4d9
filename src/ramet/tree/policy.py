"""Which saved state is worth its memory: what it would cost to be without it, times how likely it is asked for."""

from __future__ import annotations

from ramet.models.states import PAGE_TOKENS, StateLayout
from ramet.tree.segment import SavedState, Segment, previous_state

SUPERSEDED = 0.01
"""How likely a session is to go back to a save point that it has already gone on from, beside its newest ones."""
PATIENCE = 2
"""The age at which a state is half as likely to be asked for, in gaps that sessions make between requests."""
PATIENCE_ON_DISK = 1000
"""The same on disk, in sessions opened: it is for those that come back after days, whatever ran meanwhile."""


def is_tip(state: SavedState, segment: Segment, *, on_disk: bool) -> bool:
    """Whether no session has saved a later state behind this one in the same tier."""
    own = [
        position for position, other in segment.states.items() if (other.on_disk if on_disk else other.data is not None)
    ]
    below = (segment.stored_states if on_disk else segment.ram_states) - len(own)
    return not below and all(position <= state.position for position in own)


def worth(state: SavedState, layout: StateLayout, clock: int, gap: float = 1.0, *, on_disk: bool = False) -> float:
    """Tokens saved by keeping the state, per byte freed without it; the smallest goes first.

    The newest save point of a path, and those that the session's latest request named as likely places to leave it,
    are wanted most; those in between, and those that the session turned out not to leave from, only for going back.
    A state where sessions part again and again (a shared system prompt) is wanted as often as they did. `gap` is how
    many sessions are usually opened between two requests of one: what is long overdue by it will hardly be asked for.
    """
    segment = state.segment
    tokens = state.position - previous_state(segment, state.position)
    tip = is_tip(state, segment, on_disk=on_disk)
    newest = state.expected_by is not None or (tip and not state.passed_over)
    wanted = (1.0 if newest else SUPERSEDED) + max(0, state.branched - 1)
    freed = layout.state_bytes
    if tip:  # the rows since the state before it have no other use
        freed += tokens // PAGE_TOKENS * layout.page_bytes
    age = (clock - state.used) / (PATIENCE_ON_DISK if on_disk else PATIENCE * max(gap, 1.0))
    return tokens * wanted / (1 + age * age) / max(freed, 1)


def worth_unplaced(tokens: int, newest: bool, layout: StateLayout) -> float:
    """What `worth` says of a state that its session has just saved, `tokens` after the one before."""
    return tokens * (1.0 if newest else SUPERSEDED) / max(layout.state_bytes, 1)
