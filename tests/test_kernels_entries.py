"""Compressed entries: pooled, chosen and attended to, against torch in float64, and however the session is cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ramet import kernels
from ramet.kernels import PAGE_TOKENS, Spans, reference_entries
from tests.kernels_support import cuts, each_isa, error, generator, running, same_bits, some

ROTARY, EPS, WINDOW, TOP_K = 6, 1e-6, 21, 5


class Case:
    """One layer of random inputs over one session: a compressor, an indexer's compressor, queries."""

    def __init__(self, length: int, ratio: int, series: int, size: int, heads: int, seed: int) -> None:
        draw = generator(seed)
        self.length, self.ratio, self.series, self.size, self.heads = length, ratio, series, size, heads

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw)

        self.pooled = normal(length, 2 * series * size)  # [kv | gate], as a fused projection would be
        self.bias, self.norm = normal(ratio, series * size), 1 + 0.2 * normal(size)
        self.q, self.kv, self.sinks = normal(length, heads * size), normal(length, size), normal(heads)
        self.weights = normal(length, heads)
        self.inv_freq = 100.0 ** -torch.arange(0, ROTARY, 2).float().div(ROTARY)
        self.slots = max(PAGE_TOKENS // ratio, 1)

    def run(self, pieces: Sequence[int], dtype: torch.dtype, *, sparse: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Entries, choices, outputs and the state at the end, the session cut into `pieces`."""
        offset, window = 16, 3 * self.series * self.size + 16  # neither state is the first of its buffer
        pages = [torch.full((offset + self.slots * self.size,), torch.nan, dtype=dtype)
                 for _ in range(-(-self.length // PAGE_TOKENS))]  # fmt: skip
        state = torch.zeros(window + WINDOW * self.size)
        out, choices = [], []
        for begin, end in cuts(self.length, pieces):
            spans = Spans([end - begin], [begin], pages=[pages], states=[state])
            table = kernels.rope_table(torch.arange(begin, end) // self.ratio * self.ratio, self.inv_freq)
            kv, gate = self.pooled[begin:end].chunk(2, dim=1)
            kernels.compress(kv, gate, self.bias, self.norm, EPS, table, spans, 16, offset)
            chosen = kernels.select_entries(
                self.q[begin:end], self.weights[begin:end], spans, offset, ratio=self.ratio, top_k=TOP_K, scale=0.3
            )
            choices.append(chosen)
            out.append(
                kernels.entry_attention(
                    self.q[begin:end],
                    self.kv[begin:end],
                    self.sinks,
                    spans,
                    window,
                    window=WINDOW,
                    scale=self.size**-0.5,
                    entry_offset=offset,
                    ratio=self.ratio,
                    chosen=chosen if sparse else None,
                )
            )
        last = [(entry + 1) * self.ratio - 1 for entry in range(self.length // self.ratio)]
        entries = [
            pages[at // PAGE_TOKENS][offset:].view(self.slots, self.size)[entry % self.slots]
            for entry, at in enumerate(last)
        ]
        found = torch.stack(entries).float() if entries else torch.empty(0, self.size)
        return found, torch.cat(choices), torch.cat(out), state

    def entries(self) -> Tensor:
        """In float64, `[length // ratio, size]`."""
        kv, gate = self.pooled.double().chunk(2, dim=1)
        firsts = torch.arange(self.length // self.ratio) * self.ratio
        angles = firsts.unsqueeze(1) * self.inv_freq.double()
        table = torch.cat([angles.cos(), angles.sin()], dim=1)
        return reference_entries.compress(kv, gate, self.bias.double(), self.norm.double(), EPS, table)

    def choices(self, entries: Tensor) -> Tensor:
        """bool `[length, entries]`."""
        q = self.q.view(self.length, self.heads, self.size).to(entries.dtype)
        return reference_entries.select_entries(
            q, self.weights.to(entries.dtype), entries, ratio=self.ratio, top_k=TOP_K, scale=0.3
        )

    def attended(self, entries: Tensor, chosen: Tensor | None) -> Tensor:
        """In float64, `[length, heads * size]`."""
        return reference_entries.entry_attention(
            self.q.double().view(self.length, self.heads, self.size), self.kv.double(), self.sinks.double(),
            window=WINDOW, scale=self.size**-0.5, entries=entries, ratio=self.ratio, chosen=chosen,
        ).flatten(1)  # fmt: skip


def as_mask(chosen: Tensor, entries: int) -> Tensor:
    """int32 `[T, top_k]` with -1 for none -> bool `[T, entries]`."""
    mask = torch.zeros(len(chosen), entries + 1, dtype=torch.bool)
    return mask.scatter(1, torch.where(chosen < 0, entries, chosen).long(), value=True)[:, :entries]


SHAPES = [(4, 2, 24, 3), (64, 1, 40, 5), (128, 1, 8, 1), (1, 2, 16, 33), (16, 1, 20, 8)]  # ratio, series, size, heads


@each_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("ratio", "series", "size", "heads"), SHAPES)
def test_entries_choices_and_attention_are_the_reference(
    isa: str, ratio: int, series: int, size: int, heads: int, dtype: torch.dtype
) -> None:
    case = Case(300, ratio, series, size, heads, seed=1)
    with running(isa, threads=2):
        entries, chosen, sparse, _ = case.run([300], dtype, sparse=True)
        _, _, dense, _ = case.run([300], dtype, sparse=False)
    assert error(entries, case.entries()) < (1e-5 if dtype is torch.float32 else 5e-3)
    mask = as_mask(chosen, len(entries))
    assert torch.equal(mask, case.choices(entries.double()))  # of the entries as they were rounded
    assert ((chosen[:, 1:] > chosen[:, :-1]) | (chosen[:, 1:] == -1)).all()
    assert error(sparse, case.attended(entries.double(), mask)) < 1e-5
    assert error(dense, case.attended(entries.double(), None)) < 1e-5


@each_isa
@some
@given(
    shape=st.sampled_from(SHAPES),
    length=st.integers(1, 200),
    pieces=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    sparse=st.booleans(),
    half=st.booleans(),
)
def test_any_cut_gives_the_same_bits(
    isa: str, shape: tuple[int, int, int, int], length: int, pieces: list[int], seed: int, sparse: bool, half: bool
) -> None:
    case = Case(length, *shape, seed)
    dtype = torch.bfloat16 if half else torch.float32
    with running(isa):
        whole = case.run([length], dtype, sparse=sparse)
        for ours, theirs in zip(case.run(pieces, dtype, sparse=sparse), whole, strict=True):
            assert torch.equal(ours, theirs)
    with running(isa, threads=3):
        for ours, theirs in zip(case.run(pieces, dtype, sparse=sparse), whole, strict=True):
            assert torch.equal(ours, theirs)


@each_isa
def test_of_equal_scores_the_lowest_entries_are_chosen(isa: str) -> None:
    size, length = 8, 512
    pages = [torch.zeros(16 * size) for _ in range(length // PAGE_TOKENS)]
    for entry in (100, 40, 41):  # all others score zero: with a negative query, -0 after the weight
        pages[entry // 16].view(16, size)[entry % 16, 0] = 1.0
    q = torch.zeros(1, 2 * size)
    q[0, 0] = 1.0
    spans = Spans([1], [length - 1], pages=[pages])
    told = {"ratio": 4, "top_k": 6, "scale": 1.0}
    with running(isa):
        best = kernels.select_entries(q, torch.tensor([[2.0, -1.0]]), spans, 0, **told)
        worst = kernels.select_entries(q, torch.tensor([[-2.0, -1.0]]), spans, 0, **told)
    assert best.tolist() == [[0, 1, 2, 40, 41, 100]]
    assert worst.tolist() == [[0, 1, 2, 3, 4, 5]]


@each_isa
def test_sessions_of_a_batch_do_not_touch_each_other(isa: str) -> None:
    """Each at another position, one of them before its first entry; and the window alone, without any entries."""
    size, heads, draw = 24, 3, generator(5)
    lengths, positions = [3, 1, 40, 7], [0, 67, 90, 300]
    rows = sum(lengths)
    q, kv = torch.randn(rows, heads * size, generator=draw), torch.randn(rows, size, generator=draw)
    pages = [[torch.randn(16 * size, generator=draw) for _ in range(8)] for _ in lengths]
    states = [torch.randn(WINDOW * size, generator=draw) for _ in lengths]
    sinks = torch.randn(heads, generator=draw)

    def attend(sessions: Sequence[int], ratio: int) -> list[Tensor]:
        moved = [states[s].clone() for s in sessions]
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        own = torch.cat([torch.arange(starts[s], starts[s + 1]) for s in sessions])
        spans = Spans([lengths[s] for s in sessions], [positions[s] for s in sessions],
                      pages=[pages[s] for s in sessions], states=moved)  # fmt: skip
        out = kernels.entry_attention(q[own], kv[own], sinks, spans, 0, window=WINDOW, scale=0.2, ratio=ratio)
        return [*out.split([lengths[s] for s in sessions]), *moved]

    with running(isa, threads=2):
        for ratio in (0, 4):
            together = attend([0, 1, 2, 3], ratio)
            for s in range(4):
                alone = attend([s], ratio)
                assert same_bits(together[s], alone[0])
                assert same_bits(together[4 + s], alone[1])


def test_what_does_not_fit_is_refused() -> None:
    case = Case(4, 4, 2, 24, 3, seed=1)
    spans = Spans([4], [0], pages=[[torch.zeros(100)]], states=[torch.zeros(200)])
    kv, gate = case.pooled.chunk(2, dim=1)
    table = kernels.rope_table(torch.zeros(4, dtype=torch.int64), case.inv_freq)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.compress(kv, gate, case.bias, case.norm, EPS, table, spans, 0, 0)
    with pytest.raises(ValueError, match="must divide those of a page"):
        kernels.select_entries(case.q, case.weights, spans, 0, ratio=3, top_k=2, scale=1.0)
    with pytest.raises(ValueError, match="no 5 heads"):
        kernels.select_entries(case.q, torch.zeros(4, 5), spans, 0, ratio=4, top_k=2, scale=1.0)
