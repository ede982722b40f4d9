"""Qwen3.5 against transformers, and against itself: one prefill, any chunks, token by token, batched, packed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ramet import models
from ramet.errors import RametError
from ramet.models.qwen3_5 import Qwen3_5
from ramet.models.qwen3_5_config import FULL, LINEAR, MoEConfig
from ramet.models.qwen3_5_weights import load_trainable, save
from ramet.models.random import write_random_checkpoint
from tests.models_support import Session, run

LENGTH = 150  # into the third page, and no multiple of anything

CONFIGS: dict[str, dict[str, Any]] = {
    "dense-tied-3to1": {"tie_word_embeddings": True},
    "dense-untied-1to1": {
        "layer_types": (LINEAR, FULL) * 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 24,
    },
    "dense-odd-sizes-full-first": {
        "layer_types": (FULL, LINEAR, LINEAR, FULL, LINEAR),
        "num_hidden_layers": 5,
        "hidden_size": 44,
        "intermediate_size": 37,
        "head_dim": 24,
        "num_attention_heads": 3,
        "linear_key_head_dim": 12,
        "linear_value_head_dim": 20,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-5,
        "nested": False,
    },
    "dense-5to1-wide-rotation": {
        "layer_types": (LINEAR,) * 5 + (FULL,),
        "num_hidden_layers": 6,
        "head_dim": 64,
        "partial_rotary_factor": 0.5,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 4,
        "linear_conv_kernel_dim": 3,
        "tie_word_embeddings": True,
    },
    "moe-untied-3to1": {"moe": MoEConfig(8, 2, 16, 24)},
    "moe-tied-1to2": {
        "moe": MoEConfig(5, 3, 20, 12),
        "layer_types": (LINEAR, FULL, FULL),
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
        "nested": False,
    },
    "moe-every-expert-2to1": {
        "moe": MoEConfig(4, 4, 24, 32),
        "layer_types": (LINEAR, LINEAR, FULL),
        "num_hidden_layers": 3,
    },
}


@pytest.fixture(scope="module", params=CONFIGS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / request.param
    return write_random_checkpoint(path, seed=list(CONFIGS).index(request.param), **CONFIGS[request.param])


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, 256, (8, LENGTH), generator=torch.Generator().manual_seed(7))


def oracle(checkpoint: Path) -> Any:
    """The checkpoint in transformers, float32."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()


def oracle_logits(checkpoint: Path, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = oracle(checkpoint)(tokens.unsqueeze(0)).logits[0]
    return logits


def test_every_way_of_running_agrees_with_transformers_and_bit_for_bit_with_the_others(
    checkpoint: Path, tokens: Tensor
) -> None:
    model = models.load(checkpoint)
    expected = oracle_logits(checkpoint, tokens[0])
    full = run(model, tokens[0])
    assert expected.std() > 0.3, "logits too flat for the comparison to mean much"
    assert (full - expected).abs().max() < 1e-4
    for chunk in range(1, 65):  # 1 is token-by-token decode
        assert torch.equal(run(model, tokens[0], chunk), full), f"chunks of {chunk}"


def test_a_batch_of_eight_sessions_of_different_lengths_is_the_sessions_alone(checkpoint: Path, tokens: Tensor) -> None:
    model = models.load(checkpoint)
    hugging_face = oracle(checkpoint)
    sessions = [row[:length] for row, length in zip(tokens, (1, 5, 23, 63, 64, 65, 128, 150), strict=True)]
    alone = [run(model, session) for session in sessions]
    live = [Session(model) for _ in sessions]
    got: list[list[Tensor]] = [[] for _ in sessions]
    # Prompts and single tokens mixed: each session takes another step size, and some end early.
    steps = (1, 2, 23, 9, 64, 1, 37, 50)
    while any(session.position < len(own) for session, own in zip(live, sessions, strict=True)):
        turn = [n for n, own in enumerate(sessions) if live[n].position < len(own)]
        parts = [sessions[n][live[n].position : live[n].position + steps[n]] for n in turn]
        logits = model.forward([live[n].span(part) for n, part in zip(turn, parts, strict=True)])
        for n, own in zip(turn, logits.split([len(part) for part in parts]), strict=True):
            got[n].append(own)
    for session, each, batched in zip(sessions, alone, got, strict=True):
        assert torch.equal(torch.cat(batched), each)
        with torch.no_grad():
            assert (hugging_face(session.unsqueeze(0)).logits[0] - each).abs().max() < 1e-4


def test_training_runs_the_same_model(checkpoint: Path, tokens: Tensor) -> None:
    """Two documents packed into a row: each has the logits and the gradients that transformers gives it alone."""
    model, hugging_face = load_trainable(checkpoint), oracle(checkpoint)
    first, second = tokens[0, :70], tokens[1, :60]
    packed = torch.cat([first, second]).unsqueeze(0)
    segments = torch.cat([torch.full((70,), 4), torch.full((60,), 9)]).unsqueeze(0)
    positions = torch.cat([torch.arange(70), torch.arange(60)]).unsqueeze(0)
    logits = model.train_forward(packed, segments, positions)
    apart = [hugging_face(document.unsqueeze(0)).logits for document in (first, second)]
    assert (logits - torch.cat(apart, dim=1)).abs().max() < 1e-4
    at = torch.zeros(1, 130, dtype=torch.bool)
    at[0, [3, 69, 129]] = True
    assert torch.allclose(model.train_forward(packed, segments, positions, at=at), logits[at], atol=1e-5)

    logits.log_softmax(-1)[..., 0].sum().backward()
    sum(part.log_softmax(-1)[..., 0].sum() for part in apart).backward()
    theirs = dict(hugging_face.named_parameters())
    for name, parameter in model.named_parameters():
        expected = theirs[name if name.startswith("lm_head") else f"model.{name}"].grad
        assert parameter.grad is not None and parameter.grad.shape == expected.shape
        scale = expected.abs().max().clamp(min=1.0)
        assert (parameter.grad - expected).abs().max() / scale < 2e-3, name


@pytest.mark.parametrize("moe", [False, True])
def test_bfloat16_weights_give_the_bits_of_their_widening(tmp_path: Path, tokens: Tensor, moe: bool) -> None:
    half = write_random_checkpoint(tmp_path / "half", seed=3, moe=moe, dtype=torch.bfloat16)
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
