"""Grammars that constrain what a reply may be, checked and run by llguidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Grammar:
    """A grammar in llguidance's serialised form, built by the functions below."""

    source: str
    what: str
    """What it was built from, for error messages: "json_schema", "regex", ..."""

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, *, after_reasoning: bool = False) -> Grammar:
        """JSON that fits `schema`. `after_reasoning`: free text up to `</think>` comes first."""
        raise NotImplementedError

    @classmethod
    def json_object(cls, *, after_reasoning: bool = False) -> Grammar:
        """Any JSON object."""
        raise NotImplementedError

    @classmethod
    def regex(cls, pattern: str, *, after_reasoning: bool = False) -> Grammar:
        """Text that fits a regular expression (Rust regex syntax) as a whole."""
        raise NotImplementedError

    @classmethod
    def lark(cls, source: str) -> Grammar:
        """llguidance's variant of Lark."""
        raise NotImplementedError

    @classmethod
    def tool_calls(
        cls,
        tools: Sequence[Mapping[str, Any]],
        *,
        choice: str = "auto",
        parallel: bool = True,
        after_reasoning: bool = False,
    ) -> Grammar:
        """Calls of `tools` (OpenAI form). `choice`: "auto" (text, then perhaps calls), "required", or a tool's name."""
        raise NotImplementedError
