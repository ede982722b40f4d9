"""The reference ops against their definitions: what training relies on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ramet.kernels import reference


def delta_inputs(seed: int, batch: int, length: int) -> list[Tensor]:
    """q, k, v, log-decay and step sizes; one head forgets hardly at all, one within a token."""
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(batch, length, 2, 12, generator=generator) for _ in range(2))
    v = torch.randn(batch, length, 4, 20, generator=generator)
    log_decay = -torch.rand(batch, length, 4, generator=generator) * torch.tensor([1e-3, 0.1, 2.0, 40.0])
    return [q, k, v, log_decay, torch.rand(batch, length, 4, generator=generator)]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    cuts=st.lists(st.lists(st.integers(1, 170), max_size=6), min_size=2, max_size=2),
    length=st.integers(1, 170),
)
def test_chunks_are_the_recurrence_values_and_gradients(seed: int, cuts: list[list[int]], length: int) -> None:
    segments = torch.zeros(2, length, dtype=torch.long)
    for row, places in enumerate(cuts):
        for number, place in enumerate(sorted(places)):
            segments[row, place:] = number % 2  # ids come again for other documents
    found = []
    for op in (reference.delta_rule_recurrent, reference.delta_rule_chunked):
        inputs = [tensor.requires_grad_() for tensor in delta_inputs(seed, 2, length)]
        out = op(*inputs, segments)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append([out.detach(), *(tensor.grad for tensor in inputs)])
    for recurrent, chunked in zip(*found, strict=True):
        assert recurrent is not None and chunked is not None
        assert (recurrent - chunked).abs().max() < 5e-5 * recurrent.abs().max().clamp(min=1)


@pytest.mark.parametrize("op", [reference.delta_rule_recurrent, reference.delta_rule_chunked])
def test_a_document_does_not_feel_what_is_packed_before_it(op: object) -> None:
    assert callable(op)
    inputs = delta_inputs(1, 1, 150)
    segments = torch.cat([torch.zeros(70), torch.ones(80)]).long().unsqueeze(0)
    packed = op(*inputs, segments)[:, 70:]
    for tensor in inputs:
        tensor[:, :70] = 1e4 if tensor is inputs[2] else tensor[:, :70].flip(1)
    assert torch.allclose(op(*inputs, segments)[:, 70:], packed, rtol=1e-4, atol=1e-6)


def test_long_memories_survive_many_chunks() -> None:
    """Written once and hardly decaying, a value is read back 1,000 tokens later."""
    q = torch.zeros(1, 1000, 1, 8)
    k, v = torch.zeros(1, 1000, 1, 8), torch.zeros(1, 1000, 1, 4)
    k[..., 0] = 1.0  # what comes in between is stored elsewhere
    k[0, 3, 0], q[0, -1, 0] = torch.eye(8)[5], torch.eye(8)[5]
    v[0, 3, 0] = torch.tensor([1.0, -2.0, 3.0, -4.0])
    log_decay, beta = torch.full((1, 1000, 1), -1e-3), torch.ones(1, 1000, 1)
    read = reference.delta_rule_chunked(q, k, v, log_decay, beta)[0, -1, 0]
    expected = v[0, 3, 0] * torch.exp(torch.tensor(-0.996)) * 8**-0.5
    assert torch.allclose(read, expected, rtol=1e-5)


def test_the_chunked_rule_stays_float32_under_autocast() -> None:
    inputs = delta_inputs(5, 1, 130)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = reference.delta_rule_chunked(*inputs)
    assert torch.equal(narrow, reference.delta_rule_chunked(*inputs))


def test_convolution_and_attention_stop_at_documents() -> None:
    generator = torch.Generator().manual_seed(2)
    lengths = (1, 2, 30, 3, 1, 27)
    segments = torch.cat([torch.full((length,), number % 3) for number, length in enumerate(lengths)]).unsqueeze(0)
    x, weight = torch.randn(1, 64, 10, generator=generator), torch.randn(10, 4, generator=generator)
    q = torch.randn(1, 64, 4, 8, generator=generator)
    k, v = (torch.randn(1, 64, 2, 8, generator=generator) for _ in range(2))
    conv = reference.causal_conv(x, weight, segments)
    attended = reference.attention(q, k, v, reference.attention_mask(segments), 0.3)
    start = 0
    for length in lengths:
        own = slice(start, start + length)
        window = torch.cat([torch.zeros(1, 3, 10), x[:, own]], dim=1)
        expected = sum(window[:, tap : tap + length] * weight[:, tap] for tap in range(4))
        assert torch.allclose(conv[:, own], torch.nn.functional.silu(torch.as_tensor(expected)), atol=1e-5)
        scores = 0.3 * torch.einsum("blhd,bmhd->bhlm", q[:, own], k[:, own].repeat_interleave(2, 2))
        scores = scores.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), -torch.inf)
        values = torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), v[:, own].repeat_interleave(2, 2))
        assert torch.allclose(attended[:, own], values, atol=1e-5)
        start += length


def test_routing_takes_the_lowest_index_of_equals() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
    chosen, weights = reference.route(logits, 3)
    assert chosen.tolist() == [[1, 3, 2], [0, 1, 2]]
    probabilities = logits.softmax(-1)
    expected = probabilities.gather(-1, chosen)
    assert torch.allclose(weights, expected / expected.sum(-1, keepdim=True))
