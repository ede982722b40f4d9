"""Conversations to rows of tokens: rendered by the chat template, the assistant's words marked, packed closely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import Tensor

from ramet.chat.template import ChatTemplate
from ramet.errors import RametError


@dataclass(frozen=True)
class Document:
    tokens: np.ndarray
    """int32 `[n]`."""
    learn: np.ndarray
    """bool `[n]`: whether this token is predicted with loss (never the first)."""


@dataclass
class Batch:
    """Rows of packed documents. `targets` are the tokens to predict at the places where `at` is true, in order."""

    tokens: Tensor
    segments: Tensor
    positions: Tensor
    at: Tensor
    targets: Tensor


class Encoder:
    """Renders conversations with a chat template and finds the assistant's tokens in the result.

    Works for templates that write turns as `<|im_start|>role\\n ... <|im_end|>`.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, template: ChatTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self._start, self.end = (_id_of(tokenizer, text) for text in ("<|im_start|>", "<|im_end|>"))
        self._head = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False).ids

    def render(self, messages: Sequence[Mapping[str, Any]], *, reply: bool = False) -> str:
        return self.template.render({"messages": messages, "add_generation_prompt": reply})

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> Document:
        """Tokens of a whole conversation; every assistant turn is learnt unless its message says `"loss": False`."""
        ids = self.tokenizer.encode(self.render(messages), add_special_tokens=False).ids
        wanted = [m.get("loss", True) for m in messages if m["role"] == "assistant"]
        learn = np.zeros(len(ids), dtype=bool)
        turn, at, head = 0, 0, self._head
        while at < len(ids):
            if ids[at] == self._start and ids[at : at + len(head)] == head:
                begin = at + len(head)
                end = ids.index(self.end, begin)
                if turn < len(wanted) and wanted[turn]:
                    learn[begin : end + 1] = True
                turn, at = turn + 1, end
            at += 1
        return Document(np.asarray(ids, dtype=np.int32), learn)


def _id_of(tokenizer: tokenizers.Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise RametError(f"the tokenizer has no {token}: only templates with Qwen's turns can be trained")
    return found


def assign(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Which documents share a row of `length` tokens: longest first, each into the first row with room, by index.

    Documents longer than a row get one of their own. The fullest rows come first.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = min(sizes[i], length)
        row = next((r for r, left in enumerate(room) if left >= size), None)
        if row is None:
            rows.append([])
            room.append(length)
            row = len(rows) - 1
        rows[row].append(i)
        room[row] -= size
    order = sorted(range(len(rows)), key=lambda r: room[r])
    return [rows[r] for r in order]


def lay(rows: Sequence[Sequence[Document]], length: int) -> Batch:
    """Documents laid into rows of `length` tokens, cut where they are longer; the rest is padding."""
    shape = (len(rows), length)
    tokens, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segments, at = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=bool)
    for row, documents in enumerate(rows):
        begin = 0
        for index, document in enumerate(documents):
            size = min(len(document.tokens), length - begin)
            span = slice(begin, begin + size)
            tokens[row, span] = document.tokens[:size]
            segments[row, span] = index
            positions[row, span] = np.arange(size)
            at[row, begin : begin + size - 1] = document.learn[1:size]
            begin += size
    targets = np.roll(tokens, -1, axis=1)[at]
    parts = (tokens, segments, positions, at, targets)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))
