"""Matrices in the codes of their files: what a product costs, for one row and for many, beside packed bf16 and torch.

    python benchmarks/quantised.py [--threads N] [--json FILE]

One matrix in every coding, decoded as it is multiplied, beside the same numbers decoded before: as a packed bfloat16
matrix (`PackedLinear`), and by torch in float32 and bfloat16. All in one run. Each is read from memory: several copies
take turns. For one row the codes' GB/s are given too, and the rate at which memory is read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import best, limits
from ramet import kernels
from ramet.kernels.coded import CodedMatrix, Coding
from ramet.kernels.reference import decoded
from ramet.models.quantise import encode
from ramet.models.quantization import Format, Kind
from report import Figure, report

OUTPUTS = INPUTS = 2048
COPIES = 8  # 4 MB and more each in the codings of 8 bits and more: cold when their turn comes
ROWS = (1, 4, 64, 512)
FORMATS: dict[Kind, tuple[Coding, tuple[int, int]]] = {
    Kind.FP8: ("fp8", (128, 128)),
    Kind.FP8_E8M0: ("fp8", (128, 128)),
    Kind.FP4_E8M0: ("fp4", (1, 32)),
    Kind.INT4: ("int4", (1, 32)),
}


def matrices(weight: Tensor) -> dict[str, CodedMatrix]:
    """The matrix in every coding."""
    found = {}
    for kind, (coding, block) in FORMATS.items():
        form = Format(kind, block)
        tensors = encode(form, "a.weight", weight)
        codes, scales = (tensors[part.name] for part in form.parts("a.weight", (OUTPUTS, INPUTS))[:2])
        found[kind.value] = CodedMatrix(coding, codes, scales, OUTPUTS, INPUTS, block)
    return found | {
        "bf16 as it lies": CodedMatrix.plain(weight.bfloat16()),
        "f32 as it lies": CodedMatrix.plain(weight),
    }


def copies(matrix: CodedMatrix) -> list[CodedMatrix]:
    scales = matrix.scales
    return [
        CodedMatrix(
            matrix.coding,
            matrix.codes.clone(),
            None if scales is None else scales.clone(),
            OUTPUTS,
            INPUTS,
            matrix.block,
        )
        for _ in range(COPIES)
    ]


def each(rows: int, calls: list[Callable[[], object]]) -> float:
    """Microseconds a call."""
    calls = calls if rows < 64 else calls[:1]  # many rows meet a weight while it is near
    return best(lambda: [call() for call in calls], 0.4) / len(calls) * 1e6


def measure(read: float) -> list[Figure]:
    """Every coding and number of rows."""
    figures = []
    weight = torch.randn(OUTPUTS, INPUTS)
    for name, matrix in matrices(weight).items():
        coded = [kernels.CodedLinear(one) for one in copies(matrix)]
        plain = decoded(matrix)
        packed = [kernels.PackedLinear(plain.bfloat16()) for _ in range(COPIES)]
        floats, halves = [plain.clone() for _ in range(COPIES)], [plain.bfloat16() for _ in range(COPIES)]
        size = (matrix.codes.nbytes + (0 if matrix.scales is None else matrix.scales.nbytes)) / 1e3
        for rows in ROWS:
            x = torch.randn(rows, INPUTS)
            half = x.bfloat16()
            ours = each(rows, [lambda x=x, one=one: one(x) for one in coded])
            beside = {
                "packed bf16": each(rows, [lambda x=x, one=one: one(x) for one in packed]),
                "torch f32": each(rows, [lambda x=x, one=one: F.linear(x, one) for one in floats]),
                "torch bf16": each(rows, [lambda x=half, one=one: F.linear(x, one) for one in halves]),
            }
            figures.append(
                Figure(
                    f"{INPUTS} -> {OUTPUTS}, {name}, {rows} row{'s' * (rows > 1)}",
                    ours,
                    "us",
                    "",
                    ", ".join(f"{peer} {time:.0f}" for peer, time in beside.items()),
                    f"{size / ours:.1f} GB/s of codes, {size / ours / read:.0%} of the read rate" if rows == 1 else "",
                )
            )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads, ours and torch's (default: 1)")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kernels.set_threads(arguments.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        read, _, figures = limits()
        figures = [figures[0], *measure(read)]
    report(f"Quantised: {kernels.build_id()}, {arguments.threads} threads", figures, arguments.json)


if __name__ == "__main__":
    main()
