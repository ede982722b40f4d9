"""What `ramet serve` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ramet.errors import RametError

GIB = 1 << 30


class ServeError(RametError):
    """The server could not start."""


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may ask for."""

    body_bytes: int = 32 << 20
    """A larger request body is answered with 413."""
    prompt_tokens: int | None = None
    """Longest prompt; None: the model's context length."""
    output_tokens: int = 32_768
    """Most tokens a reply may have; a request for more is answered with 400."""
    default_output_tokens: int = 4096
    """Reply length where the request names none (chat and responses; messages must name one)."""
    choices: int = 16
    """Largest `n` of a chat completion."""
    concurrent: int = 64
    """Requests generating or waiting at once; one more is answered with 429."""
    retry_after_s: int = 1
    """What the 429's `retry-after` header says, in seconds."""


@dataclass(frozen=True)
class Settings:
    """One server: what it serves, where, to whom, and within which limits."""

    model: Path
    """Folder of the checkpoint."""
    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str | None = None
    """Name clients ask for; None: the folder's name."""
    tree_dir: Path | None = None
    """Where sessions survive a restart; None: they live in memory only."""
    ram_bytes: int = 4 * GIB
    """Budget for all saved states and rows."""
    disk_bytes: int | None = None
    """Budget of the folder, responses included; None: no limit."""
    drafts: int = 1
    """Tokens to guess in a step of a reply, if the checkpoint has what guesses them (MTP)."""
    api_key: str | None = None
    """If set, every request but `/health` must carry it."""
    memory_store: str | None = None
    """File or `postgresql://...` of the memory under /v1/memory; None: there is none."""
    pin_seconds: float = 600.0
    """How long the states of a session stay in memory while its tool runs."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raises ServeError for a key that could not be checked."""
        if self.api_key is not None and (not self.api_key or self.api_key != self.api_key.strip()):
            problem = "has blanks around it" if self.api_key.strip() else "is empty"
            raise ServeError(f"the API key {problem}: give one of visible characters, or none to serve everybody")

    @property
    def responses_bytes(self) -> int | None:
        """How much of `disk_bytes` the stored responses may take; the rest is the tree's."""
        return None if self.disk_bytes is None else self.disk_bytes // 16

    @property
    def tree_bytes(self) -> int | None:
        """How much of `disk_bytes` the tree's rows and states may take."""
        return None if self.disk_bytes is None else self.disk_bytes - self.disk_bytes // 16

    @property
    def served_name(self) -> str:
        """The model's name as clients see it."""
        return self.model_name or Path(self.model).resolve().name
