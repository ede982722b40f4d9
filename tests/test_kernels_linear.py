"""PackedLinear and embed: exact about rows, right about numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from ramet import kernels
from ramet.kernels import PackedLinear
from tests.kernels_support import each_isa, error, generator, running, same_bits, some


def matrices(rows: int, inputs: int, outputs: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    random = generator(seed)
    weight = torch.randn(outputs, inputs, generator=random).to(dtype)
    return torch.randn(rows, inputs, generator=random), weight, torch.randn(rows, outputs, generator=random)


@each_isa
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 80),
    outputs=st.integers(1, 140),
    half=st.booleans(),
    seed=st.integers(0, 2**31),
)
@example(rows=13, inputs=2100, outputs=33, half=False, seed=0)  # more inputs than one pass takes
@example(rows=5, inputs=2100, outputs=97, half=True, seed=0)
@example(rows=40, inputs=1025, outputs=33, half=True, seed=0)
@some
def test_every_row_alone_has_the_bits_it_has_in_company(
    isa: str, rows: int, inputs: int, outputs: int, half: bool, seed: int
) -> None:
    x, weight, add = matrices(rows, inputs, outputs, seed, torch.bfloat16 if half else torch.float32)
    with running(isa):
        linear = PackedLinear(weight)
        plain, added = linear(x), linear(x, add=add)
        assert error(plain, x.double() @ weight.double().T) < 1e-5
        assert error(added, add.double() + x.double() @ weight.double().T) < 1e-5
        for row in range(rows):
            assert same_bits(linear(x[row : row + 1]), plain[row : row + 1])
        middle = slice(rows // 3, rows // 3 + rows // 2 + 1)
        assert same_bits(linear(x[middle], add=add[middle]), added[middle])


@each_isa
def test_every_number_of_rows_gives_the_same_bits(isa: str) -> None:
    x, weight, _ = matrices(410, 129, 200, 1, torch.float32)
    with running(isa):
        linear = PackedLinear(weight)
        whole = linear(x)
        for rows in (*range(1, 61), 191, 192, 193, 400):
            assert same_bits(linear(x[:rows]), whole[:rows])


@each_isa
def test_an_output_does_not_depend_on_its_place_among_the_outputs(isa: str) -> None:
    x, weight, _ = matrices(7, 65, 100, 2, torch.float32)
    with running(isa):
        whole = PackedLinear(weight)(x)
        for output in (0, 1, 15, 31, 32, 63, 96, 99):
            assert same_bits(PackedLinear(weight[output : output + 1])(x), whole[:, output : output + 1])


@each_isa
@pytest.mark.parametrize("rows", [1, 3, 6, 29])
def test_bfloat16_has_the_bits_of_its_widening(isa: str, rows: int) -> None:
    x, weight, _ = matrices(rows, 300, 150, 3, torch.bfloat16)
    with running(isa):
        assert same_bits(PackedLinear(weight)(x), PackedLinear(weight.float())(x))


@each_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_change_a_bit(isa: str, dtype: torch.dtype) -> None:
    x, weight, add = matrices(100, 700, 500, 4, dtype)
    results = []
    for threads in (1, 2, 3, 7):
        with running(isa, threads):
            linear = PackedLinear(weight)
            results.append((linear(x, add=add), linear(x[:1]), linear(x[:14])))
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


@each_isa
def test_column_slices_are_read_in_place(isa: str) -> None:
    x, weight, _ = matrices(9, 40, 50, 5, torch.float32)
    with running(isa):
        linear = PackedLinear(weight[:, 10:30])
        assert same_bits(linear(x[:, 10:30]), linear(x[:, 10:30].contiguous()))
        assert same_bits(linear(x[::2, 10:30]), linear(x[:, 10:30])[::2])


@each_isa
def test_a_number_that_is_none_stays_in_its_row_and_output(isa: str) -> None:
    x, weight, _ = matrices(14, 40, 50, 6, torch.float32)
    with running(isa):
        clean = PackedLinear(weight)(x)
        x[3, 7], weight[20, 5] = torch.nan, torch.inf
        broken = PackedLinear(weight)(x)
    assert broken[3].isnan().all()
    assert not broken[:, 20].isfinite().any()
    keep_rows, keep_outputs = torch.arange(14) != 3, torch.arange(50) != 20
    assert same_bits(broken[keep_rows][:, keep_outputs], clean[keep_rows][:, keep_outputs])


def test_the_weight_may_go_once_it_is_packed() -> None:
    x, weight, _ = matrices(2, 30, 40, 7, torch.float32)
    linear = PackedLinear(weight)
    before = linear(x)
    weight.zero_()
    assert same_bits(linear(x), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_are_the_rows_of_the_weight(dtype: torch.dtype) -> None:
    weight = torch.randn(77, 45, generator=generator(8)).to(dtype)
    tokens = torch.tensor([0, 76, 31, 32, 15, 16, 0])
    assert same_bits(kernels.embed(weight, tokens), weight[tokens].float())
    assert same_bits(PackedLinear(weight).embed(tokens), weight[tokens].float())


def test_no_rows_give_no_rows() -> None:
    linear = PackedLinear(torch.randn(5, 4))
    assert linear(torch.empty(0, 4)).shape == (0, 5)
    assert linear.embed(torch.empty(0, dtype=torch.int64)).shape == (0, 4)


def test_what_does_not_fit_is_refused() -> None:
    linear = PackedLinear(torch.randn(5, 4))
    for wrong in (
        torch.randn(3, 5),
        torch.randn(3, 4).double(),
        torch.randn(4),
        torch.randn(4, 3).T,
        torch.randn(3, 8)[:, ::2],
    ):
        with pytest.raises(ValueError, match="x must"):
            linear(wrong)
    with pytest.raises(ValueError, match="add must have 3 rows"):
        linear(torch.randn(3, 4), add=torch.randn(2, 5))
    with pytest.raises(ValueError, match="weight must"):
        PackedLinear(torch.randn(3, 4).half())
    with pytest.raises(ValueError, match="empty"):
        PackedLinear(torch.randn(3, 0))
    with pytest.raises(ValueError, match="vocabulary"):
        kernels.embed(torch.randn(3, 4), torch.tensor([3]))
    with pytest.raises(ValueError, match="vocabulary"):
        linear.embed(torch.tensor([-1]))
    with pytest.raises(ValueError, match="tokens must"):
        kernels.embed(torch.randn(3, 4), torch.tensor([1], dtype=torch.int32))
