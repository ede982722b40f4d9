"""A checkpoint folder, ready to answer: model, tokenizer, chat template, tree and a running engine, built together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ramet import models
from ramet.chat import Chat, Tokenizer
from ramet.engine.engine import Engine
from ramet.engine.sampling import checkpoint_defaults
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
