"""Towers' oracles, and sessions that show pictures."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ramet import models
from ramet.models.decoder import Decoder
from ramet.models.pictures import Picture, Placed, show
from tests.models_support import Session

PAD = 7
"""Stands for a picture's rows."""


def oracle(folder: Path) -> Any:
    """transformers' model."""
    transformers = pytest.importorskip("transformers")
    told = {"dtype": torch.float32, "experts_implementation": "eager"}
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, **told).eval()


def kimis_oracle(kimi: Path, folder: Path) -> Any:
    """transformers' model of a Kimi in `folder`, which is made: weights as published, its config in other words."""
    shutil.copytree(kimi, folder)
    config = json.loads((folder / "config.json").read_text())
    vision = config["vision_config"]
    words = {"pos_emb_time": 4, "merge_kernel_size": [2, 2], "patch_size": 4, "pos_emb_height": 6, "pos_emb_width": 6}
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        words[name] = vision[f"vt_{name}"]
    config |= {"vision_config": words, "projection_hidden_size": vision["vt_hidden_size"], "image_token_id": PAD}
    (folder / "config.json").write_text(json.dumps(config))
    return oracle(folder)


def loaded(folder: Path) -> Decoder:
    """Ours."""
    model = models.load(folder)
    assert isinstance(model, Decoder)
    return model


@cache
def kimis_function(name: str) -> Any:
    """A function of transformers' processor, whose module needs more than is installed here."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        pytest.skip("transformers is not installed")
    file = Path(spec.origin).parent / "models/kimi_k25/image_processing_kimi_k25.py"
    found = [node for node in ast.walk(ast.parse(file.read_text())) if getattr(node, "name", None) == name]
    scope: dict[str, Any] = {"math": math, "torch": torch}
    exec(compile(ast.Module(found, []), str(file), "exec"), scope)
    return scope[name]


def prompt(pictures: list[Picture], between: int = 5) -> tuple[list[int], list[Placed]]:
    """Some words, each picture, some words behind it."""
    random = np.random.default_rng(1)
    tokens: list[int] = random.integers(10, 250, between).tolist()
    placed = []
    for picture in pictures:
        placed.append(Placed(len(tokens), picture))
        tokens += [PAD] * picture.tokens + random.integers(10, 250, between).tolist()
    return tokens, placed


def run(model: Decoder, tokens: list[int], placed: list[Placed], cuts: Callable[[int], int]) -> Tensor:
    """The logits of a session that is cut into spans: `cuts` gives the next one's length at a position."""
    assert model.visual is not None
    known: dict[bytes, Tensor] = {}

    def rows(picture: Picture) -> Tensor:
        assert model.visual is not None
        if picture.digest not in known:
            known[picture.digest] = model.visual.encode(picture)
        return known[picture.digest]

    session, out = Session(model), []
    while session.position < len(tokens):
        part = tokens[session.position :][: cuts(session.position)]
        span = session.span(torch.tensor(part))
        out.append(model.forward([show(span, part, placed, model.visual, rows)]))
    return torch.cat(out)
