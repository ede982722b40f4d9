"""Ops that read and write a session's states: the same bits however a session is cut and whoever else is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from ramet.kernels import PAGE_TOKENS, Spans, attention, causal_conv, delta_rule, reference
from tests.kernels_support import cuts, each_isa, error, generator, running, same_bits, some

pieces = st.lists(st.integers(1, 70), min_size=1, max_size=5)
GARBAGE = float("nan")
MARGIN = 16  # elements of another layer before and after the op's own in every buffer


@dataclass
class Layer:
    """An op with its weights, and the buffers that it needs for one session."""

    run: Callable[[Tensor, Spans], Tensor]
    columns: int
    state_elements: int = 0
    page_elements: int = 0
    row_dtype: torch.dtype = torch.float32

    def new_state(self, seed: int) -> Tensor:
        return torch.randn(self.state_elements, generator=generator(seed))

    def new_pages(self, length: int) -> list[Tensor]:
        count = -(-length // PAGE_TOKENS) if self.page_elements else 0
        return [torch.full((self.page_elements,), GARBAGE, dtype=self.row_dtype) for _ in range(count)]

    def spans(self, lengths: list[int], positions: list[int], states: list[Tensor], pages: list[list[Tensor]]) -> Spans:
        if self.page_elements:
            return Spans(lengths, positions, pages=pages)
        return Spans(lengths, positions, states=states)

    def session(self, x: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Run one session, its rows cut into pieces of these sizes."""
        state, pages, out = self.new_state(seed), self.new_pages(len(x)), []
        for begin, end in cuts(len(x), sizes):
            out.append(self.run(x[begin:end], self.spans([end - begin], [begin], [state], [pages])))
        return torch.cat(out), state, pages


def conv_layer(width: int, taps: int, seed: int) -> Layer:
    weight = torch.randn(taps, width, generator=generator(seed))
    return Layer(
        lambda x, spans: causal_conv(x, weight, spans, MARGIN), width, state_elements=(taps - 1) * width + 2 * MARGIN
    )


def delta_layer(k_heads: int, repeats: int, k_dim: int, v_dim: int, seed: int) -> Layer:
    v_heads, random = k_heads * repeats, generator(seed)
    a_log, dt_bias = torch.randn(v_heads, generator=random), torch.randn(v_heads, generator=random)
    width = 2 * k_heads * k_dim + v_heads * v_dim

    def run(x: Tensor, spans: Spans) -> Tensor:
        return delta_rule(
            x[:, :width],
            x[:, width : width + v_heads],
            x[:, width + v_heads :],
            a_log,
            dt_bias,
            spans,
            MARGIN,
            k_heads=k_heads,
            v_heads=v_heads,
            k_dim=k_dim,
            v_dim=v_dim,
        )

    return Layer(run, width + 2 * v_heads, state_elements=v_heads * k_dim * v_dim + 2 * MARGIN)


def attention_layer(kv_heads: int, group: int, head_dim: int, row_dtype: torch.dtype = torch.float32) -> Layer:
    heads, block = kv_heads * group, kv_heads * head_dim * PAGE_TOKENS
    q, k = heads * head_dim, kv_heads * head_dim

    def run(x: Tensor, spans: Spans) -> Tensor:
        return attention(
            x[:, :q],
            x[:, q : q + k],
            x[:, q + k :],
            spans,
            MARGIN,
            2 * MARGIN + block,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
        )

    return Layer(run, q + 2 * k, page_elements=2 * block + 3 * MARGIN, row_dtype=row_dtype)


def inputs(layer: Layer, length: int, seed: int) -> Tensor:
    return torch.randn(length, layer.columns, generator=generator(seed))


def check_cuts(layer: Layer, length: int, sizes: Sequence[int], seed: int) -> None:
    """In one piece, in these pieces and token by token: the same results, states and pages."""
    x = inputs(layer, length, seed)
    whole = layer.session(x, [length], seed)
    for other in (layer.session(x, sizes, seed), layer.session(x, [1], seed)):
        assert same_bits(whole[0], other[0])
        assert same_bits(whole[1], other[1])
        assert all(same_bits(a, b) for a, b in zip(whole[2], other[2], strict=True))


def check_company(layer: Layer, lengths: Sequence[int], sizes: Sequence[int], seed: int) -> None:
    """Sessions of different lengths that move on together, a few rows each at a time, have the bits they have alone."""
    xs = [inputs(layer, length, seed + i) for i, length in enumerate(lengths)]
    alone = [layer.session(x, [len(x)], seed + i) for i, x in enumerate(xs)]
    states = [layer.new_state(seed + i) for i in range(len(xs))]
    pages = [layer.new_pages(len(x)) for x in xs]
    at, outs, step = [0] * len(xs), [[torch.empty(0)] for _ in xs], 0
    while any(position < len(x) for position, x in zip(at, xs, strict=True)):
        running_now = [i for i, x in enumerate(xs) if at[i] < len(x)]
        counts = [min(sizes[(step + i) % len(sizes)], len(xs[i]) - at[i]) for i in running_now]
        rows = torch.cat([xs[i][at[i] : at[i] + n] for i, n in zip(running_now, counts, strict=True)])
        spans = layer.spans(
            counts, [at[i] for i in running_now], [states[i] for i in running_now], [pages[i] for i in running_now]
        )
        for i, n, out in zip(running_now, counts, layer.run(rows, spans).split(counts), strict=True):
            outs[i].append(out)
            at[i] += n
        step += 1
    for i, (result, state, session_pages) in enumerate(alone):
        assert same_bits(torch.cat(outs[i][1:]), result)
        assert same_bits(states[i], state)
        assert all(same_bits(a, b) for a, b in zip(pages[i], session_pages, strict=True))


# The convolution.


@each_isa
@given(
    length=st.integers(1, 40),
    width=st.integers(1, 300),
    taps=st.integers(1, 6),
    sizes=pieces,
    seed=st.integers(0, 2**31),
)
@some
def test_conv(isa: str, length: int, width: int, taps: int, sizes: list[int], seed: int) -> None:
    layer = conv_layer(width, taps, seed)
    with running(isa):
        x = inputs(layer, length, seed)
        out, state, _ = layer.session(x, [length], seed)
        before = layer.new_state(seed)
        window = before[MARGIN : before.numel() - MARGIN].view(taps - 1, width)
        weight = torch.randn(taps, width, generator=generator(seed))
        extended = torch.cat([window, x])
        expected = reference.causal_conv(extended.double().unsqueeze(0), weight.double().T)[0, taps - 1 :]
        assert error(out, expected) < 1e-6
        assert same_bits(state[MARGIN : state.numel() - MARGIN], extended[length:].flatten())
        assert same_bits(state[:MARGIN], before[:MARGIN])
        assert same_bits(state[-MARGIN:], before[-MARGIN:])
        check_cuts(layer, length, sizes, seed)
        check_company(layer, [length, 1, 9], sizes, seed)


# The delta rule.


@each_isa
@given(
    length=st.integers(1, 40),
    k_heads=st.integers(1, 3),
    repeats=st.integers(1, 3),
    k_dim=st.integers(1, 40),
    v_dim=st.integers(1, 70),
    sizes=pieces,
    seed=st.integers(0, 2**31),
)
@example(length=35, k_heads=2, repeats=2, k_dim=128, v_dim=128, sizes=[1, 17], seed=0)
@some
def test_delta_rule(
    isa: str, length: int, k_heads: int, repeats: int, k_dim: int, v_dim: int, sizes: list[int], seed: int
) -> None:
    layer = delta_layer(k_heads, repeats, k_dim, v_dim, seed)
    with running(isa):
        before = layer.new_state(seed)
        _, state, _ = layer.session(inputs(layer, length, seed), [length], seed)
        assert same_bits(state[:MARGIN], before[:MARGIN])
        assert same_bits(state[-MARGIN:], before[-MARGIN:])
        check_cuts(layer, length, sizes, seed)
        check_company(layer, [length, 1, 20], sizes, seed)


@each_isa
@pytest.mark.parametrize(("k_heads", "repeats", "k_dim", "v_dim"), [(1, 1, 5, 7), (2, 3, 24, 40), (2, 2, 64, 128)])
def test_delta_rule_against_the_reference(isa: str, k_heads: int, repeats: int, k_dim: int, v_dim: int) -> None:
    layer, length, v_heads = delta_layer(k_heads, repeats, k_dim, v_dim, 1), 90, k_heads * repeats
    x = inputs(layer, length, 2)
    random = generator(1)
    a_log, dt_bias = torch.randn(v_heads, generator=random), torch.randn(v_heads, generator=random)
    with running(isa):
        actual = layer.run(x, Spans([length], [0], states=[torch.zeros(layer.state_elements)]))
    q, k, v, a, b = x.split([k_heads * k_dim, k_heads * k_dim, v_heads * v_dim, v_heads, v_heads], -1)
    decay, beta = reference.delta_gates(a[None], b[None], a_log, dt_bias)
    expected = reference.delta_rule_recurrent(
        q.view(1, length, k_heads, k_dim),
        k.view(1, length, k_heads, k_dim),
        v.view(1, length, v_heads, v_dim),
        decay,
        beta,
    )
    assert error(actual, expected.double().view(length, -1)) < 3e-6


# Attention.


@each_isa
@pytest.mark.parametrize("row_dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@given(
    length=st.integers(1, 200),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 5),
    head_dim=st.integers(1, 70),
    sizes=pieces,
    seed=st.integers(0, 2**31),
)
@example(length=150, kv_heads=2, group=4, head_dim=128, sizes=[64, 3], seed=0)
@example(length=64, kv_heads=1, group=1, head_dim=1, sizes=[63], seed=0)
@some
def test_attention(
    isa: str, row_dtype: torch.dtype, length: int, kv_heads: int, group: int, head_dim: int, sizes: list[int], seed: int
) -> None:
    layer = attention_layer(kv_heads, group, head_dim, row_dtype)
    with running(isa):
        x = inputs(layer, length, seed)
        out, _, pages = layer.session(x, [length], seed)
        parts = x.double().split([kv_heads * group * head_dim, kv_heads * head_dim, kv_heads * head_dim], -1)
        q, k, v = (part.view(1, length, -1, head_dim) for part in parts)
        k, v = (part.to(row_dtype).double() for part in (k, v))  # what is read is what was kept
        expected = reference.attention(q, k, v, None, head_dim**-0.5)
        assert error(out, expected.reshape(length, -1)) < 2e-6
        block = kv_heads * head_dim * PAGE_TOKENS
        for number, page in enumerate(pages):
            tokens = slice(number * PAGE_TOKENS, (number + 1) * PAGE_TOKENS)
            here = k[0, tokens].shape[0]
            keys = page[MARGIN : MARGIN + block].view(kv_heads, head_dim, PAGE_TOKENS)
            values = page[2 * MARGIN + block : 2 * MARGIN + 2 * block].view(kv_heads, PAGE_TOKENS, head_dim)
            assert same_bits(keys[..., :here], k[0, tokens].to(row_dtype).permute(1, 2, 0))
            assert same_bits(values[:, :here], v[0, tokens].to(row_dtype).permute(1, 0, 2))
            written = 2 * kv_heads * head_dim * here
            assert page.isnan().sum() == page.numel() - written
        check_cuts(layer, length, sizes, seed)
        check_company(layer, [length, 1, 70], sizes, seed)


@each_isa
def test_rows_are_rounded_to_the_nearest_bfloat16(isa: str) -> None:
    """Ties to even, subnormal numbers and infinities included; what overflows is infinite, no number stays none."""
    random = torch.randint(-(2**31), 2**31, (64 * 16,), generator=generator(8)).to(torch.int32)
    ties = torch.arange(0, 1 << 20, 1 << 15).to(torch.int32) + 0x3F800000
    bits = torch.cat([random, ties, torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0x7F7FFFFF, 0x7F800000, 0x7F800001])])
    count = -(-len(bits) // 16)
    x = torch.zeros(count * 16, dtype=torch.int32)
    x[: len(bits)] = bits
    rows = x.view(torch.float32).view(count, 16)
    layer = attention_layer(1, 1, 16, torch.bfloat16)
    with running(isa):
        _, _, pages = layer.session(torch.cat([torch.zeros(count, 16), rows, rows], 1), [count], 0)
    block, expected = 16 * PAGE_TOKENS, rows.bfloat16()
    keys = torch.cat([page[MARGIN : MARGIN + block].view(16, PAGE_TOKENS).T for page in pages])[:count]
    values = torch.cat([page[2 * MARGIN + block :][:block].view(PAGE_TOKENS, 16) for page in pages])[:count]
    for kept in (keys, values):
        assert torch.equal(kept.isnan(), rows.isnan())
        assert same_bits(kept[~rows.isnan()], expected[~rows.isnan()])


@each_isa
def test_attention_never_sees_beyond_its_own_session(isa: str) -> None:
    """A page shared up to some token holds another branch's rows after it: they must not be seen, whatever they are."""
    layer, shared, length = attention_layer(2, 2, 24), 70, 100
    x = inputs(layer, length, 3)
    with running(isa):
        expected, _, _ = layer.session(x, [length], 0)
        for other in (torch.full((200, layer.columns), torch.inf), 1e30 * inputs(layer, 200, 4)):
            _, _, pages = layer.session(torch.cat([x[:shared], other])[:128], [128], 0)
            out = layer.run(x[shared:], Spans([length - shared], [shared], pages=[pages]))
            assert same_bits(out, expected[shared:])


@each_isa
def test_an_infinite_value_spoils_only_the_tokens_that_see_it(isa: str) -> None:
    layer = attention_layer(1, 3, 20)
    x = inputs(layer, 90, 5)
    with running(isa):
        clean, _, _ = layer.session(x, [90], 0)
        x[40, -5:] = torch.inf
        broken, _, _ = layer.session(x, [90], 0)
    assert same_bits(broken[:40], clean[:40])
    assert not broken[40:].isfinite().all(-1).any()


@each_isa
def test_large_scores_do_not_overflow(isa: str) -> None:
    layer = attention_layer(1, 1, 16)
    x = inputs(layer, 130, 6)
    x[:, :32] *= 300
    with running(isa):
        out, _, _ = layer.session(x, [130], 0)
    q, k, v = (part.reshape(1, 130, 1, 16) for part in x.double().split(16, -1))
    assert error(out, reference.attention(q, k, v, None, 0.25)[0, :, 0]) < 1e-4


# All of them.


@each_isa
@pytest.mark.parametrize(
    "layer",
    [
        conv_layer(700, 4, 1),
        delta_layer(2, 2, 64, 96, 1),
        attention_layer(2, 3, 40),
        attention_layer(2, 3, 40, torch.bfloat16),
    ],
    ids=["conv", "delta", "attention", "attention over bfloat16"],
)
def test_threads_do_not_change_a_bit(isa: str, layer: Layer) -> None:
    x = inputs(layer, 300, 7)
    results = []
    for threads in (1, 2, 5):
        with running(isa, threads):
            results.append(layer.session(x, [300], 7) + layer.session(x, [100], 7))
    for other in results[1:]:
        assert same_bits(results[0][0], other[0])
        assert same_bits(results[0][1], other[1])
        assert same_bits(results[0][0], other[3])
        assert same_bits(results[0][1], other[4])


def test_what_does_not_fit_is_refused() -> None:
    page, state = torch.zeros(64), torch.zeros(64)
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("too few pages", lambda: Spans([2], [63], pages=[[page]])),
        ("as many positions", lambda: Spans([2], [0, 1])),
        ("as many states", lambda: Spans([2], [0], states=[state, state])),
        ("at least 1", lambda: Spans([0], [0])),
        ("negative", lambda: Spans([1], [-1])),
        ("same number", lambda: Spans([1, 1], [0, 0], states=[state, state[:32]])),
        ("contiguous", lambda: Spans([1], [0], states=[state[::2]])),
        ("float32", lambda: Spans([1], [0], pages=[[page.double()]])),
        ("bfloat16", lambda: Spans([65], [0], pages=[[page.bfloat16(), page]])),
    ]
    conv, delta, attend = conv_layer(8, 4, 0), delta_layer(1, 1, 4, 8, 0), attention_layer(1, 1, 4)
    for layer in (conv, delta):
        x, enough = torch.zeros(3, layer.columns), torch.zeros(layer.state_elements)
        wrong += [
            ("needs states", lambda layer=layer, x=x: layer.run(x, Spans([3], [0]))),  # type: ignore[misc]
            ("fit into", lambda layer=layer, x=x: layer.run(x, Spans([3], [0], states=[torch.zeros(8)]))),  # type: ignore[misc]
            ("rows", lambda layer=layer, x=x, s=enough: layer.run(x, Spans([2], [0], states=[s]))),  # type: ignore[misc]
        ]
    x = torch.zeros(3, attend.columns)
    wrong += [
        ("needs pages", lambda: attend.run(x, Spans([3], [0]))),
        ("fit into a page", lambda: attend.run(x, Spans([3], [0], pages=[[torch.zeros(64)]]))),
        ("rows", lambda: attend.run(x, Spans([4], [0], pages=[attend.new_pages(4)]))),
    ]
    for message, call in wrong:
        with pytest.raises(ValueError, match=message):
            call()


def test_positions_of_all_rows() -> None:
    assert Spans([2, 1, 3], [5, 0, 60]).position_ids().tolist() == [5, 6, 0, 60, 61, 62]
