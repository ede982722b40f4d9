"""The compiled ops at the shapes of a Qwen3.5-0.8B, against what this machine can do and against torch.

    python benchmarks/kernels.py [--threads N] [--json FILE]

The limits are measured in the same run: how fast memory is read, and how many float32 operations a second torch's
square matrix product reaches. Times are the best of several runs; with one thread they are processor time, so that what
else runs on the machine disturbs them least.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch.nn import functional as F

from ramet import kernels
from ramet.kernels import PackedLinear, Spans, reference
from report import Figure, report

HIDDEN, INTERMEDIATE = 1024, 3584
DELTA_HEADS, DELTA_DIM, TAPS = 16, 128, 4
CONV_WIDTH = 3 * DELTA_HEADS * DELTA_DIM
HEADS, KV_HEADS, HEAD_DIM = 8, 2, 256
COPIES = 16  # of a weight, so that each is cold when its turn comes again


def best(call: Callable[[], object], seconds: float = 0.6) -> float:
    """The shortest time of one call, in seconds, over at least 3 calls and about `seconds`."""
    clock = time.thread_time if kernels.threads() == 1 else time.perf_counter
    call()
    shortest, spent, calls = float("inf"), 0.0, 0
    while calls < 3 or spent < seconds:
        begin = clock()
        call()
        elapsed = clock() - begin
        shortest, spent, calls = min(shortest, elapsed), spent + elapsed, calls + 1
    return shortest


def limits() -> tuple[float, float, list[Figure]]:
    """GB/s read from memory and GFLOP/s of arithmetic."""
    a, b = torch.ones(64 << 20), torch.ones(64 << 20)
    size = a.numel() * 4 / 1e9
    read = max(size / best(a.sum), size / best(a.amax), 2 * size / best(lambda: torch.dot(a, b)))
    square = torch.randn(1024, 1024)
    rate = 2 * 1024**3 / best(lambda: square @ square) / 1e9
    return (
        read,
        rate,
        [
            Figure("memory read", read, "GB/s", note="limit: the best of torch's sum, amax and dot over 256 MiB"),
            Figure("float32 product, 1024 square", rate, "GFLOP/s", note="limit: torch"),
        ],
    )


def decode(read: float) -> list[Figure]:
    """One to eight rows times weights that come from memory."""
    figures = []
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        weights = [torch.randn(2 * INTERMEDIATE, HIDDEN).to(dtype) for _ in range(COPIES)]
        packed = [PackedLinear(weight) for weight in weights]
        size = sum(weight.nbytes for weight in weights) / 1e9
        for rows in (1, 4, 8):
            x = torch.randn(rows, HIDDEN)
            like = x.to(dtype)
            ours = size / best(lambda x=x, packed=packed: [linear(x) for linear in packed])
            theirs = size / best(lambda x=like, weights=weights: [F.linear(x, weight) for weight in weights])
            figures.append(
                Figure(
                    f"linear {HIDDEN} -> {2 * INTERMEDIATE}, {name}, {rows} row{'s' * (rows > 1)}",
                    ours,
                    "GB/s",
                    f">= {0.8 * read:.1f}" if rows == 1 else "",
                    f"torch {theirs:.1f}",
                    f"{ours / read:.0%} of the read rate",
                )
            )
    return figures


def prefill(rate: float) -> list[Figure]:
    """Many rows."""
    figures = []
    for inputs, outputs in ((HIDDEN, 2 * INTERMEDIATE), (INTERMEDIATE, HIDDEN)):
        weight = torch.randn(outputs, inputs)
        packed = {"float32": PackedLinear(weight), "bfloat16": PackedLinear(weight.bfloat16())}
        for rows in (32, 512):
            x = torch.randn(rows, inputs)
            work = 2 * rows * inputs * outputs / 1e9
            theirs = work / best(lambda x=x, weight=weight: F.linear(x, weight))
            for name, linear in packed.items():
                ours = work / best(lambda x=x, linear=linear: linear(x))
                figures.append(
                    Figure(
                        f"linear {inputs} -> {outputs}, {name}, {rows} rows",
                        ours,
                        "GFLOP/s",
                        f">= {0.7 * rate:.0f}" if rows == 512 else "",
                        f"torch float32 {theirs:.0f}",
                        f"{ours / rate:.0%} of the square product",
                    )
                )
    return figures


def attend(read: float, rate: float) -> list[Figure]:
    """Decode and prefill over pages; torch gets its keys and values contiguous."""
    figures = []
    block = KV_HEADS * HEAD_DIM * kernels.PAGE_TOKENS
    shapes, dtypes = ((0, 512), (3584, 512), (8191, 1)), ((torch.float32, ""), (torch.bfloat16, ", bfloat16 rows"))
    for (position, rows), (dtype, kept) in product(shapes, dtypes):
        length = position + rows
        pages = [torch.randn(2 * block).to(dtype) for _ in range(-(-length // kernels.PAGE_TOKENS))]
        spans = Spans([rows], [position], pages=[pages])
        q, k, v = (torch.randn(rows, heads * HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
        seconds = best(
            lambda q=q, k=k, v=v, spans=spans: kernels.attention(
                q, k, v, spans, 0, block, heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, scale=HEAD_DIM**-0.5
            )
        )
        queries = torch.randn(1, HEADS, rows, HEAD_DIM)
        keys, values = (torch.randn(1, KV_HEADS, length, HEAD_DIM) for _ in range(2))
        mask = torch.ones(rows, length, dtype=torch.bool).tril(position) if rows > 1 else None
        theirs = best(
            lambda q=queries, k=keys, v=values, mask=mask: F.scaled_dot_product_attention(
                q, k, v, mask, enable_gqa=True
            )
        )
        if rows == 1:
            size = 2 * KV_HEADS * HEAD_DIM * length * dtype.itemsize / 1e9
            figures.append(
                Figure(
                    f"attention, 1 token at {position}{kept}",
                    size / seconds,
                    "GB/s",
                    f">= {0.7 * read:.1f}",
                    f"torch {size / theirs:.1f}",
                    f"{size / seconds / read:.0%} of the read rate",
                )
            )
        else:
            work = 4 * HEADS * HEAD_DIM * (rows * position + rows * (rows + 1) / 2) / 1e9
            figures.append(
                Figure(
                    f"attention, {rows} tokens at {position}{kept}",
                    work / seconds,
                    "GFLOP/s",
                    f">= {0.5 * rate:.0f}",
                    f"torch {work / theirs:.0f}",
                    "counted: what the causal mask leaves",
                )
            )
    return figures


def recurrent() -> list[Figure]:
    """The delta rule and the convolution before it."""
    figures = []
    heads, dim = DELTA_HEADS, DELTA_DIM
    a_log, dt_bias, taps = torch.zeros(heads), torch.zeros(heads), torch.randn(TAPS, CONV_WIDTH)
    for rows in (1, 512):
        qkv, a, b = torch.randn(rows, CONV_WIDTH), torch.randn(rows, heads), torch.randn(rows, heads)
        spans = Spans([rows], [0], states=[torch.zeros(heads * dim * dim)])
        window = Spans([rows], [0], states=[torch.zeros((TAPS - 1) * CONV_WIDTH)])
        delta = best(
            lambda qkv=qkv, a=a, b=b, spans=spans: kernels.delta_rule(
                qkv, a, b, a_log, dt_bias, spans, 0, k_heads=heads, v_heads=heads, k_dim=dim, v_dim=dim
            )
        )
        conv = best(lambda qkv=qkv, window=window: kernels.causal_conv(qkv, taps, window, 0))
        split = [part.view(1, rows, heads, dim) for part in qkv.split(heads * dim, -1)]
        gates = reference.delta_gates(a[None], b[None], a_log, dt_bias)
        rule = reference.delta_rule_recurrent if rows == 1 else reference.delta_rule_chunked
        theirs = best(lambda split=split, gates=gates, rule=rule: rule(*split, *gates))
        their_conv = best(lambda qkv=qkv: reference.causal_conv(qkv[None], taps.T))
        name = f"{rows} token{'s' * (rows > 1)}"
        peer = "torch, token by token" if rows == 1 else "torch, by chunks"
        figures.append(
            Figure(f"delta rule, {name}", 1e6 * delta / rows, "us/token", "", f"{peer} {1e6 * theirs / rows:.1f}")
        )
        figures.append(
            Figure(f"convolution, {name}", 1e6 * conv / rows, "us/token", "", f"torch {1e6 * their_conv / rows:.1f}")
        )
    return figures


def by_row() -> list[Figure]:
    """Norms, gates and experts."""
    figures = []
    for rows in (1, 512):
        x, z, wide = (torch.randn(rows, n) for n in (HIDDEN, DELTA_HEADS * DELTA_DIM, 2 * INTERMEDIATE))
        weight, narrow = torch.randn(HIDDEN), torch.randn(DELTA_DIM)
        groups = z.view(rows, DELTA_HEADS, DELTA_DIM)
        logits = torch.randn(rows, 512)
        calls: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
            (
                "rms norm",
                lambda x=x, weight=weight: kernels.rms_norm(x, weight, 1e-6, zero_centred=True),
                lambda x=x, weight=weight: reference.rms_norm(x, weight, 1e-6, zero_centred=True),
            ),
            (
                "gated rms norm",
                lambda z=z, narrow=narrow: kernels.gated_rms_norm(z, z, narrow, 1e-6),
                lambda groups=groups, narrow=narrow: reference.gated_rms_norm(groups, groups, narrow, 1e-6),
            ),
            ("swiglu", lambda wide=wide: kernels.swiglu(wide), lambda wide=wide: reference.swiglu(wide)),
            (
                "route, 10 of 512",
                lambda logits=logits: kernels.route(logits, 10),
                lambda logits=logits: reference.route(logits, 10),
            ),
        ]
        for name, ours, theirs in calls:
            figures.append(
                Figure(
                    f"{name}, {rows} row{'s' * (rows > 1)}",
                    1e6 * best(ours, 0.2) / rows,
                    "us/row",
                    "",
                    f"torch {1e6 * best(theirs, 0.2) / rows:.2f}",
                )
            )
    return figures


def experts(read: float) -> list[Figure]:
    """A token's 8 of 64 experts."""
    gate_up, down = torch.randn(64, 1024, HIDDEN).bfloat16(), torch.randn(64, HIDDEN, 512).bfloat16()
    packed = kernels.PackedExperts(gate_up, down)
    size = 8 * (gate_up[0].nbytes + down[0].nbytes) / 1e9
    tokens = [(torch.randn(1, HIDDEN), *kernels.route(torch.randn(1, 64), 8)) for _ in range(16)]
    seconds = best(lambda: [packed(*token) for token in tokens]) / len(tokens)
    return [
        Figure(
            "experts, 8 of 64, bfloat16, 1 row",
            size / seconds,
            "GB/s",
            f">= {0.6 * read:.1f}",
            "",
            f"{size / seconds / read:.0%} of the read rate",
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads, ours and torch's (default: all)")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kernels.set_threads(arguments.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        read, rate, figures = limits()
        figures += decode(read) + prefill(rate) + attend(read, rate) + recurrent() + by_row() + experts(read)
    report(f"Kernels: {kernels.build_id()}, {arguments.threads} threads", figures, arguments.json)


if __name__ == "__main__":
    main()
