"""Qwen3.5 in other precisions, its states, its refusals, its fresh weights; `test_models_families` has the rest."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ramet import models
from ramet.errors import RametError
from ramet.models.loading import load_trainable, save
from ramet.models.qwen3_5 import Qwen3_5
from ramet.models.random import write_random_checkpoint
from tests.models_support import LENGTH, Session, oracle_logits, run


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, 256, (8, LENGTH), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("preset", ["tiny", "tiny-moe"])
def test_bfloat16_weights_give_the_bits_of_their_widening(tmp_path: Path, tokens: Tensor, preset: str) -> None:
    half = write_random_checkpoint(tmp_path / "half", seed=3, preset=preset, dtype=torch.bfloat16)
    save(load_trainable(half), tmp_path / "wide")
    narrow, wide = models.load(half), models.load(tmp_path / "wide")
    assert (narrow.layout.row_dtype, wide.layout.row_dtype) == (torch.bfloat16, torch.float32)
    # the rows' precision is the checkpoint's, and all that differs
    rounded = run(narrow, tokens[0])
    assert torch.equal(rounded, run(narrow, tokens[0], 17))
    assert 1e-4 < (rounded - run(wide, tokens[0])).abs().max() < 0.1
    narrow.layout = replace(narrow.layout, row_dtype=torch.float32)
    assert torch.equal(run(narrow, tokens[0]), run(wide, tokens[0]))
    assert (run(narrow, tokens[0], 17) - oracle_logits(half, tokens[0])).abs().max() < 1e-4
    assert isinstance(narrow, Qwen3_5)
    assert {module.packed.dtype for module in narrow.modules() if getattr(module, "packed", None)} == {torch.bfloat16}


def test_logits_are_those_asked_for(tmp_path: Path, tokens: Tensor) -> None:
    model = models.load(write_random_checkpoint(tmp_path, seed=1))
    full = run(model, tokens[0])
    a, b, c = Session(model), Session(model), Session(model)
    logits = model.forward(
        [a.span(tokens[0, :20], logits=3), b.span(tokens[0, :9], logits=0), c.span(tokens[0, :70], logits=1)]
    )
    assert torch.equal(logits, torch.cat([full[17:20], full[69:70]]))
    assert torch.equal(model.forward([b.span(tokens[0, 9:11], logits=1)]), full[10:11])
    assert model.forward([b.span(tokens[0, 11:12], logits=0)]).shape == (0, model.vocab_size)


def test_a_state_saved_between_tokens_can_be_gone_back_to(tmp_path: Path, tokens: Tensor) -> None:
    model = models.load(write_random_checkpoint(tmp_path, seed=1))
    session = Session(model)
    model.forward([session.span(tokens[0, :80])])
    saved = session.state.clone()
    model.forward([session.span(tokens[1, :30])])  # the branch that is given up; its rows are written over
    session.state, session.position = saved, 80
    assert torch.equal(model.forward([session.span(tokens[0, 80:])]), run(model, tokens[0])[80:])


def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path: Path, tokens: Tensor) -> None:
    model = models.load(write_random_checkpoint(tmp_path, seed=1, max_position_embeddings=100))
    session = Session(model)
    model.forward([session.span(tokens[0, :90])])
    state = session.state.clone()
    with pytest.raises(models.ContextLengthError, match=r"101 tokens long.*no further than 100") as caught:
        model.forward([Session(model).span(tokens[0, :5]), session.span(tokens[0, 90:101])])
    assert isinstance(caught.value, RametError)
    session.position = 90
    with pytest.raises(ValueError, match="a span of 0 tokens"):
        model.forward([session.span(tokens[0, :0])])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        model.forward([session.span(torch.tensor([1, model.vocab_size]))])
    session.position = 90
    with pytest.raises(ValueError, match="with 3 logits"):
        model.forward([session.span(tokens[0, :2], logits=3)])
    assert torch.equal(session.state, state)
    session.position = 90
    assert torch.equal(model.forward([session.span(tokens[0, 90:100])]), run(model, tokens[0, :100])[90:])


def test_fresh_weights_are_ready_to_train(tmp_path: Path, tokens: Tensor) -> None:
    model = load_trainable(write_random_checkpoint(tmp_path, seed=1)).initialise(5)
    again = load_trainable(tmp_path).initialise(5)
    parameters = dict(model.named_parameters())
    assert all(torch.equal(weight, parameters[name]) for name, weight in again.named_parameters())
    steps = torch.nn.functional.softplus(parameters["layers.0.linear_attn.dt_bias"])
    assert steps.min() > 0.99e-3 and steps.max() < 1.01e-1
    with torch.no_grad():
        logits = model.train_forward(tokens, None, torch.arange(LENGTH).expand(8, -1))
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert abs(loss.item() - math.log(model.vocab_size)) < 0.05, "a fresh model should know nothing"
