"""Hyper-connections, experts chosen by token and the clamped SwiGLU, against torch in float64; rows for themselves."""

from __future__ import annotations

import pytest
import torch

from ramet import kernels
from ramet.kernels import reference, reference_entries
from tests.kernels_support import each_isa, error, generator, running, same_bits


@each_isa
@pytest.mark.parametrize(("count", "hidden"), [(4, 40), (2, 7), (1, 64)])
@pytest.mark.parametrize("head", [False, True])
def test_hyper_connections_are_the_reference_and_each_row_is_its_own(
    isa: str, count: int, hidden: int, head: bool
) -> None:
    draw, rows = generator(3), 37
    columns = count if head else (2 + count) * count
    streams, y = torch.randn(rows, count * hidden, generator=draw), torch.randn(rows, hidden, generator=draw)
    mixes = 3 * torch.randn(rows, columns, generator=draw)
    scale, base = torch.rand(1 if head else 3, generator=draw), torch.randn(columns, generator=draw)
    told = {"count": count, "norm_eps": 1e-6, "eps": 1e-6, "iterations": 20}
    with running(isa, threads=2):
        weights = kernels.hyper_weights(streams, mixes, scale, base, **told)
        collapsed = kernels.hyper_collapse(streams, weights, count=count)
        one = kernels.hyper_weights(streams[5:6], mixes[5:6], scale, base, **told)
    expected = reference_entries.hyper_weights(streams.double(), mixes.double(), scale.double(), base.double(), **told)
    assert error(weights, expected) < 1e-5
    assert same_bits(one, weights[5:6])
    assert error(collapsed, reference_entries.hyper_collapse(streams.double(), expected, count=count)) < 1e-5
    if head:
        return
    mix = weights[:, 2 * count :].view(rows, count, count)
    assert (mix.sum(1) - 1).abs().max() < 1e-4, "columns sum to one"
    with running(isa, threads=2):
        expanded = kernels.hyper_expand(streams, y, weights, count=count)
        one = kernels.hyper_expand(streams[5:6], y[5:6], weights[5:6], count=count)
    assert error(expanded, reference_entries.hyper_expand(streams.double(), y.double(), expected, count=count)) < 1e-5
    assert same_bits(one, expanded[5:6])


@each_isa
def test_given_experts_are_weighed(isa: str) -> None:
    draw = generator(4)
    logits = 12 * torch.randn(50, 9, generator=draw)  # above 20, where softplus is the logit itself, too
    chosen = torch.rand(50, 9, generator=draw).argsort(1)[:, :3].int()
    with running(isa):
        weights = kernels.weigh_experts(logits, chosen, scale=1.5)
        with pytest.raises(ValueError, match="does not exist"):
            kernels.weigh_experts(logits, chosen + 7)
    assert error(weights, reference_entries.weigh_experts(logits.double(), chosen, scale=1.5)) < 1e-5


@each_isa
def test_the_clamped_swiglu_limits_both_factors(isa: str) -> None:
    x = 20 * torch.randn(11, 2 * 37, generator=generator(6))
    with running(isa):
        assert error(kernels.swiglu(x, limit=10.0), reference.swiglu(x.double(), 10.0)) < 1e-6
        assert same_bits(kernels.swiglu(x), kernels.swiglu(x, limit=1e30))
    gate_up, down = torch.randn(4, 2 * 6, 5, generator=generator(7)), torch.randn(4, 5, 6, generator=generator(8))
    rows = 8 * torch.randn(9, 5, generator=generator(9))
    chosen, weights = kernels.route(torch.randn(9, 4, generator=generator(1)), 2)
    with running(isa):
        out = kernels.PackedExperts(gate_up, down)(rows, chosen, weights, limit=2.0)
    expected = reference.experts(rows, gate_up, down, chosen.long(), weights, 2.0)
    assert error(out, expected.double()) < 1e-5
