"""Who runs how many tokens in a step, and at which positions states are saved: plain arithmetic, no engine in it."""

from __future__ import annotations

from collections.abc import Sequence

SPACING = 512
"""A rewind into the middle of a long message runs at most about this many tokens again."""

NEAR = 8
"""So close behind a saved state another one is not worth the step that would end there."""

SMALLEST_PREFIX = 64
"""A shared beginning shorter than this is quicker to run again than worth a saved state."""


def save_points(length: int, start: int, boundaries: Sequence[int], save_at: Sequence[int]) -> list[int]:
    """Where a prompt of `length` tokens, of which the first `start` are reused, has its states saved; ascending.

    Where the caller expects later requests to leave (`save_at`; if it expects nothing, at the last message's end); the
    end of the first message, on which all sessions of an agent stand, unless it is just before such a place; and
    between those every `SPACING` tokens, at a message's end where there is one in reach. The last token is left out:
    whoever asks for the same prompt again has to run it, to draw from its logits.
    """
    inside = [boundary for boundary in boundaries if start < boundary < length]
    points = {min(point, length - 1) for point in save_at or [*boundaries[-1:], length]}
    if boundaries and boundaries[0] >= SMALLEST_PREFIX and not any(0 <= p - boundaries[0] <= NEAR for p in points):
        points.add(min(boundaries[0], length - 1))
    points = {point for point in points if point - start >= NEAR}
    result: list[int] = []
    last = start
    for point in sorted({*points, *inside, length - 1}):
        while point - last > SPACING + SPACING // 4:
            last += SPACING
            result.append(last)
        ahead = next((end for end in inside if end > point), length)
        near = any(point < other <= point + SMALLEST_PREFIX for other in points)
        if point in points or (point in inside and ahead - last > SPACING and not near):
            result.append(point)
            last = point
    return result


def saves_in_reply(written: int) -> bool:
    """Whether to save the state after so many tokens of a reply: at 512, 1024, 2048, ..., since its length is open."""
    return written >= SPACING and written & (written - 1) == 0


def until_save_in_reply(written: int) -> int:
    """How many tokens further the next state of a reply is saved."""
    return max(SPACING, 1 << written.bit_length()) - written


def share_prefill(remaining: Sequence[int], most: Sequence[int], budget: int) -> list[int]:
    """Tokens of the step's prefill `budget` for each prompt, in order of admission.

    `remaining[i]` is how far prompt i is from its end, `most[i]` how many tokens it can take now (up to its next save
    point). The oldest may take half, so that a long prompt always moves; then those that are nearest to their end take
    what they can, so that a short one does not wait for a long one; then what is left goes to the oldest again.
    """
    given = [0] * len(remaining)
    nearest = sorted(range(len(remaining)), key=lambda i: (remaining[i], i))
    turns = [(0, -(-budget // 2))] if remaining else []
    turns += [(i, budget) for i in nearest]
    for i, limit in turns:
        take = min(most[i] - given[i], limit, budget)
        given[i] += take
        budget -= take
    return given


class Pace:
    """Keeps tokens flowing beside long prompts: how much prefill fits into a step while replies are being written."""

    def __init__(self, step_tokens: int, step_seconds: float) -> None:
        self._most = step_tokens
        self._target = step_seconds
        self._per_token: float | None = None

    def budget(self, replying: bool) -> int:
        """Prompt tokens for the next step; all of `step_tokens` when nobody waits for the next word."""
        if not replying:
            return self._most
        if self._per_token is None:
            return min(64, self._most)
        return max(min(64, self._most), min(self._most, int(self._target / self._per_token)))

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a step that ran `tokens` tokens. Steps of single tokens say nothing about prompts."""
        if tokens >= 48:
            rate = seconds / tokens
            self._per_token = rate if self._per_token is None else 0.7 * self._per_token + 0.3 * rate
