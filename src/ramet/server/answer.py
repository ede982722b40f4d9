"""What every answer says about its tokens, in Ramet's own field."""

from __future__ import annotations

from typing import Any

from ramet.engine import Usage
from ramet.server.reply import Reply


def extension(reply: Reply) -> dict[str, Any]:
    """The `ramet` field: the reply's node, what of the prompt was computed and reused, and why no more was reused."""
    usage = reply.done.usage
    return {
        "node": reply.done.node,
        "computed": usage.computed,
        "reused": usage.reused,
        "divergence": _divergence(usage),
        "notes": reply.notes,
        "seconds": {
            "queue": round(usage.queue_seconds, 6),
            "prompt": round(usage.prompt_seconds, 6),
            "reply": round(usage.reply_seconds, 6),
        },
    }


def _divergence(usage: Usage) -> dict[str, Any] | None:
    """Where the request left the tree: what was there, what came, the cause, and the tokens lost to eviction."""
    left = usage.divergence
    if left is None:
        return None
    return {
        "position": left.position,
        "there": left.there_text,
        "came": left.came_text,
        "cause": left.cause,
        "lost": left.lost,
    }
