"""Real photographs through both families' processors, towers and models, against transformers'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ramet.models.decoder import Decoder
from ramet.models.image_files import read_image
from ramet.models.images import Pixels, QwenImages
from ramet.models.images_kimi import KimiImages
from ramet.models.pictures import Picture
from ramet.models.random import write_random_checkpoint
from tests.pictures import pan, photographs
from tests.sight_support import PAD, kimis_function, kimis_oracle, loaded, oracle, prompt, run

PATCHES = 2400
"""Of the largest picture here."""


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, QwenImages, Any]:
    """Our model, its processor and transformers' model."""
    folder = write_random_checkpoint(tmp_path_factory.mktemp("qwen"), seed=5, preset="tiny-sight")
    model = loaded(folder)
    assert model.visual is not None
    images = model.visual.images(folder)
    assert isinstance(images, QwenImages)
    return model, replace(images, most=PATCHES * images.patch**2, video_most=PATCHES * images.patch**2), oracle(folder)


@pytest.fixture(scope="module")
def kimi(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, KimiImages, Any]:
    folder: Path = write_random_checkpoint(tmp_path_factory.mktemp("kimi"), seed=5, preset="tiny-kimi-sight")
    model = loaded(folder)
    assert model.visual is not None
    images = model.visual.images(folder)
    assert isinstance(images, KimiImages)
    wide = replace(images, most=PATCHES, video_most=PATCHES // 4, side=PATCHES)
    return model, wide, kimis_oracle(folder, tmp_path_factory.mktemp("kimi-oracle") / "model")


def test_qwens_processor_gives_the_published_numbers() -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    pil = pytest.importorskip("PIL.Image")
    bounds = {"shortest_edge": 65536, "longest_edge": 400_000}
    same = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    theirs = module.Qwen2VLImageProcessorPil(patch_size=16, temporal_patch_size=2, merge_size=2, size=bounds, **same)
    ours = QwenImages(16, 2, 2, *bounds.values())
    for name, data in photographs().items():
        pixels = read_image(data)
        picture = ours.image(pixels)
        expected = theirs(pil.fromarray(pixels), return_tensors="pt")
        assert picture.grid == tuple(expected.image_grid_thw[0].tolist()), name
        assert torch.equal(ours.patches(picture, 16, 2), expected.pixel_values), name


def _kimis(pixels: Pixels, most: int) -> tuple[Tensor, tuple[int, ...]]:
    """Patches as transformers' processor has them, resized by torch's own antialiased bicubic as torchvision does."""
    (height, width), (tall, wide) = kimis_function("navit_resize")(*pixels.shape[:2], 14, 2, most, 512)
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    smaller = interpolate(image, (height, width), mode="bicubic", antialias=True)
    black = torch.zeros(1, 3, tall, wide)
    black[..., :height, :width] = smaller
    patches, *grid = kimis_function("patchify")(None, (black / 255 - 0.5) / 0.5, 14)
    return patches[0].flatten(1), (1, *grid)


@pytest.mark.parametrize("most", [16384, 500])
def test_kimis_processor_against_another_resizing(most: int) -> None:
    """torch rounds its bicubic weights otherwise than Pillow: a level of grey here and there."""
    images = KimiImages(14, 2, 4, most)
    for name, data in photographs().items():
        pixels = read_image(data)
        picture = images.image(pixels)
        expected, grid = _kimis(pixels, most)
        assert picture.grid == grid, name
        levels = (images.patches(picture, 14) - expected).abs() * 127.5
        assert levels.max() < 1.01 and (levels > 0.01).float().mean() < 0.01, name
        resized = most == 500 and pixels.shape[0] * pixels.shape[1] > 500 * 14 * 14
        assert bool((levels > 0.01).any()) == resized, name


def _shown(images: QwenImages | KimiImages) -> dict[str, Picture]:
    return {name: images.image(read_image(data)) for name, data in photographs().items()}


def test_qwens_rows_and_logits(qwen: tuple[Decoder, QwenImages, Any]) -> None:
    model, images, theirs = qwen
    assert model.visual is not None
    shown = _shown(images)
    for name, picture in shown.items():
        with torch.no_grad():
            patches, grid = images.patches(picture, images.patch, images.merge), torch.tensor([picture.grid])
            expected = theirs.model.get_image_features(patches, grid).pooler_output[0]
        assert (model.visual.encode(picture) - expected).abs().max() < 1e-5, name
    some = [shown[name] for name in ("jpeg", "jpeg-grey", "png-alpha", "jpeg-small")]
    tokens, placed = prompt(some)
    ids = torch.tensor([tokens])
    types = (ids == PAD).int()
    ids[ids == PAD] = theirs.config.image_token_id
    given = {
        "pixel_values": torch.cat([images.patches(picture, images.patch, images.merge) for picture in some]),
        "image_grid_thw": torch.tensor([picture.grid for picture in some]),
        "mm_token_type_ids": types,
    }
    with torch.no_grad():
        expected = theirs(input_ids=ids, **given).logits[0]
    assert (run(model, tokens, placed, lambda at: 500) - expected).abs().max() < 1e-4


def _kimis_rows(theirs: Any, images: KimiImages, picture: Picture) -> Tensor:
    """For several frames transformers' own splitting by pictures miscounts: its tower and projector are asked."""
    patches = images.patches(picture, images.patch).view(-1, 3, images.patch, images.patch)
    with torch.no_grad():
        rows = theirs.model.vision_tower(patches, grid_thw=torch.tensor([picture.grid])).pooler_output
        found: Tensor = theirs.model.mm_projector(rows).squeeze(1)
    return found


def _kimis_logits(theirs: Any, images: KimiImages, tokens: list[int], shown: list[Picture]) -> Tensor:
    ids = torch.tensor([tokens])
    with torch.no_grad():
        embedded = theirs.get_input_embeddings()(ids)
        embedded[ids == PAD] = torch.cat([_kimis_rows(theirs, images, picture) for picture in shown])
        logits: Tensor = theirs.lm_head(theirs.model.language_model(inputs_embeds=embedded).last_hidden_state)[0]
    return logits


def test_kimis_rows_and_logits(kimi: tuple[Decoder, KimiImages, Any]) -> None:
    model, images, theirs = kimi
    assert model.visual is not None
    shown = _shown(images)
    for name, picture in shown.items():
        expected = _kimis_rows(theirs, images, picture)
        assert (model.visual.encode(picture) - expected).abs().max() < 1e-5, name
    some = [shown[name] for name in ("jpeg", "jpeg-grey", "png-alpha", "jpeg-small")]
    tokens, placed = prompt(some)
    expected = _kimis_logits(theirs, images, tokens, some)
    assert (run(model, tokens, placed, lambda at: 500) - expected).abs().max() < 1e-4


def test_qwens_film(qwen: tuple[Decoder, QwenImages, Any]) -> None:
    model, images, theirs = qwen
    shown = [part.picture for part in images.video([np.asarray(frame) for frame in pan(6)], 3.0)]
    tokens, placed = prompt(shown)
    ids = torch.tensor([tokens])
    types = 2 * (ids == PAD).int()
    ids[ids == PAD] = theirs.config.video_token_id
    patches = torch.cat([images.patches(picture, images.patch, images.merge) for picture in shown])
    grid = torch.tensor([(len(shown), *shown[0].grid[1:])])
    with torch.no_grad():
        told = {"pixel_values_videos": patches, "video_grid_thw": grid, "mm_token_type_ids": types}
        expected = theirs(input_ids=ids, **told).logits[0]
    assert (run(model, tokens, placed, lambda at: 300) - expected).abs().max() < 1e-4


def test_kimis_film(kimi: tuple[Decoder, KimiImages, Any]) -> None:
    model, images, theirs = kimi
    shown = [part.picture for part in images.video([np.asarray(frame) for frame in pan(6)], 3.0)]
    assert [picture.grid[0] for picture in shown] == [4, 2]
    tokens, placed = prompt(shown)
    expected = _kimis_logits(theirs, images, tokens, shown)
    assert (run(model, tokens, placed, lambda at: 300) - expected).abs().max() < 1e-4
