"""Products with coded matrices have the bits of the packed product with the matrix decoded by torch, on every ISA."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from ramet import kernels
from ramet.kernels import CodedMatrix, PackedHeads, PackedLinear
from ramet.kernels.coded import Coding
from ramet.kernels.reference import decoded
from tests.kernels_support import each_isa, generator, running, same_bits, some

CODINGS: tuple[Coding, ...] = ("fp8", "fp4", "int4", "bf16", "f32")
SCALES = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e8m0fnu)
CODES: dict[str, tuple[int, torch.dtype]] = {
    "fp8": (1, torch.float8_e4m3fn),
    "fp4": (2, torch.int8),
    "int4": (8, torch.int32),
}


def at_odd_address(x: Tensor, offset: int) -> Tensor:
    """The same numbers, `offset` bytes behind where they might lie."""
    raw = x.contiguous().view(torch.uint8).numpy().tobytes()
    moved = torch.frombuffer(bytearray(bytes(offset) + raw), dtype=torch.uint8, offset=offset)
    assert (moved.data_ptr() - offset) % 8 == 0
    return moved.view(x.dtype).view(x.shape)


def matrix(
    coding: Coding, outputs: int, inputs: int, *, block: tuple[int, int] = (1, 32), scale: torch.dtype = torch.float32,
    offset: int = 0, seed: int = 0,
) -> CodedMatrix:  # fmt: skip
    """Random codes (no fp8 NaN) and scales."""
    random = generator(seed)
    if coding in ("bf16", "f32"):
        weight = torch.randn(outputs, inputs, generator=random)
        weight = weight.bfloat16() if coding == "bf16" else weight
        return CodedMatrix.plain(at_odd_address(weight, offset))
    each, dtype = CODES[coding]
    raw = torch.randint(0, 256, (outputs, -(-inputs // each) * dtype.itemsize), generator=random, dtype=torch.uint8)
    if coding == "fp8":
        raw[raw & 127 == 127] = 1
    shape = -(-outputs // block[0]), -(-inputs // block[1])
    scales = (torch.randn(shape, generator=random).abs() + 0.01).to(scale)
    codes = at_odd_address(raw.view(dtype), offset)
    return CodedMatrix(coding, codes, at_odd_address(scales, offset), outputs, inputs, block)


def same_products(coded: CodedMatrix, rows: int, seed: int = 0) -> bool:
    random = generator(seed)
    x, add = torch.randn(rows, coded.inputs, generator=random), torch.randn(rows, coded.outputs, generator=random)
    ours, packed = kernels.CodedLinear(coded), PackedLinear(decoded(coded))
    return same_bits(ours(x), packed(x)) and same_bits(ours(x, add=add), packed(x, add=add))


@each_isa
@pytest.mark.parametrize("coding", CODINGS)
@given(
    rows=st.integers(1, 40), outputs=st.integers(1, 140), inputs=st.integers(1, 300), seed=st.integers(0, 2**31),
    block=st.sampled_from([(1, 32), (128, 128), (1, 1), (7, 13), (40, 200)]), scale=st.sampled_from(SCALES),
    offset=st.integers(0, 7),
)  # fmt: skip
@example(rows=1, outputs=300, inputs=1300, seed=0, block=(128, 128), scale=torch.float32, offset=1)
@example(rows=4, outputs=64, inputs=1024, seed=0, block=(1, 32), scale=torch.float8_e8m0fnu, offset=0)
@example(rows=13, outputs=33, inputs=2100, seed=0, block=(1, 32), scale=torch.bfloat16, offset=3)
@some
def test_products_have_the_bits_of_the_decoded_matrix(
    isa: str, coding: Coding, rows: int, outputs: int, inputs: int, seed: int, block: tuple[int, int],
    scale: torch.dtype, offset: int,
) -> None:  # fmt: skip
    coded = matrix(coding, outputs, inputs, block=block, scale=scale, offset=offset, seed=seed)
    with running(isa):
        assert same_products(coded, rows, seed)


@each_isa
@pytest.mark.parametrize("coding", CODINGS)
def test_every_number_of_rows_and_threads_gives_the_same_bits(isa: str, coding: Coding) -> None:
    coded = matrix(coding, 200, 600, block=(128, 128), seed=1)
    x = torch.randn(410, 600, generator=generator(2))
    with running(isa):
        linear = kernels.CodedLinear(coded)
        whole = linear(x)
        for rows in (*range(1, 41), 191, 193, 400):
            assert same_bits(linear(x[:rows]), whole[:rows])
        assert same_bits(linear(x[100:109]), whole[100:109])
    for threads in (2, 3):
        with running(isa, threads):
            assert same_bits(linear(x), whole) and same_bits(linear(x[:1]), whole[:1])


def numbers(x: Tensor) -> Tensor:
    """The bits, one pattern for all that is no number."""
    return torch.where(x.isnan(), torch.full_like(x, torch.nan), x)


@each_isa
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("coding", ["fp8", "fp4", "int4"])
def test_every_code_times_every_scale(isa: str, coding: Coding, rows: int) -> None:
    wild = [0.0, -0.0, -3.0, 255.9, 256.0, 1e30, -3e38, 1e-40, 1e-45, torch.inf, -torch.inf, torch.nan]
    e8m0 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    halves = torch.arange(0, 1 << 16, 77, dtype=torch.int32).to(torch.int16)
    each, dtype = CODES[coding]
    count = 256 if coding == "fp8" else 16
    for scales in (e8m0, torch.tensor(wild), halves.view(torch.bfloat16), halves.view(torch.float16)):
        # An output for each scale and code, which is the first of its row's.
        raw = torch.zeros(len(scales) * count, dtype.itemsize, dtype=torch.uint8)
        raw[:, 0] = torch.arange(count, dtype=torch.uint8).repeat(len(scales))
        codes = raw.view(dtype)
        factors = scales.view(torch.uint8).view(len(scales), -1).repeat_interleave(count, dim=0).view(scales.dtype)
        coded = CodedMatrix(coding, codes, factors, len(codes), each, (1, each))
        expected = decoded(coded)
        x = torch.zeros(rows, each)
        x[:, 0] = 1.0
        with running(isa):
            got = kernels.CodedLinear(coded)(x)
            assert same_bits(numbers(got), numbers(PackedLinear(expected)(x)))
        finite = expected.isfinite().all(dim=1)
        assert finite.sum() > len(codes) // 2 and same_bits(got[0, finite], expected[finite, 0] + 0.0)


@each_isa
def test_a_code_for_no_number_stays_in_its_output(isa: str) -> None:
    coded = matrix("fp8", 70, 300, block=(128, 128), seed=3)
    coded.codes.view(torch.uint8)[40, 290] = 0xFF
    x = torch.randn(3, 300, generator=generator(4))
    with running(isa):
        for rows in (1, 3):
            out, expected = kernels.CodedLinear(coded)(x[:rows]), PackedLinear(decoded(coded))(x[:rows])
            keep = torch.arange(70) != 40
            assert out[:, 40].isnan().all() and same_bits(out[:, keep], expected[:, keep])


@each_isa
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("transposed", [False, True])
def test_heads_have_the_bits_of_packed_ones(isa: str, coding: Coding, transposed: bool) -> None:
    heads, share, first, size, columns = 3, 90, 17, 70, 200  # heads begin inside blocks and panels
    coded = matrix(coding, heads * share, columns, block=(128, 128), offset=1, seed=5)
    weight = decoded(coded).view(heads, share, columns)[:, first : first + size]
    with running(isa, 2):
        ours = kernels.CodedHeads(coded, heads, first, size, transposed=transposed)
        packed = PackedHeads(weight.mT if transposed else weight)
        for rows in (1, 2, 5, 30):
            x = torch.randn(rows, heads * 210, generator=generator(rows))
            assert same_bits(ours(x), packed(x))


@each_isa
@pytest.mark.parametrize("coding", CODINGS)
def test_experts_have_the_bits_of_packed_ones(isa: str, coding: Coding) -> None:
    experts, hidden, inner, top_k = 5, 100, 70, 3
    gate_up = [tuple(matrix(coding, inner, hidden, offset=e, seed=3 * e + part) for part in (0, 1)) for e in range(5)]
    down = [matrix(coding, hidden, inner, seed=3 * e + 2) for e in range(experts)]
    coded = kernels.CodedExperts(cast(Any, gate_up), down)
    packed = kernels.PackedExperts(
        torch.stack([torch.cat([decoded(part) for part in parts]) for parts in gate_up]),
        torch.stack([decoded(each) for each in down]),
    )
    random = generator(6)
    with running(isa, 2):
        for rows in (0, 1, 17, 40):
            x, weights = torch.randn(rows, hidden, generator=random), torch.rand(rows, top_k, generator=random)
            chosen = torch.rand(rows, experts, generator=random).argsort(dim=1)[:, :top_k].int().contiguous()
            out = coded(x, chosen, weights, limit=2.0)
            assert same_bits(out, packed(x, chosen, weights, limit=2.0))
            if rows:
                assert same_bits(coded(x[:1], chosen[:1], weights[:1], limit=2.0), out[:1])
    with pytest.raises(ValueError, match="does not exist"):
        coded(torch.randn(1, hidden), torch.tensor([[0, 5, 1]], dtype=torch.int32), torch.ones(1, 3))


def test_what_does_not_fit_is_refused() -> None:
    codes, scales = torch.zeros(4, 8, dtype=torch.int8), torch.ones(4, 1)
    with pytest.raises(ValueError, match=r"codes must be .*float8_e4m3fn, not torch\.int8"):
        CodedMatrix("fp8", codes, scales, 4, 8, (1, 32))
    with pytest.raises(ValueError, match=r"codes must be a contiguous CPU tensor \[4, 9\]"):
        CodedMatrix("fp4", codes, scales, 4, 17, (1, 32))
    with pytest.raises(ValueError, match=r"scales must be a contiguous CPU tensor \[4, 2\]"):
        CodedMatrix("fp4", codes, scales, 4, 16, (1, 8))
    with pytest.raises(ValueError, match=r"scales must be .*not torch\.float64"):
        CodedMatrix("fp4", codes, scales.double(), 4, 16, (1, 32))
    with pytest.raises(ValueError, match="bf16 has no scales"):
        CodedMatrix("bf16", codes.bfloat16(), scales, 4, 8)
    with pytest.raises(ValueError, match="fp4 has scales"):
        CodedMatrix("fp4", codes, None, 4, 16)
    with pytest.raises(ValueError, match="empty"):
        CodedMatrix("f32", torch.zeros(0, 3), None, 0, 3)
    matrices = matrix("bf16", 6, 8), matrix("bf16", 6, 9)
    with pytest.raises(ValueError, match="different inputs"):
        kernels.CodedLinear(*matrices)
    with pytest.raises(ValueError, match="no 4 heads"):
        kernels.CodedHeads(matrices[0], 4, 0, 1)
    with pytest.raises(ValueError, match="do not fit each other"):
        kernels.CodedExperts([(matrices[0], matrices[0])], [matrices[1]])
    linear = kernels.CodedLinear(matrices[0])
    with pytest.raises(ValueError, match="x must have 8 columns"):
        linear(torch.randn(3, 7))
    with pytest.raises(ValueError, match="add must have 3 rows"):
        linear(torch.randn(3, 8), add=torch.randn(2, 6))
