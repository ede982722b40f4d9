"""Speculative decoding that changes nothing: guesses run with the known tokens, and stay only if they are then drawn.

The guesses run on a fork. Each row of logits is drawn from in turn, by the same sampler as ever; as long as what was
drawn is what had been guessed, the next row counts. If all are, the fork becomes the branch's session; else it is
closed, and what was drawn is known but not run, as if there had been no guess. Logits have the same bits however a
session's tokens are cut into spans, so the reply is, token for token, the one without drafts, sampled or constrained.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ramet.engine.branch import Branch, Trial
from ramet.engine.schedule import until_save_in_reply
from ramet.models.base import Model

MOST_KNOWN = 3
"""A step whose guess is wrong leaves what it ran to be run again; beyond so many tokens they run without guesses."""
LEAST_LUCK, PATIENCE = 0.25, 32
"""Where a smaller share of the guesses comes true they cost more than they give; one step in so many tries again."""


def guesses(branch: Branch, most: int, context_length: int) -> int:
    """How many tokens (at most `most`) to guess behind those that the branch is to run next."""
    cursor, settings = branch.cursor, branch.job.settings
    if cursor is None or not branch.prompt_done or branch.reason is not None or branch.alone:
        return 0
    unrun = len(branch.tokens) - cursor.position
    seen = 0 if branch.before is None else len(branch.before)
    if unrun != 1 + seen or unrun > MOST_KNOWN:
        return 0
    if branch.luck < LEAST_LUCK and branch.drawn % PATIENCE:
        return 0
    room = context_length - len(branch.tokens)
    if settings.max_tokens is not None:
        room = min(room, settings.max_tokens - branch.drawn - 1)
    written = cursor.position - len(branch.job.prompt)
    return max(0, min(most, room, until_save_in_reply(written) - unrun))


def begin(branch: Branch, count: int) -> Trial:
    """Fork the branch to run its known tokens and `count` guesses, which `fill` has to make."""
    assert branch.cursor is not None
    known = branch.tokens[branch.cursor.position :]
    cursor = branch.cursor.fork()
    try:
        span = cursor.span([*known, *[0] * count], logits=count + 1)
    except BaseException:
        cursor.close()
        raise
    branch.trial = Trial(cursor, span, len(known))
    return branch.trial


def fill(model: Model, branches: Sequence[Branch]) -> None:
    """Let the model guess for all branches on trial."""
    by_count: dict[int, list[Branch]] = {}
    for branch in branches:
        assert branch.trial is not None
        by_count.setdefault(branch.trial.count, []).append(branch)
    for count, some in by_count.items():
        trials = [branch.trial for branch in some if branch.trial is not None]
        model.draft([trial.span for trial in trials], count, [branch.before for branch in some])
        for trial in trials:
            trial.cursor.read_back(trial.span)


def settle(branch: Branch, accepted: int) -> bool:
    """End the branch's trial, of whose guesses the first `accepted` were drawn; returns whether all were."""
    trial = branch.trial
    assert trial is not None and branch.cursor is not None
    branch.trial = None
    branch.luck += (accepted / trial.count - branch.luck) / 8
    if accepted == trial.count:
        branch.cursor.close()
        branch.cursor, branch.before = trial.cursor, None
        return True
    trial.cursor.close_before(branch.cursor.position)
    branch.before = _seen(trial, trial.known + accepted)
    return False


def _seen(trial: Trial, count: int) -> Tensor | None:
    """What the output layer saw at the first `count` tokens of the trial."""
    hidden = trial.span.hidden
    return None if hidden is None else hidden[:count].clone()
