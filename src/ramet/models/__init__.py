"""What a checkpoint computes: one file per family, from shared layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ramet.models.errors import CheckpointError, ContextLengthError

if TYPE_CHECKING:
    from ramet.models.base import Model

__all__ = ["CheckpointError", "ContextLengthError", "check", "load"]


def load(path: str | Path, *, ahead: bool = False, mapped: bool | None = None) -> Model:
    """Load the checkpoint in a folder, ready to run; `config.json` says of which family it is.

    With `ahead`, the part that guesses one token further (MTP) is loaded too, if the files have one. With `mapped`
    weights are not copied into memory but read from the files as they are used, slower and with the same bits; None
    decides by the memory that is free.

    Raises CheckpointError, naming file, tensor and expectation, if it is damaged, contradicts itself or is of a kind
    that is not supported.
    """
    from ramet.models import loading

    return loading.load(Path(path), ahead=ahead, mapped=mapped)


def check(path: str | Path) -> None:
    """Check that a folder holds a whole checkpoint that `load` would take, by its config and headers alone."""
    from ramet.models import loading

    loading.check(Path(path))
