"""How long a vision tower takes for a picture, and transformers with the same weights, float32, as many threads.

The towers are random and have the published width; a layer costs the same as any other, so a few stand for the 27.
Ours is timed from the resized pixels, the peer from patches that are cut already. They take turns; the best of each is
reported.

    python benchmarks/sight.py
    python benchmarks/sight.py --layers 27 --threads 1
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ramet import kernels, models
from ramet.models.decoder import Decoder
from ramet.models.images import QwenImages
from ramet.models.images_kimi import KimiImages
from ramet.models.pictures import Picture
from ramet.models.random import write_random_checkpoint
from report import Figure, report

SIZES = ((224, 224), (512, 512), (1024, 768))
WIDTH, HEADS = 1152, 16

Side = Callable[[], Tensor]


def qwen(folder: Path, layers: int) -> Callable[[Picture], tuple[Side, Side]]:
    """Both sides of Qwen3.5's tower."""
    sizes = {"depth": layers, "hidden_size": WIDTH, "intermediate_size": 4304, "num_heads": HEADS}
    rest = {"out_hidden_size": 32, "num_position_embeddings": 2304, "patch_size": 16}
    write_random_checkpoint(folder, seed=1, preset="tiny-sight", vision=sizes | rest)
    ours, theirs = tower(folder), peer(folder).model

    def sides(picture: Picture) -> tuple[Side, Side]:
        patches, grid = QwenImages.patches(picture, 16, 2), torch.tensor([picture.grid])
        return lambda: ours.encode(picture), lambda: theirs.get_image_features(patches, grid).pooler_output[0]

    return sides


def kimi(folder: Path, layers: int) -> Callable[[Picture], tuple[Side, Side]]:
    """Both sides of Kimi K2.5's tower and projector."""
    sizes = {"vt_num_hidden_layers": layers, "vt_hidden_size": WIDTH, "vt_num_attention_heads": HEADS}
    rest = {"patch_size": 14, "vt_intermediate_size": 4304, "text_hidden_size": 32}
    write_random_checkpoint(folder, seed=1, preset="tiny-kimi-sight", vision=sizes | rest)
    ours = tower(folder)
    config = json.loads((folder / "config.json").read_text())
    words = {"merge_kernel_size": [2, 2], "patch_size": 14, "hidden_size": WIDTH, "intermediate_size": 4304}
    words |= {"num_hidden_layers": layers, "num_attention_heads": HEADS}
    config |= {"vision_config": words, "projection_hidden_size": WIDTH}
    (folder / "config.json").write_text(json.dumps(config))  # in transformers' words
    theirs = peer(folder).model

    def sides(picture: Picture) -> tuple[Side, Side]:
        patches, grid = KimiImages.patches(picture, 14).view(-1, 3, 14, 14), torch.tensor([picture.grid])

        def run() -> Tensor:
            rows: Tensor = theirs.mm_projector(theirs.vision_tower(patches, grid_thw=grid).pooler_output)
            return rows.squeeze(1)

        return lambda: ours.encode(picture), run

    return sides


def tower(folder: Path) -> Any:
    model = models.load(folder)
    assert isinstance(model, Decoder) and model.visual is not None
    return model.visual


def peer(folder: Path) -> Any:
    import transformers

    told = {"dtype": torch.float32, "experts_implementation": "eager"}
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, **told).eval()


def seconds(side: Side) -> tuple[float, Tensor]:
    start = time.perf_counter()
    rows = side()
    return time.perf_counter() - start, rows


@torch.no_grad()
def compare(name: str, sides: tuple[Side, Side], repeats: int) -> Figure:
    ours, theirs = [], []
    far = 0.0
    for _ in range(repeats):
        took, rows = seconds(sides[0])
        ours.append(took)
        took, expected = seconds(sides[1])
        theirs.append(took)
        far = float((rows - expected).abs().max())
    best, other = min(ours), min(theirs)
    note = f"{best / other:.2f} of the peer's time; rows at most {far:.1g} apart"
    return Figure(name, best, "s", "at most the peer's", f"transformers: {other:.3g} s", note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kernels.set_threads(options.threads)
    dice = np.random.default_rng(0)
    figures = []
    for name, build, images in (
        ("Qwen3.5", qwen, QwenImages(16, 2, 2, 1)),
        ("Kimi K2.5", kimi, KimiImages(14, 2, 4)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            sides = build(Path(folder), options.layers)
            for width, height in SIZES:
                picture = images.image(dice.integers(0, 256, (height, width, 3), dtype=np.uint8))
                figures.append(compare(f"{name}, {width} x {height}", sides(picture), options.repeats))
    report(f"Vision towers, {options.layers} layers, {options.threads} threads, float32", figures, options.json)


if __name__ == "__main__":
    main()
