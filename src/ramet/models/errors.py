"""What can be wrong with a model or with what it is asked to run."""

from __future__ import annotations

from ramet.errors import RametError


class CheckpointError(RametError):
    """A checkpoint is missing, damaged, not what it says, or of a kind that is not supported. Names file and tensor."""


class ContextLengthError(RametError):
    """A session would grow beyond the positions that the model was made for."""
