"""The engine: one step at a time, admit, batch, run, sample, append."""

from ramet.engine.engine import Engine
from ramet.engine.grammar import Grammar, GrammarError
from ramet.engine.handle import Handle
from ramet.engine.request import (
    Completion,
    Divergence,
    Event,
    FinishEvent,
    Request,
    RequestError,
    Sampling,
    TokenEvent,
    Usage,
)
from ramet.engine.sampling import checkpoint_defaults
from ramet.engine.stats import EngineStats, Histogram
from ramet.engine.tool_grammar import tool_calls

__all__ = [
    "Completion",
    "Divergence",
    "Engine",
    "EngineStats",
    "Event",
    "FinishEvent",
    "Grammar",
    "GrammarError",
    "Handle",
    "Histogram",
    "Request",
    "RequestError",
    "Sampling",
    "TokenEvent",
    "Usage",
    "checkpoint_defaults",
    "tool_calls",
]
