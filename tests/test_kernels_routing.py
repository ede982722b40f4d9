"""Routing by score and plain rope: the compiled ops against the references and against transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramet import kernels
from ramet.kernels import reference
from tests.kernels_support import each_isa, error, generator, running, same_bits, some


@each_isa
@given(
    rows=st.integers(1, 6),
    groups=st.integers(1, 5),
    each=st.integers(2, 9),
    kept=st.integers(1, 5),
    top_k=st.integers(1, 9),
    score=st.sampled_from(["sigmoid", "sqrtsoftplus"]),
    normalise=st.booleans(),
    coarse=st.booleans(),
    seed=st.integers(0, 2**31),
)
@some
def test_routing_by_score(
    isa: str, rows: int, groups: int, each: int, kept: int, top_k: int, score: Any, normalise: bool, coarse: bool,
    seed: int,
) -> None:  # fmt: skip
    """Against the reference, and each row alone as in company. Coarse scores are full of ties."""
    random, kept = generator(seed), min(kept, groups)
    top_k = min(top_k, kept * each)
    logits, bias = torch.randn(rows, groups * each, generator=random), torch.randn(groups * each, generator=random)
    if coarse:
        logits, bias = logits.round().clamp(0, 1), torch.zeros_like(bias)
    told: dict[str, Any] = {
        "score": score, "groups": groups, "groups_kept": kept, "normalise": normalise, "scale": 2.5,
    }  # fmt: skip
    with running(isa):
        chosen, weights = kernels.route_by_score(logits, bias, top_k, **told)
        expected, expected_weights = reference.route_by_score(logits, bias, top_k, **told)
        assert torch.equal(chosen.long(), expected)
        assert error(weights, expected_weights.double()) < 1e-6
        for row in range(rows):
            alone = kernels.route_by_score(logits[row : row + 1], bias, top_k, **told)
            assert torch.equal(alone[0], chosen[row : row + 1]) and same_bits(alone[1], weights[row : row + 1])


@each_isa
def test_of_equal_scores_and_groups_the_lowest_index_is_chosen(isa: str) -> None:
    logits = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]])
    with running(isa):
        chosen, _ = kernels.route_by_score(logits, torch.zeros(8), 3)
        assert chosen.tolist() == [[1, 2, 4]]
        chosen, _ = kernels.route_by_score(logits, torch.zeros(8), 4, groups=4, groups_kept=2)
        assert chosen.tolist() == [[1, 4, 5, 0]]  # the third group, and of the first two equals the first
        chosen, _ = kernels.route_by_score(logits, torch.tensor([9.0] + [0.0] * 7), 2, groups=2, groups_kept=1)
        assert chosen.tolist() == [[0, 1]]


@each_isa
def test_routers_of_transformers(isa: str) -> None:
    pytest.importorskip("transformers")
    from transformers import DeepseekV3Config, MiniMaxM2Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
    from transformers.models.minimax_m2.modeling_minimax_m2 import MiniMaxM2TopKRouter

    random = generator(3)
    x, bias = torch.randn(50, 24, generator=random), 0.3 * torch.randn(16, generator=random)
    weight = torch.randn(16, 24, generator=random)
    for groups, kept, normalise in ((4, 2, True), (8, 3, False), (1, 1, True)):
        sizes = {"hidden_size": 24, "n_routed_experts": 16, "num_experts_per_tok": 5, "routed_scaling_factor": 2.5}
        theirs = DeepseekV3TopkRouter(
            DeepseekV3Config(**sizes, n_group=groups, topk_group=kept, norm_topk_prob=normalise)  # type: ignore[arg-type]
        )
        theirs.weight.data, theirs.e_score_correction_bias.data = weight, bias
        logits, weights, chosen = theirs(x)
        with running(isa):
            found = kernels.route_by_score(
                logits.detach(), bias, 5, groups=groups, groups_kept=kept, normalise=normalise, scale=2.5
            )
        assert_same_routes(found, (chosen, weights), 16)
    router = MiniMaxM2TopKRouter(MiniMaxM2Config(hidden_size=24, num_local_experts=16, num_experts_per_tok=5))
    router.weight.data = weight
    logits, weights, chosen = router(x, bias)
    with running(isa):
        assert_same_routes(kernels.route_by_score(logits.detach(), bias, 5), (chosen, weights), 16)


def assert_same_routes(
    ours: tuple[torch.Tensor, torch.Tensor], theirs: tuple[torch.Tensor, torch.Tensor], experts: int
) -> None:
    """The same weight for every expert; transformers gives them in no particular order."""
    spread = [
        torch.zeros(len(chosen), experts).scatter(1, chosen.long(), weights.detach())
        for chosen, weights in (ours, theirs)
    ]
    assert (spread[0] - spread[1]).abs().max() < 1e-6


def test_routes_that_do_not_fit_are_refused() -> None:
    logits, bias = torch.randn(3, 8), torch.zeros(8)
    for told in ({"groups": 3}, {"groups": 8, "groups_kept": 4}, {"groups": 4, "groups_kept": 5}):
        with pytest.raises(ValueError, match="8 experts are no"):
            kernels.route_by_score(logits, bias, 2, **told)
    with pytest.raises(ValueError, match="4 of 8, not 5"):
        kernels.route_by_score(logits, bias, 5, groups=4, groups_kept=2)
    with pytest.raises(ValueError, match="bias must"):
        kernels.route_by_score(logits, bias[:7], 2)


@each_isa
@given(
    rows=st.integers(1, 6),
    heads=st.integers(1, 4),
    half=st.integers(0, 35),
    before=st.integers(0, 20),
    after=st.integers(0, 20),
    interleaved=st.booleans(),
    inverse=st.booleans(),
    seed=st.integers(0, 2**31),
)
@some
def test_rope(
    isa: str, rows: int, heads: int, half: int, before: int, after: int, interleaved: bool, inverse: bool, seed: int
) -> None:
    random, size = generator(seed), max(1, before + 2 * half + after)
    x = torch.randn(rows, heads * size, generator=random)
    positions = torch.randint(0, 5000, (rows,), generator=random)
    table = kernels.rope_table(positions, 10000.0 ** -(torch.arange(half) / max(half, 1)), 1.3)
    told: dict[str, Any] = {"start": before, "interleaved": interleaved, "inverse": inverse}
    wide = x.double().view(1, rows, heads, size)
    expected = reference.rope(wide, table.double().unsqueeze(0), **told).reshape(rows, -1)
    with running(isa):
        whole = kernels.rope(x, table, heads=heads, **told)
        assert error(whole, expected) < 1e-6
        for row in range(rows):
            assert same_bits(kernels.rope(x[row : row + 1], table[row : row + 1], heads=heads, **told)[0], whole[row])
        if inverse:  # turning back gives what was there, times the scale twice
            forth = kernels.rope(whole, table, heads=heads, start=before, interleaved=interleaved)
            turned = forth.view(rows, heads, size)[..., before : before + 2 * half]
            assert torch.allclose(turned, 1.69 * x.view(rows, heads, size)[..., before : before + 2 * half], atol=1e-4)


def test_rope_of_columns_that_are_not_there_is_refused() -> None:
    x, table = torch.randn(2, 12), torch.randn(2, 4)
    with pytest.raises(ValueError, match="no 5 heads"):
        kernels.rope(x, table, heads=5)
    with pytest.raises(ValueError, match="from 3 on; a head has 6"):
        kernels.rope(x, table, heads=2, start=3)
    with pytest.raises(ValueError, match="table must"):
        kernels.rope(x, table[:1], heads=2)
