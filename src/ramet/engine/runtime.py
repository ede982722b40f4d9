"""A checkpoint folder, ready to answer: model, tokenizer, chat template, tree and a running engine, built together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ramet import models
from ramet.chat import Chat, Prompt, Tokenizer
from ramet.engine.engine import Engine
from ramet.engine.grammar import Grammar
from ramet.engine.request import Request, Sampling
from ramet.engine.sampling import checkpoint_defaults
from ramet.engine.tool_grammar import without_calls
from ramet.models.base import Model
from ramet.tree import Tree


@dataclass(frozen=True)
class Runtime:
    """Everything one loaded checkpoint needs to serve sessions. A context manager: leaving it closes the tree."""

    path: Path
    model: Model
    tokenizer: Tokenizer
    chat: Chat
    tree: Tree
    engine: Engine

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        tree_dir: Path | None = None,
        ram_bytes: int = 4 << 30,
        disk_bytes: int | None = None,
        drafts: int = 1,
    ) -> Runtime:
        """Load the checkpoint folder `path` and start its engine.

        `tree_dir` is where sessions survive a restart (None: they live in memory only); `ram_bytes` and `disk_bytes`
        are the tree's budgets; `drafts` tokens are guessed in a step, if the checkpoint has what guesses them (MTP).
        Raises RametError if the checkpoint or the tree's directory is not usable.
        """
        path = Path(path)
        model = models.load(path, ahead=drafts > 0)
        tokenizer = Tokenizer.load(path)
        chat = Chat.load(path, tokenizer, None if model.visual is None else model.visual.images(path))
        defaults = checkpoint_defaults(path)  # before the tree: an error from here on would leave its directory locked
        tree = Tree(model.layout, model.fingerprint, ram_bytes=ram_bytes, directory=tree_dir, disk_bytes=disk_bytes)
        engine = Engine(model, tree, tokenizer, defaults=defaults, drafts=drafts)
        engine.start()
        return cls(path, model, tokenizer, chat, tree, engine)

    def request(
        self,
        prompt: Prompt,
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        sampling: Sampling,
        grammar: Grammar | None = None,
        may_call: bool = True,
    ) -> Request:
        """The request that continues a rendered prompt; calls of `tools` are read out of its replies.

        `may_call` False: no call can begin in them, whatever tools the prompt shows.
        """
        if not may_call:
            sampling = without_calls(sampling, self.tokenizer.token_id(self.chat.format.call_token))
        return Request(
            tokens=prompt.tokens,
            boundaries=prompt.boundaries,
            messages=prompt.messages,
            save_at=prompt.save_at,
            pictures=prompt.pictures,
            continued=prompt.continued,
            sampling=sampling,
            grammar=grammar,
            parse_reply=lambda text: self.chat.parse(text, tools, prompt),
        )

    def close(self) -> None:
        """Stop the engine, then bring the tree to disk."""
        self.engine.stop()
        self.tree.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
