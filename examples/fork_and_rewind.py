"""Sessions as a tree, from Python: fork a conversation three ways, go back, and see what was not computed again.

    python examples/fork_and_rewind.py CHECKPOINT

CHECKPOINT is the folder of any Qwen3.5 checkpoint (`ramet pull` prints where it puts one).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ramet.engine import Completion, Request, Sampling
from ramet.engine.runtime import Runtime


def reply(runtime: Runtime, messages: Sequence[Mapping[str, Any]], n: int = 1) -> list[Completion]:
    """`n` replies to a conversation: its prompt runs once and is forked."""
    prompt = runtime.chat.render(messages, enable_thinking=False, reply_tokens=runtime.tree.reply_tokens)
    request = Request(
        tokens=prompt.tokens,
        boundaries=prompt.boundaries,
        messages=prompt.messages,
        save_at=prompt.save_at,
        sampling=Sampling(n=n, max_tokens=60, seed=1),
        parse_reply=lambda text: runtime.chat.parse(text, None, prompt),
    )
    completions = runtime.engine.submit(request).result()
    finish = completions[0].finish
    assert finish is not None
    print(f"\nprompt: {finish.usage.computed} tokens computed, {finish.usage.reused} reused")
    for completion in completions:
        print(f"  {completion.choice}: {completion.text[:100]!r}")
    return completions


def main(checkpoint: str) -> None:
    with Runtime.load(checkpoint) as runtime:
        start = [
            {"role": "system", "content": "You plan short trips by train. " * 40},
            {"role": "user", "content": "Two days from Vienna, with one lake."},
        ]
        first, *_ = reply(runtime, start, n=3)  # a fork: one prompt, three replies
        answered = [*start, {"role": "assistant", "content": first.text}]
        reply(runtime, [*answered, {"role": "user", "content": "And with a bicycle?"}])  # the session goes on
        reply(
            runtime, [*start[:1], {"role": "user", "content": "One day from Prague."}]
        )  # a rewind to the system message
        for node in runtime.tree.nodes():
            role = node.message["role"] if node.message else "tokens"
            print(f"{'  ' * len(runtime.tree.path(node))}{node.id[:8]} {role} {len(node.tokens)} tokens")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
