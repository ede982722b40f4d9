"""Sparse attention as a context grows: what a token costs, and the memory that a prefill takes.

    python benchmarks/sparse.py [--lengths 8192,16384,32768] [--heads N] [--threads N] [--json FILE]

A GLM-5 of two layers with random bfloat16 weights: its states as published (latent 512, rotated key 64, index key 128,
top 2048), its widths by the number of heads (64 in a GLM-5; the default is a quarter). Each length is prefilled in
steps of 512 tokens. The attention and the indexer are timed inside that run, apart from each other;
a token's cost is that of the last 2048 tokens of the prompt, beside that of the tokens from 2048 to 4096. With one
thread it is processor time, so that what else runs on the machine disturbs it least.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ramet import kernels
from ramet.models.deepseek_v32 import GlmMoeDsa
from ramet.models.deepseek_v32_config import GlmMoeDsaConfig
from ramet.models.states import PAGE_TOKENS, Span
from report import Figure, report

STEP, TOP_K = 512, 2048
WINDOW = 2048  # tokens over which a token's cost is taken
_LATENT_ATTENTION, _INDEX_ROWS = kernels.latent_attention, kernels.index_rows


def model(heads: int) -> GlmMoeDsa:
    """GLM-5's proportions, two layers, each with its indexer: a dense one, and one with experts."""
    scale = heads / 64
    config = GlmMoeDsaConfig(
        vocab_size=4096,
        hidden_size=int(6144 * scale),
        intermediate_size=int(12288 * scale),
        moe_intermediate_size=int(2048 * scale),
        num_hidden_layers=2,
        num_attention_heads=heads,
        q_lora_rank=int(2048 * scale),
        kv_lora_rank=512,
        qk_nope_head_dim=192,
        qk_rope_head_dim=64,
        v_head_dim=256,
        n_routed_experts=16,
        num_experts_per_tok=8,
        first_k_dense_replace=1,
        routed_scaling_factor=2.5,
        rope_theta=1_000_000.0,
        index_n_heads=max(1, heads // 2),
        index_head_dim=128,
        index_topk=TOP_K,
    )
    fresh = GlmMoeDsa(config).initialise(0).to(torch.bfloat16)
    return fresh.pack()


class Timed:
    """An op, with the seconds that it took in each step."""

    def __init__(self, op: Callable[..., Any]) -> None:
        self.op, self.steps = op, [0.0]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        clock = time.thread_time if kernels.threads() == 1 else time.perf_counter
        begin = clock()
        result = self.op(*args, **kwargs)
        self.steps[-1] += clock() - begin
        return result

    def per_token(self, start: int) -> float:
        """Microseconds per token from position `start` on, for WINDOW tokens, both layers."""
        steps = self.steps[start // STEP : (start + WINDOW) // STEP]
        return 1e6 * sum(steps) / WINDOW


def memory(field: str) -> int:
    """Bytes resident now (`VmRSS`), or at most since the peak was forgotten (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def prefill(network: GlmMoeDsa, length: int, before: int) -> list[Figure]:
    """One prompt: its speed, what a token costs at its end, and the peak of the memory beyond `before` bytes."""
    attention, indexer = Timed(_LATENT_ATTENTION), Timed(_INDEX_ROWS)
    kernels.latent_attention, kernels.index_rows = attention, indexer  # type: ignore[assignment]
    tokens = torch.randint(0, network.vocab_size, (length,), generator=torch.Generator().manual_seed(1))
    pages: list[torch.Tensor] = []
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    begin = time.perf_counter()
    for position in range(0, length, STEP):
        while len(pages) * PAGE_TOKENS < position + STEP:
            pages.append(network.layout.new_page())
        network([Span(tokens[position : position + STEP], position, pages, network.layout.new_state(), 0)])
        attention.steps.append(0.0)
        indexer.steps.append(0.0)
    seconds = time.perf_counter() - begin
    peak = (memory("VmHWM") - before) / 1e6
    first, last, index = attention.per_token(TOP_K), attention.per_token(length - WINDOW), indexer
    at = f"at {length:,} tokens"
    flat = f"<= {1.1 * first:.0f}"
    return [
        Figure(f"prefill of {length:,} tokens", length / seconds, "tokens/s"),
        Figure(f"attention {at}", last, "us/token", flat, "", f"1.1 of the {first:.0f} at {TOP_K + WINDOW:,} tokens"),
        Figure(f"indexer {at}", index.per_token(length - WINDOW), "us/token", note="scores every earlier row"),
        Figure(f"peak memory of {length:,} tokens", peak, "MB", "< 1000", note="beyond the weights, rows included"),
    ]


def decode(network: GlmMoeDsa, length: int) -> list[Figure]:
    """Single tokens behind a context of so many rows, whatever they hold."""
    attention, indexer = Timed(_LATENT_ATTENTION), Timed(_INDEX_ROWS)
    kernels.latent_attention, kernels.index_rows = attention, indexer  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(2)
    size = network.layout.page_elements
    pages = [torch.randn(size, generator=generator).to(torch.bfloat16) for _ in range(length // PAGE_TOKENS + 1)]
    for i in range(8):
        span = Span(torch.tensor([i]), length + i, pages, network.layout.new_state(), 1)
        network([span])
        attention.steps.append(0.0)
        indexer.steps.append(0.0)
    name = f"decode at {length:,} tokens"
    return [
        Figure(f"{name}: {kind}", 1e6 * min(op.steps[:8]), "us/token", note="both layers, best of 8")
        for kind, op in (("attention", attention), ("indexer", indexer))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="8192,16384,32768", help="multiples of 512, from 8192 on")
    parser.add_argument("--heads", type=int, default=16, help="of the attention; all widths follow (default: 16)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all)")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    arguments = parser.parse_args()
    lengths = sorted(int(length) for length in arguments.lengths.split(","))
    if any(length < 8192 or length % STEP for length in lengths):
        parser.error(f"--lengths must be multiples of {STEP}, from 8192 on")
    torch.set_num_threads(arguments.threads)
    kernels.set_threads(arguments.threads)
    network = model(arguments.heads)
    before = memory("VmRSS")
    figures = [figure for length in lengths for figure in prefill(network, length, before)]
    figures += [figure for length in lengths for figure in decode(network, length)]
    title = f"Sparse attention: GLM-5's two layers at {arguments.heads} heads, {arguments.threads} threads"
    report(title, figures, arguments.json)


if __name__ == "__main__":
    main()
