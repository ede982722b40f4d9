"""What outlives a session: turns of conversations, kept in a store and recalled by what they say.

with Memory.open("memory.db") as memory:
    memory.remember("I moved to Oslo in May", conversation="ann", speaker="Ann", time=datetime(2023, 5, 8))
    memory.recall("Where does Ann live?")
"""

from ramet.memory.base import Hit, Index, Kind, MemoryStoreError, Question, Store, Turn, Vector
from ramet.memory.derive import Derived, ModelError
from ramet.memory.memory import Memory, Recalled, Stats, default_embedder

__all__ = [
    "Derived",
    "Hit",
    "Index",
    "Kind",
    "Memory",
    "MemoryStoreError",
    "ModelError",
    "Question",
    "Recalled",
    "Stats",
    "Store",
    "Turn",
    "Vector",
    "default_embedder",
]
