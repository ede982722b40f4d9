"""Ops that see one row at a time: norms, rope, gates, routing and experts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ramet import kernels
from ramet.kernels import reference
from tests.kernels_support import each_isa, error, generator, running, same_bits, some


def check(op: Callable[[slice], Tensor], expected: Tensor, rows: int, tolerance: float = 2e-6) -> None:
    """`op` on all rows is right, and each row alone has the bits that it has in company."""
    whole = op(slice(None))
    assert error(whole, expected) < tolerance
    for row in range(rows):
        assert same_bits(op(slice(row, row + 1)), whole[row : row + 1])


def normed(x: Tensor, eps: float) -> Tensor:
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt()


@each_isa
@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 4),
    size=st.integers(1, 150),
    zero_centred=st.booleans(),
    seed=st.integers(0, 2**31),
)
@some
def test_norms(isa: str, rows: int, groups: int, size: int, zero_centred: bool, seed: int) -> None:
    random = generator(seed)
    x, z = torch.randn(rows, groups * size, generator=random), torch.randn(rows, groups * size, generator=random)
    weight, eps = torch.rand(size, generator=random) + 0.5, 1e-6
    unit = normed(x.view(rows, groups, size), eps)
    with running(isa):
        check(
            lambda r: kernels.rms_norm(x[r], weight, eps, zero_centred=zero_centred),
            (unit * (weight.double() + zero_centred)).flatten(1),
            rows,
        )
        check(
            lambda r: kernels.gated_rms_norm(x[r], z[r], weight, eps),
            (unit * weight.double()).flatten(1) * F.silu(z.double()),
            rows,
        )
        if groups > 1:  # a group has the same bits as a row of its own
            apart = kernels.rms_norm(x.view(-1, size), weight, eps, zero_centred=zero_centred)
            assert same_bits(apart.view(rows, -1), kernels.rms_norm(x, weight, eps, zero_centred=zero_centred))


@each_isa
@given(
    rows=st.integers(1, 9),
    heads=st.integers(1, 4),
    size=st.integers(1, 70),
    half=st.integers(0, 35),
    extra=st.integers(0, 70),
    seed=st.integers(0, 2**31),
)
@example(rows=3, heads=2, size=64, half=8, extra=64, seed=0)
@some
def test_norm_and_rope(isa: str, rows: int, heads: int, size: int, half: int, extra: int, seed: int) -> None:
    half, random = min(half, size // 2), generator(seed)
    x = torch.randn(rows, heads * (size + extra), generator=random)
    weight = torch.randn(size, generator=random)
    positions = torch.randint(0, 5000, (rows,), generator=random)
    frequencies = 10000.0 ** -(torch.arange(half) / max(half, 1))
    with running(isa):
        table = kernels.rope_table(positions, frequencies)
        unit = normed(x.view(rows, heads, -1)[..., :size], 1e-6) * (1 + weight.double())
        expected = reference.rope(unit.unsqueeze(0), table.double().unsqueeze(0)).reshape(rows, -1)
        check(
            lambda r: kernels.norm_rope(x[r], weight, 1e-6, table[r], heads=heads, zero_centred=True),
            expected,
            rows,
        )


def test_the_rope_table_is_right_far_out() -> None:
    positions = torch.tensor([0, 1, 7, 1000, 131071, 262143])
    frequencies = 1e7 ** -(torch.arange(32) / 32)
    angles = (positions[:, None].float() * frequencies).double()
    expected = torch.cat([angles.cos(), angles.sin()], -1)
    assert (kernels.rope_table(positions, frequencies) - expected).abs().max() < 1e-7


@each_isa
@given(rows=st.integers(1, 6), heads=st.integers(1, 4), size=st.integers(1, 70), seed=st.integers(0, 2**31))
@some
def test_gates(isa: str, rows: int, heads: int, size: int, seed: int) -> None:
    random = generator(seed)
    x, both = (torch.randn(rows, n * heads * size, generator=random) * 4 for n in (1, 2))
    with running(isa):
        gate, up = both.double().chunk(2, -1)
        check(lambda r: kernels.swiglu(both[r]), F.silu(gate) * up, rows)
        gates = both.double().view(rows, heads, -1)[..., size:].reshape(rows, -1)
        check(lambda r: kernels.sigmoid_gate(x[r], both[r], heads=heads), x.double() * gates.sigmoid(), rows)
        check(
            lambda r: kernels.sigmoid_gate(x[r], both[r, : heads * size], heads=1),
            x.double() * both[:, : heads * size].double().sigmoid(),
            rows,
        )
        check(lambda r: kernels.gelu_tanh(both[r]), F.gelu(both.double(), approximate="tanh"), rows)
        check(
            lambda r: kernels.add_gated(x[r], both[r, : heads * size], both[r, -1:]),
            x.double() + both[:, : heads * size].double() * both[:, -1:].double().sigmoid(),
            rows,
        )


@each_isa
def test_silu_over_its_whole_range(isa: str) -> None:
    gate = torch.cat([torch.linspace(-100, 100, 40001), torch.logspace(-30, 0, 1000), -torch.logspace(-30, 0, 1000)])
    with running(isa):
        actual = kernels.swiglu(torch.stack([gate, torch.ones_like(gate)]).flatten()[None])[0].double()
    expected = F.silu(gate.double())
    assert ((actual - expected).abs() <= 4e-7 * expected.abs() + 1e-35).all()


@each_isa
def test_no_number_in_no_number_out(isa: str) -> None:
    gate = torch.tensor([[torch.nan, 1.0, torch.inf, -torch.inf, 1.0, 1.0, 1.0, 1.0]])
    with running(isa):
        out = kernels.swiglu(gate)[0]
    assert out[0].isnan()
    assert out[2] == torch.inf


@each_isa
@given(
    rows=st.integers(1, 12),
    experts=st.integers(1, 9),
    top_k=st.integers(1, 9),
    hidden=st.integers(1, 40),
    intermediate=st.integers(1, 40),
    half=st.booleans(),
    seed=st.integers(0, 2**31),
)
@some
def test_experts(
    isa: str, rows: int, experts: int, top_k: int, hidden: int, intermediate: int, half: bool, seed: int
) -> None:
    top_k, random = min(top_k, experts), generator(seed)
    dtype = torch.bfloat16 if half else torch.float32
    x, logits = torch.randn(rows, hidden, generator=random), torch.randn(rows, experts, generator=random)
    gate_up = torch.randn(experts, 2 * intermediate, hidden, generator=random).to(dtype)
    down = torch.randn(experts, hidden, intermediate, generator=random).to(dtype)
    with running(isa):
        packed = kernels.PackedExperts(gate_up, down)
        chosen, weights = kernels.route(logits, top_k)
        probabilities = logits.double().softmax(-1)
        top = probabilities.gather(1, chosen.long())
        assert error(weights, top / top.sum(-1, keepdim=True)) < 1e-6
        expected = reference.experts(x.double(), gate_up.double(), down.double(), chosen.long(), weights.double())

        def run(r: slice) -> Tensor:
            return packed(x[r], *kernels.route(logits[r], top_k))

        check(run, expected, rows, 1e-5)


@each_isa
def test_of_equal_logits_the_lowest_index_is_chosen(isa: str) -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0, 1.0], [0.0] * 6, [5.0, 4.0, 3.0, 3.0, 4.0, 5.0]])
    with running(isa):
        chosen, weights = kernels.route(logits, 4)
        assert chosen.tolist() == [[1, 2, 4, 0], [0, 1, 2, 3], [0, 5, 1, 4]]
        assert weights[1].tolist() == [0.25] * 4
    expected, expected_weights = reference.route(logits, 4)
    assert torch.equal(chosen.long(), expected)
    assert error(weights, expected_weights.double()) < 1e-6


@each_isa
def test_threads_do_not_change_a_bit(isa: str) -> None:
    random = generator(9)
    x, z = torch.randn(400, 1500, generator=random), torch.randn(400, 1500, generator=random)
    weight, logits = torch.randn(50, generator=random), torch.randn(400, 1500, generator=random)
    gate_up, down = torch.randn(6, 80, 1500, generator=random), torch.randn(6, 1500, 40, generator=random)
    results = []
    for threads in (1, 2, 5):
        with running(isa, threads):
            chosen, weights = kernels.route(logits[:, :6], 3)
            results.append(
                [
                    kernels.rms_norm(x, weight, 1e-6, zero_centred=True),
                    kernels.gated_rms_norm(x, z, weight, 1e-6),
                    kernels.swiglu(x),
                    kernels.sigmoid_gate(x, z, heads=30),
                    kernels.gelu_tanh(x),
                    kernels.add_gated(x, z, z[:, :1]),
                    kernels.PackedExperts(gate_up, down)(x, chosen, weights),
                    kernels.route(logits, 7)[1],
                ]
            )
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_does_not_fit_is_refused() -> None:
    x, weight = torch.randn(3, 8), torch.randn(4)
    packed = kernels.PackedExperts(torch.randn(2, 6, 8), torch.randn(2, 8, 3))
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("multiple", lambda: kernels.rms_norm(x, torch.randn(3), 1e-6, zero_centred=True)),
        ("x must", lambda: kernels.rms_norm(x.double(), weight, 1e-6, zero_centred=True)),
        ("weight must", lambda: kernels.rms_norm(x, weight.double(), 1e-6, zero_centred=True)),
        ("z must have 3 rows", lambda: kernels.gated_rms_norm(x, x[:2], weight, 1e-6)),
        ("even", lambda: kernels.swiglu(torch.randn(3, 7))),
        ("heads", lambda: kernels.sigmoid_gate(x, x[:, :4], heads=2)),
        ("gate must have 3 rows", lambda: kernels.sigmoid_gate(x, x[:2], heads=2)),
        ("gate must have 1 columns", lambda: kernels.add_gated(x, x, x)),
        ("heads", lambda: kernels.norm_rope(x, weight, 1e-6, torch.randn(3, 2), heads=3, zero_centred=True)),
        ("rotates", lambda: kernels.norm_rope(x, weight, 1e-6, torch.randn(3, 6), heads=2, zero_centred=True)),
        ("table must", lambda: kernels.norm_rope(x, weight, 1e-6, torch.randn(2, 2), heads=2, zero_centred=True)),
        ("top_k", lambda: kernels.route(x, 9)),
        ("does not exist", lambda: packed(x, torch.full((3, 1), 2, dtype=torch.int32), torch.ones(3, 1))),
        ("chosen must", lambda: packed(x, torch.zeros(3, 1, dtype=torch.int64), torch.ones(3, 1))),
        ("fit each other", lambda: kernels.PackedExperts(torch.randn(2, 6, 8), torch.randn(2, 8, 4))),
    ]
    for message, call in wrong:
        with pytest.raises(ValueError, match=message):
            call()
