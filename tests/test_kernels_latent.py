"""Latent attention, whole and sparse, and the indexer: against torch, and the same bits however a session is cut."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from ramet.kernels import PAGE_TOKENS, PackedHeads, Spans, index_rows, latent_attention, layer_norm, reference_latent
from tests.kernels_support import each_isa, error, generator, running, same_bits, some
from tests.test_kernels_sessions import MARGIN, Layer, check_company, check_cuts, inputs, pieces

both_row_dtypes = pytest.mark.parametrize("row_dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@dataclass
class Sizes:
    """Of a latent attention with an indexer; `top_k` None: without."""

    heads: int
    latent: int
    rope: int
    index_heads: int = 1
    index_dim: int = 1
    top_k: int | None = None

    @property
    def columns(self) -> list[int]:
        index = [self.index_heads * self.index_dim, self.index_dim, self.index_heads]
        return [self.heads * self.latent, self.heads * (self.rope + 3), self.latent, self.rope, *index]

    def layer(self, row_dtype: torch.dtype = torch.float32) -> Layer:
        keys = 2 * MARGIN + (self.latent + self.rope) * PAGE_TOKENS

        def run(x: Tensor, spans: Spans) -> Tensor:
            q, q_rope, latent, rope_key, index_q, index_k, weights = x.split(self.columns, -1)
            chosen = None
            if self.top_k:
                chosen = index_rows(index_q, index_k, weights, spans, keys, heads=self.index_heads, top_k=self.top_k)
            return latent_attention(
                q, q_rope, latent, rope_key, spans, MARGIN, heads=self.heads, scale=0.3, chosen=chosen
            )

        elements = keys + self.index_dim * PAGE_TOKENS + MARGIN
        return Layer(run, sum(self.columns), page_elements=elements, row_dtype=row_dtype)

    def expected(self, x: Tensor, row_dtype: torch.dtype) -> Tensor:
        q, q_rope, latent, rope_key, index_q, index_k, weights = x.double().unsqueeze(0).split(self.columns, -1)
        latent, rope_key, index_k = (row.to(row_dtype).double() for row in (latent, rope_key, index_k))
        mask = torch.ones(1, len(x), len(x), dtype=torch.bool).tril()
        if self.top_k:
            index_q = index_q.unflatten(-1, (self.index_heads, -1))
            mask = reference_latent.index_rows(index_q, index_k, weights, mask, self.top_k)
        q, q_rope = q.unflatten(-1, (self.heads, -1)), q_rope.unflatten(-1, (self.heads, -1))[..., 3:]
        return reference_latent.latent_attention(q, q_rope, latent, rope_key, mask, 0.3).reshape(len(x), -1)


@each_isa
@both_row_dtypes
@given(
    length=st.integers(1, 200),
    heads=st.integers(1, 70),
    latent=st.integers(1, 70),
    rope=st.integers(1, 20),
    index_heads=st.integers(1, 14),
    index_dim=st.integers(1, 40),
    top_k=st.none() | st.integers(1, 150),
    sizes=pieces,
    seed=st.integers(0, 2**31),
)
@example(length=190, heads=64, latent=64, rope=16, index_heads=13, index_dim=32, top_k=70, sizes=[64, 3], seed=0)
@some
def test_latent_attention(
    isa: str,
    row_dtype: torch.dtype,
    length: int,
    heads: int,
    latent: int,
    rope: int,
    index_heads: int,
    index_dim: int,
    top_k: int | None,
    sizes: list[int],
    seed: int,
) -> None:
    of = Sizes(heads, latent, rope, index_heads, index_dim, top_k)
    layer = of.layer(row_dtype)
    with running(isa):
        x = inputs(layer, length, seed)
        out, _, pages = layer.session(x, [length], seed)
        assert error(out, of.expected(x, row_dtype)) < 3e-6
        rows = latent + rope + (index_dim if top_k else 0)
        assert sum(page.numel() - int(page.isnan().sum()) for page in pages) == rows * length
        check_cuts(layer, length, sizes, seed)
        check_company(layer, [length, 1, 70], sizes, seed)


@each_isa
@given(
    length=st.integers(2, 300),
    top_k=st.integers(1, 200),
    levels=st.integers(1, 5),
    sizes=pieces,
    seed=st.integers(0, 2**31),
)
@some
def test_of_equal_scores_the_earliest_are_chosen(
    isa: str, length: int, top_k: int, levels: int, sizes: list[int], seed: int
) -> None:
    """Few different scores, all exact in float32, zeros of either sign among them."""
    random = generator(seed)
    q = torch.ones(length, 1)
    k = torch.randint(-1, levels, (length, 1), generator=random).float()
    weights = torch.randint(-1, 2, (length, 1), generator=random).float()
    with running(isa):
        pages, chosen, at = [torch.zeros(PAGE_TOKENS) for _ in range(-(-length // PAGE_TOKENS))], [], 0
        for size in [*sizes, length]:
            part = slice(at, min(length, at + size))
            if part.start < part.stop:
                spans = Spans([part.stop - part.start], [at], pages=[pages])
                chosen.append(index_rows(q[part], k[part], weights[part], spans, 0, heads=1, top_k=top_k))
            at = part.stop
    scores = k.relu().T * weights
    for t, places in enumerate(torch.cat(chosen)):
        if t + 1 > top_k:
            order = sorted(range(t + 1), key=lambda s, t=t: (-float(scores[t, s]), s))  # type: ignore[misc]
            assert places.tolist() == sorted(order[:top_k])


@each_isa
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_extreme_scores_are_ranked(isa: str, value: float) -> None:
    """Infinities rank as the largest and the smallest, and what is no number comes last, whatever its sign."""
    length, top_k = 100, 40
    k = torch.arange(length, dtype=torch.float32).unsqueeze(1) + 1.0
    k[10], k[20] = abs(value), value
    ones = torch.ones(length, 1)
    with running(isa):
        spans = Spans([length], [0], pages=[[torch.zeros(PAGE_TOKENS) for _ in range(2)]])
        chosen = index_rows(ones, k, ones, spans, 0, heads=1, top_k=top_k)[-1].tolist()
    best = [10, 20] if value == torch.inf else [10] if value == -torch.inf else []
    assert chosen == best + list(range(length - top_k + len(best), length))


@each_isa
def test_it_never_sees_beyond_its_own_session(isa: str) -> None:
    """A page shared up to some token holds another branch's rows after it: they must not be seen, whatever they are."""
    layer, shared, length = Sizes(3, 24, 8, 2, 16, 50).layer(), 70, 100
    x = inputs(layer, length, 3)
    with running(isa):
        expected, _, _ = layer.session(x, [length], 0)
        for other in (torch.full((200, layer.columns), torch.inf), 1e30 * inputs(layer, 200, 4)):
            _, _, pages = layer.session(torch.cat([x[:shared], other])[:128], [128], 0)
            out = layer.run(x[shared:], Spans([length - shared], [shared], pages=[pages]))
            assert same_bits(out, expected[shared:])


@each_isa
def test_rows_that_are_not_chosen_are_never_read(isa: str) -> None:
    layer = Sizes(2, 20, 4, 1, 1, 30).layer()
    x = inputs(layer, 150, 5)
    x[:, -3], x[:, -2], x[:, -1] = 1.0, torch.arange(150.0), 1.0  # later rows score higher
    with running(isa):
        clean, _, pages = layer.session(x, [150], 0)
        for page in pages[:1]:
            page[MARGIN : MARGIN + 24 * PAGE_TOKENS] = torch.nan
        again = layer.run(x[140:], Spans([10], [140], pages=[pages]))
    assert same_bits(again, clean[140:])


@each_isa
@both_row_dtypes
def test_threads_do_not_change_a_bit(isa: str, row_dtype: torch.dtype) -> None:
    layer = Sizes(40, 64, 16, 5, 32, 128).layer(row_dtype)
    x = inputs(layer, 500, 7)
    results = []
    for threads in (1, 2, 5):
        with running(isa, threads):
            results.append(layer.session(x, [500], 7)[0])
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])


@each_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(
    rows=st.integers(1, 30), heads=st.integers(1, 5), out=st.integers(1, 70), width=st.integers(1, 40),
    more=st.integers(0, 5), seed=st.integers(0, 2**31),
)  # fmt: skip
@some
def test_a_matrix_per_head(
    isa: str, dtype: torch.dtype, rows: int, heads: int, out: int, width: int, more: int, seed: int
) -> None:
    random = generator(seed)
    weight = torch.randn(heads, out, width, generator=random).to(dtype)
    x = torch.randn(rows, heads * (width + more), generator=random)
    with running(isa):
        packed = PackedHeads(weight)
        actual = packed(x)
        by_head = x.double().view(rows, heads, -1)[..., :width]
        assert error(actual, torch.einsum("thi,hoi->tho", by_head, weight.double()).reshape(rows, -1)) < 1e-5
        assert same_bits(torch.cat([packed(row) for row in x.split(1)]), actual)


@each_isa
@given(rows=st.integers(1, 9), size=st.integers(2, 300), seed=st.integers(0, 2**31))
@some
def test_layer_norm(isa: str, rows: int, size: int, seed: int) -> None:
    random = generator(seed)
    x = 3 * torch.randn(rows, size + 1, generator=random)[:, 1:] + 1
    weight, bias = torch.randn(size, generator=random), torch.randn(size, generator=random)
    with running(isa):
        actual = layer_norm(x, weight, bias, 1e-6)
    expected = torch.nn.functional.layer_norm(x.double(), (size,), weight.double(), bias.double(), 1e-6)
    assert error(actual, expected) < 5e-6


def test_what_does_not_fit_is_refused() -> None:
    spans = Spans([2], [0], pages=[[torch.zeros(640)]])
    q, row = torch.zeros(2, 12), torch.zeros(2, 6)
    with pytest.raises(ValueError, match="do not fit into a page"):
        latent_attention(q, row, row, row[:, :3], spans, 100, heads=2, scale=1.0)
    with pytest.raises(ValueError, match="no 2 heads of at least 4"):
        latent_attention(q, row, row, row[:, :4], spans, 0, heads=2, scale=1.0)
    with pytest.raises(ValueError, match=r"chosen must be .*int32"):
        latent_attention(q, row, row, row[:, :3], spans, 0, heads=2, scale=1.0, chosen=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        index_rows(q, row, row[:, :2], spans, 0, heads=2, top_k=0)
    with pytest.raises(ValueError, match="weights must have 2 columns"):
        index_rows(q, row, row, spans, 0, heads=2, top_k=1)
    with pytest.raises(ValueError, match="no 3 heads of at least 5"):
        PackedHeads(torch.zeros(3, 4, 5))(q)
