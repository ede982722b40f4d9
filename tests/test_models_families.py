"""Every family against transformers, and against itself: one prefill, any chunks, token by token, batched, packed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ramet import models
from ramet.models.loading import load_trainable
from ramet.models.random import write_random_checkpoint
from tests.model_configs import CONFIGS
from tests.models_support import LENGTH, Session, oracle, oracle_logits, run, ties_to_the_lowest_index

CHUNKS = (1, 2, 3, 5, 7, 8, 13, 16, 17, 23, 31, 32, 33, 47, 48, 63, 64, 65, 100, 127, 128, 129)
"""Around every block of the kernels and pages; 1 is token-by-token decode."""


@pytest.fixture(scope="module", params=CONFIGS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / request.param
    return write_random_checkpoint(path, seed=list(CONFIGS).index(request.param), **CONFIGS[request.param])


@pytest.fixture(autouse=True)
def no_arbitrary_ties() -> Iterator[None]:
    with ties_to_the_lowest_index():
        yield


def published_to_theirs(name: str) -> str:
    """The name that transformers gives to a parameter of ours."""
    name = name.replace(".block_sparse_moe.", ".mlp.")
    return name if name.startswith("lm_head") else f"model.{name}"


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, 256, (8, LENGTH), generator=torch.Generator().manual_seed(7))


def test_every_way_of_running_agrees_with_transformers_and_bit_for_bit_with_the_others(
    checkpoint: Path, tokens: Tensor
) -> None:
    model = models.load(checkpoint)
    expected = oracle_logits(checkpoint, tokens[0])
    full = run(model, tokens[0])
    assert expected.std() > 0.3, "logits too flat for the comparison to mean much"
    assert (full - expected).abs().max() < 1e-4
    for chunk in CHUNKS:
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
    if checkpoint.name.startswith("deepseek_v4"):
        pytest.skip("DeepSeek V4 is served only")
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
        expected = theirs[published_to_theirs(name)].grad if published_to_theirs(name) in theirs else None
        if expected is None:
            assert parameter.grad is None  # what only chooses: experts by a bias, rows by an indexer
            continue
        assert parameter.grad is not None and parameter.grad.shape == expected.shape
        scale = expected.abs().max().clamp(min=1.0)
        assert (parameter.grad - expected).abs().max() / scale < 2e-3, name


def test_weights_that_stay_in_the_files_give_the_same_bits(checkpoint: Path, tokens: Tensor) -> None:
    packed, mapped = models.load(checkpoint), models.load(checkpoint, mapped=True)
    assert mapped.mapped and not packed.mapped and mapped.fingerprint == packed.fingerprint
    assert torch.equal(run(mapped, tokens[0], 50), run(packed, tokens[0], 50))
