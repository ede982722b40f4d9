"""Which chat format a checkpoint speaks: by its template, which is what the model sees, or by its model_type."""

from __future__ import annotations

from pathlib import Path

from ramet.chat.format import Format
from ramet.chat.formats.deepseek import DEEPSEEK_V3, DEEPSEEK_V4, DEEPSEEK_V31, DEEPSEEK_V32
from ramet.chat.formats.glm5 import GLM5
from ramet.chat.formats.kimi_k25 import KIMI_K25
from ramet.chat.formats.minimax_m2 import MINIMAX_M2
from ramet.chat.formats.qwen3_5 import QWEN3_5
from ramet.models.fields import read_json

FORMATS = (MINIMAX_M2, KIMI_K25, GLM5, DEEPSEEK_V32, DEEPSEEK_V4, DEEPSEEK_V3, DEEPSEEK_V31, QWEN3_5)
"""In the order in which templates are tried: V3.2 before V4 and V3 before V3.1, whose marks its template has too."""

UNPUBLISHED = (DEEPSEEK_V32, DEEPSEEK_V4)
"""Formats whose checkpoints come with no template."""

__all__ = [
    "DEEPSEEK_V3", "DEEPSEEK_V4", "DEEPSEEK_V31", "DEEPSEEK_V32", "FORMATS", "GLM5", "KIMI_K25", "MINIMAX_M2",
    "QWEN3_5", "UNPUBLISHED", "format_of_folder", "format_of_template",
]  # fmt: skip


REPLY_TAGS = frozenset({"<think>", "</think>", *(tag for format in FORMATS for tag in format.tags)})
"""Tokens that a parser must see, though some vocabularies list them as control tokens."""

CONTROL = frozenset(text for format in FORMATS for text in format.control)
"""Tokens that no message can contain, though some vocabularies list them as ordinary text."""


def format_of_template(source: str) -> Format:
    """The format that a template speaks; Qwen3.5's where it shows none, as in a template without tools."""
    return next((format for format in FORMATS if all(mark in source for mark in format.marks)), QWEN3_5)


def format_of_folder(path: str | Path) -> Format | None:
    """The format that a checkpoint's `config.json` stands for, if it is a known one."""
    file = Path(path) / "config.json"
    kind = read_json(file).get("model_type") if file.is_file() else None
    return next((format for format in FORMATS if kind in format.model_types), None)
