"""Going on from a node: its own tokens stay as they are, and only what is new is rendered."""

from __future__ import annotations

from dataclasses import replace

from ramet.chat import Prompt
from ramet.chat.messages import MessageError
from ramet.engine.runtime import Runtime
from ramet.models.pictures import Placed, vocabulary_tokens
from ramet.server.ask import Ask


def continue_node(runtime: Runtime, ask: Ask) -> Prompt:
    """The prompt of `ask`, whose first `new_from` messages are the path to the node `ask.after`.

    The whole conversation is rendered to find what the template makes of the new messages; the tokens before them are
    the node's own, so nothing that the model has seen or written changes, whatever the template would rewrite.
    Raises UnknownNode if the node is gone, MessageError if its pictures are.
    """
    node = runtime.tree.node(ask.after or "")
    rendered = runtime.chat.render(ask.messages, ask.tools, **ask.template_variables)
    first = _segments_before(rendered, sum(m["role"] == "assistant" for m in ask.messages[: ask.new_from]))
    cut = rendered.boundaries[first - 1]
    path = runtime.tree.path(node)
    before = vocabulary_tokens(runtime.tree.path_tokens(node), rendered.tokens, rendered.pictures)
    if before is None:
        raise MessageError("a picture that the session before was shown is not among its messages")
    tokens, pictures = before
    ends, closing = runtime.tokenizer.eos_ids, rendered.tokens[cut - 1]
    # A reply that was cut off by its length has its turn closed for it; so has any in a format where turns have no end
    # of their own, which the next turn's beginning closes.
    if tokens[-1] not in ends or (tokens[-1] != closing and closing != ends[0]):
        tokens.append(closing)
    shift = len(tokens) - cut
    return replace(
        rendered,
        tokens=tokens + rendered.tokens[cut:],
        boundaries=[*(step.end for step in path), *(at + shift for at in rendered.boundaries[first:])],
        messages=[*(step.message for step in path), *rendered.messages[first:]],
        save_at=[at + shift for at in rendered.save_at if at > cut],
        pictures=(
            *pictures,
            *(Placed(each.position + shift, each.picture) for each in rendered.pictures if each.position > cut),
        ),
        continued=node.end,
    )


def _segments_before(rendered: Prompt, replies: int) -> int:
    """How many segments the rendering has up to the end of its `replies`-th assistant message."""
    for index, message in enumerate(rendered.messages):
        replies -= message is not None and message.get("role") == "assistant"
        if replies == 0:
            return index + 1
    return len(rendered.messages)  # the template shows fewer replies than there were: all of them lie before
