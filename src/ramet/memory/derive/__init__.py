"""Summaries and facts that a language model writes, each from turns that it names."""

from ramet.memory.derive.notes import Model, ModelError, ReplyError, TooLongError
from ramet.memory.derive.run import Derived, Progress, derive

__all__ = ["Derived", "Model", "ModelError", "Progress", "ReplyError", "TooLongError", "derive"]
