"""The engine: one step at a time, admit, batch, run, sample, append."""

from ramet.engine.engine import Engine
from ramet.engine.grammar import Grammar
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
from ramet.engine.stats import EngineStats, Histogram

__all__ = [
    "Completion",
    "Divergence",
    "Engine",
    "EngineStats",
    "Event",
    "FinishEvent",
    "Grammar",
    "Handle",
    "Histogram",
    "Request",
    "RequestError",
    "Sampling",
    "TokenEvent",
    "Usage",
]
