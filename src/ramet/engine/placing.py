"""Where a request begins: at the last saved state that the tree has of its prompt, or where another request stands."""

from __future__ import annotations

from ramet.chat import Tokenizer
from ramet.engine.branch import Branch
from ramet.engine.divergence import Departure, explain
from ramet.engine.sharing import common
from ramet.models.states import PAGE_TOKENS, StateLayout
from ramet.tree import Cursor, Match, Tree


def needs(branch: Branch, layout: StateLayout) -> int:
    """Bytes of the states and rows that are the branch's own, once its prompt is through."""
    tokens = len(branch.tokens) - (branch.job.start if branch.cursor is not None else branch.position)
    return len(branch.choices) * layout.state_bytes + tokens * layout.page_bytes // PAGE_TOKENS


def from_tree(branch: Branch, tree: Tree, match: Match, tokenizer: Tokenizer) -> None:
    """Begin where the tree's saved states allow; `match` is what the tree knows of the prompt now."""
    job = branch.job
    cursor = tree.open(job.prompt, match=match, limit=job.limit, boundaries=job.boundaries)
    cursor.expect(job.expected)
    branch.begin(cursor)
    lost = min(match.position, job.limit) - cursor.position
    job.divergence = explain(job.request, _departure(tree, match), lost, cursor.position, tokenizer)


def from_leader(branch: Branch, leader: Branch, place: Cursor, tokenizer: Tokenizer) -> None:
    """Begin with a fork of a cursor of the leader's, which stands at or before the place where both prompts part."""
    job, other = branch.job, leader.job
    cursor = place.fork()
    cursor.expect(job.expected)
    branch.begin(cursor)
    branch.saved = [position for position in leader.saved if position <= cursor.position]
    parting = common(job.prompt, other.prompt)
    there = int(other.prompt[parting]) if parting < len(other.prompt) else None
    end = next((i for i, end in enumerate(other.boundaries) if end > parting), None)
    message = other.request.messages[end] if end is not None and other.request.messages else None
    lost = min(parting, job.limit) - cursor.position
    job.divergence = explain(job.request, Departure(parting, there, message), lost, cursor.position, tokenizer)


def _departure(tree: Tree, match: Match) -> Departure:
    message = None if match.next is None else match.next.message
    following = [child.message for child in tree.children(match.next) if child.message] if match.next else []
    generated = match.next is not None and match.next.reply is not None
    return Departure(match.position, match.there, message, following, generated)
