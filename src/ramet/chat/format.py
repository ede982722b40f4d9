"""What is a family's own in a conversation: how it writes calls, where its turns end, and its control tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files

from ramet.chat.calls import CallForm


@dataclass(frozen=True)
class Layout:
    """How templates space a call; a model that is held to a grammar writes it like this."""

    call: tuple[str, str, str]
    """Before a function's name, behind it, and behind its arguments."""
    parameter: tuple[str, str, str] = ("", "", "")
    """Before a key, between key and value, and behind the value; `{}` stands for what tells text from JSON."""
    section: tuple[str, str] = ("", "")
    """Around all calls of a reply."""
    between: str = ""
    """Between two calls."""
    counts: bool = False
    """A number follows the function's name."""
    after_reasoning: str = ""
    """Between `</think>` and the answer."""


@dataclass(frozen=True)
class Format:
    """A family's chat format."""

    name: str
    """Also the name of its template here, NAME.jinja."""
    model_types: tuple[str, ...]
    """As `config.json` has them, for checkpoints that publish no template."""
    marks: tuple[str, ...]
    """A template that contains all of these speaks this format."""
    calls: CallForm
    layout: Layout
    ends: tuple[str, ...]
    """Tokens that end a reply, the turn's own first."""
    cut: str
    """A regular expression of what ends a segment of a prompt, a message's last token included."""
    header: str
    """A regular expression that finds the role of a segment at its start, in the group `role` named as in `roles`."""
    roles: Mapping[str, str] = field(default_factory=dict)
    control: tuple[str, ...] = ()
    """Tokens that no message can contain: what is written like one is encoded as the characters it consists of."""
    tags: tuple[str, ...] = ()
    """Tokens that are part of replies, beside `<think>` and `</think>`."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Tokens that templates use by name: `bos_token`."""
    calls_end_reasoning: bool = False
    """Calls are told from text by their token, so one may end a reasoning that is not closed."""

    @property
    def call_token(self) -> str:
        """The token without which no call can begin."""
        opening = self.calls.section[0] if self.calls.section else self.calls.call_opening
        return opening if opening in self.tags else self.tags[0]

    @cached_property
    def template(self) -> str:
        """Our own template in this format: for checkpoints that are made here, or that publish none."""
        return files("ramet.chat").joinpath(f"templates/{self.name}.jinja").read_text(encoding="utf-8")

    @cached_property
    def cut_pattern(self) -> re.Pattern[str]:
        """`cut`, compiled."""
        return re.compile(self.cut)

    @cached_property
    def header_pattern(self) -> re.Pattern[str]:
        """`header`, compiled."""
        return re.compile(self.header)
