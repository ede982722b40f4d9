"""Choosing the instruction set and the threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from ramet import kernels
from tests.kernels_support import generator, running, same_bits

ASK = "from ramet import _ramet; print(_ramet.isa())"


def ask(isa: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAMET_ISA": isa}
    return subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("isa", kernels.available_isas())
def test_the_environment_chooses_the_instruction_set(isa: str) -> None:
    assert ask(isa).stdout.strip() == isa


def test_an_unknown_instruction_set_is_named_with_those_there_are() -> None:
    assert "'sse'; it runs" in ask("sse").stderr
    with pytest.raises(ValueError, match=r"cannot run the instruction set 'sse'; it runs .*portable"):
        kernels.set_isa("sse")


def test_the_build_id_names_what_decides_the_bits() -> None:
    ids = set()
    for isa in kernels.available_isas():
        with running(isa):
            assert kernels.build_id().endswith(f"/{isa}")
            ids.add(kernels.build_id())
    assert len(ids) == len(kernels.available_isas())


def test_threads_are_counted_from_one() -> None:
    with running(kernels.isa(), 3):
        assert kernels.threads() == 3
        with pytest.raises(ValueError, match="at least 1"):
            kernels.set_threads(0)
        assert kernels.threads() == 3


def test_callers_on_several_threads_get_the_bits_of_one() -> None:
    random = generator(1)
    linears = [kernels.PackedLinear(torch.randn(256, 400 + i, generator=random)) for i in range(4)]
    xs = [torch.randn(60, 400 + i, generator=random) for i in range(4)]
    expected = [linear(x) for linear, x in zip(linears, xs, strict=True)]
    results: list[list[bool]] = [[] for _ in linears]

    def call(i: int) -> None:
        for _ in range(20):
            results[i].append(same_bits(linears[i](xs[i]), expected[i]))

    with running(kernels.isa(), 3):
        callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert results == [[True] * 20] * 4


def test_results_are_float32_whatever_torch_makes_by_default() -> None:
    x, weight = torch.randn(2, 6), torch.randn(5, 6)
    linear, expected = kernels.PackedLinear(weight), kernels.PackedLinear(weight)(x)
    plain = kernels.CodedMatrix.plain
    coded, heads = kernels.CodedLinear(plain(weight)), kernels.CodedHeads(plain(weight), 1, 0, 5)
    experts = kernels.CodedExperts([(plain(weight), plain(weight))], [plain(weight.t().contiguous())])
    chosen, weights = torch.zeros(2, 1, dtype=torch.int32), torch.ones(2, 1)
    summed = experts(x, chosen, weights)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert same_bits(linear(x), expected)
        assert same_bits(coded(x), expected) and same_bits(heads(x), expected)
        assert same_bits(experts(x, chosen, weights), summed)
        assert kernels.swiglu(x).dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
