"""Matrices in the published quantised formats: one row and many, against the read rate and torch in the same run.

    python benchmarks/quantised.py [--threads N] [--json FILE]

torch multiplies the decoded float32 matrix, the fastest that it offers where it has no kernel for a format. One row is
given in GB/s of the published bytes, many in GFLOP/s.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from kernels import best, limits
from ramet import kernels
from ramet.models.quantise import encode
from ramet.models.quantization import Format, Kind
from report import Figure, report

OUTPUTS, INPUTS, ROWS = 1024, 2048, 64
FORMATS: dict[Kind, tuple[Any, tuple[int, int]]] = {
    Kind.FP8: ("fp8", (128, 128)),
    Kind.FP8_E8M0: ("fp8", (128, 128)),
    Kind.FP4_E8M0: ("fp4", (1, 32)),
    Kind.INT4: ("int4", (1, 32)),
}


def measure(read: float, rate: float) -> list[Figure]:
    """Each format's product with one row and with many."""
    figures = []
    for kind, (coding, block) in FORMATS.items():
        form = Format(kind, block)
        tensors = encode(form, "a.weight", torch.randn(OUTPUTS, INPUTS))
        codes, scales = (tensors[part.name] for part in form.parts("a.weight", (OUTPUTS, INPUTS))[:2])
        matrix = kernels.CodedMatrix(coding, codes, scales, OUTPUTS, INPUTS, block)
        linear, decoded = kernels.CodedLinear(matrix), matrix.rows(0, OUTPUTS)
        for rows in (1, ROWS):
            x = torch.randn(rows, INPUTS)
            size = (codes.nbytes + scales.nbytes if rows == 1 else 2 * rows * OUTPUTS * INPUTS) / 1e9
            ours = size / best(lambda x=x, linear=linear: linear(x))
            theirs = size / best(lambda x=x, decoded=decoded: F.linear(x, decoded))
            limit, unit = (read, "GB/s") if rows == 1 else (rate, "GFLOP/s")
            name = f"linear {INPUTS} -> {OUTPUTS}, {kind.value}, {rows} row{'s' * (rows > 1)}"
            note = f"{ours / limit:.1%} of the {'read rate' if rows == 1 else 'square product'}"
            figures.append(Figure(name, ours, unit, "", f"torch, decoded before {theirs:.2f}", note))
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
        read, rate, figures = limits()
        figures += measure(read, rate)
    report(f"Quantised: {kernels.build_id()}, {arguments.threads} threads", figures, arguments.json)


if __name__ == "__main__":
    main()
