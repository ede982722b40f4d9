"""Compressed sparse attention over long contexts: what a token costs, and how much memory a prefill takes.

    python benchmarks/compressed.py [--lengths 8192,16384,32768] [--json FILE]

DeepSeek V4's proportions in 2 layers of compressed sparse attention, small: a window of 128, the best 512 entries of 4
tokens each. Each length is prefilled in a process of its own, on one thread, 512 tokens a step. The times are processor
time in the last 512 tokens; the memory is what the process took at most beyond what it took with its weights loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ramet import kernels, models
from ramet.models import deepseek_v4
from ramet.models.deepseek_v4_config import ROUTED, SPARSE
from ramet.models.random import write_random_checkpoint
from ramet.models.states import PAGE_TOKENS, Span
from report import Figure, report

STEP = 512
SIZES: dict[str, Any] = {
    "preset": "tiny-deepseek-v4",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "layer_types": (SPARSE, SPARSE),
    "mlp_layer_types": (ROUTED, ROUTED),
    "num_attention_heads": 8,
    "head_dim": 128,
    "qk_rope_head_dim": 16,
    "q_lora_rank": 128,
    "o_groups": 2,
    "o_lora_rank": 128,
    "index_n_heads": 8,
    "index_head_dim": 64,
    "index_topk": 512,
    "sliding_window": 128,
    "max_position_embeddings": 1 << 20,
}


def timed(name: str, spent: dict[str, float]) -> None:
    """Add up the processor time of an op of the model's in `spent[name]`."""
    call: Callable[..., Any] = getattr(kernels, name)

    def timing(*arguments: Any, **named: Any) -> Any:
        begin = time.thread_time()
        result = call(*arguments, **named)
        spent[name] += time.thread_time() - begin
        return result

    setattr(deepseek_v4.kernels, name, timing)


def prefill(length: int) -> dict[str, float]:
    """Microseconds a token by op in the last step, and the bytes that the whole prefill took."""
    torch.set_num_threads(1)
    kernels.set_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = models.load(write_random_checkpoint(folder, seed=0, **SIZES))
    spent = dict.fromkeys(("entry_attention", "select_entries", "compress"), 0.0)
    for name in spent:
        timed(name, spent)
    tokens = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = [model.layout.new_page() for _ in range(length // PAGE_TOKENS)]
    state = model.layout.new_state()
    for position in range(0, length, STEP):
        spent.update(dict.fromkeys(spent, 0.0))
        model.forward([Span(tokens[position : position + STEP], position, pages, state)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {name: 1e6 * seconds / STEP for name, seconds in spent.items()} | {"memory": 1024.0 * (peak - before)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="8192,16384,32768", help="tokens, multiples of 512")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    parser.add_argument("--one", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(prefill(arguments.one)))
        return
    lengths = [int(length) for length in arguments.lengths.split(",")]
    if any(length < STEP or length % STEP for length in lengths):
        parser.error(f"--lengths must be multiples of {STEP}")
    figures = []
    for length in lengths:
        command = [sys.executable, __file__, "--one", str(length)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        memory = found.pop("memory")
        for name, microseconds in found.items():
            figures.append(Figure(f"{name}, token {length}", microseconds, "us/token", "", "", "2 layers"))
        figures.append(Figure(f"memory of a prefill of {length}", memory / 1e6, "MB", "< 1000"))
    report("Compressed sparse attention", figures, arguments.json)


if __name__ == "__main__":
    main()
