"""The words with which DeepSeek V4 is asked for more thought: checkpoints differ in them, and carry them in Python."""

from __future__ import annotations

import ast
from pathlib import Path

ENCODER = "encoding/encoding_dsv4.py"
"""The published encoder, in a checkpoint's folder. It is read, never run."""
_BYTES = 1 << 20


def read_efforts(folder: Path) -> dict[str, str] | None:
    """What a checkpoint's encoder writes before a conversation for each effort that it names; None if it does not say.

    The first V4 knows `high`, which is no words, and `max`; the one of July 2026 `low`, `high` and `max`.
    """
    file = folder / ENCODER
    try:
        return efforts_in(file.read_text(encoding="utf-8")) if file.stat().st_size <= _BYTES else None
    except (OSError, UnicodeDecodeError):
        return None


def efforts_in(source: str) -> dict[str, str] | None:
    """The same for the text of an encoder."""
    try:
        tree = ast.parse(source)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    found = {name: value for node in tree.body for name, value in _constants(node)}
    efforts = found.get("REASONING_EFFORT_PROMPTS")
    if efforts is None and "REASONING_EFFORT_MAX" in found:
        efforts = {"high": "", "max": found["REASONING_EFFORT_MAX"]}
    if not isinstance(efforts, dict) or not all(isinstance(text, str) for each in efforts.items() for text in each):
        return None
    return efforts


def _constants(node: ast.stmt) -> list[tuple[str, object]]:
    """The names that a statement of a module gives a constant to."""
    if isinstance(node, ast.Assign):
        targets, value = node.targets, node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets, value = [node.target], node.value
    else:
        return []
    try:
        constant = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return []
    return [(target.id, constant) for target in targets if isinstance(target, ast.Name)]
