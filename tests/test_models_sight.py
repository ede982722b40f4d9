"""Vision towers, their processors and the places of their rows, against transformers' and against themselves."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ramet import models
from ramet.models.image_files import ImageError, read_image
from ramet.models.images import QwenImages
from ramet.models.images_kimi import KimiImages
from ramet.models.loading import load_trainable, save
from ramet.models.pictures import (
    Picture,
    grid_positions,
    session_tokens,
    show,
    vocabulary_tokens,
)
from ramet.models.random import write_random_checkpoint
from tests.models_support import Session
from tests.pictures import drawing, files, film
from tests.sight_support import PAD, kimis_function, kimis_oracle, loaded, oracle, prompt, run


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("qwen"), seed=3, preset="tiny-sight")


@pytest.fixture(scope="module")
def kimi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("kimi"), seed=3, preset="tiny-kimi-sight")


@pytest.fixture(scope="module")
def qwen_oracle(qwen: Path) -> Any:
    return oracle(qwen)


@pytest.fixture(scope="module")
def kimi_oracle(kimi: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return kimis_oracle(kimi, tmp_path_factory.mktemp("kimi-oracle") / "model")


def _upright(data: bytes) -> Image.Image:
    """What the published processors are given: 16 bits of grey by their upper eight; they would cut it to white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert image is not None
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I") else image


# --- processors ---


def test_qwens_processor_gives_the_published_numbers(qwen: Path) -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    theirs = module.Qwen2VLImageProcessorPil.from_pretrained(qwen)
    ours = QwenImages.load(qwen, 8, 2, 2)
    for name, data in files().items():
        picture = ours.image(read_image(data))
        expected = theirs(_upright(data), return_tensors="pt")
        assert picture.grid == tuple(expected.image_grid_thw[0].tolist()), name
        assert torch.equal(ours.patches(picture, 8, 2), expected.pixel_values), name
        assert picture.tokens == ours.patches(picture, 8, 2).shape[0] // 4


@given(st.integers(1, 9000), st.integers(1, 9000))
@settings(deadline=None, max_examples=300)
def test_published_sizes_are_the_published_processors(height: int, width: int) -> None:
    qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    images = QwenImages(16, 2, 2)
    try:
        expected = qwen.smart_resize(height, width, 32, images.least, images.most)
    except ValueError:
        with pytest.raises(ImageError, match="200 times"):
            images.size(height, width)
        return
    assert images.size(height, width) == expected


@given(st.integers(1, 9000), st.integers(1, 9000))
@settings(deadline=None, max_examples=300)
def test_kimis_sizes_are_the_published_processors(height: int, width: int) -> None:
    images = KimiImages(14, 2, 4)
    expected, padded = kimis_function("navit_resize")(height, width, 14, 2, images.most, images.side)
    assert images.size(height, width, images.most) == expected
    assert tuple(side + -side % 28 for side in expected) == padded


def test_kimis_patches_are_the_published_processors() -> None:
    for data in files().values():
        pixels = read_image(data)
        (height, width), (tall, wide) = kimis_function("navit_resize")(*pixels.shape[:2], 4, 2, 500, 40)
        smaller = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        values = torch.zeros(1, 3, tall, wide)  # black
        values[0, :, :height, :width] = torch.from_numpy(np.array(smaller)).permute(2, 0, 1)
        expected, *grid = kimis_function("patchify")(None, (values / 255 - 0.5) / 0.5, 4)
        picture = KimiImages(4, 2, 4, 500, 500, 40).image(pixels)
        assert picture.grid == (1, *grid)
        assert (KimiImages.patches(picture, 4) - expected[0].flatten(1)).abs().max() < 1e-6


@given(st.integers(1, 40), st.integers(1, 2000), st.integers(1, 2000))
@settings(deadline=None, max_examples=200)
def test_a_films_size_is_the_published_processors(frames: int, height: int, width: int) -> None:
    theirs = pytest.importorskip("transformers.models.qwen3_vl.video_processing_qwen3_vl")
    images = QwenImages(16, 2, 2)
    long = max(frames, 2)
    try:
        expected = theirs.smart_resize(long, height, width, 2, 32, images.video_least, images.video_most)
    except ValueError:
        return
    assert images._video_size(frames, height, width) == expected


# --- towers ---


def _pictures(images: QwenImages | KimiImages) -> list[Picture]:
    shown = [images.image(read_image(data)) for data in files().values()]
    frames = [np.asarray(frame) for frame in film(7)]
    return shown + [part.picture for part in images.video(frames, 2.0)]


def test_qwens_tower_against_transformers(qwen: Path, qwen_oracle: Any) -> None:
    tower = loaded(qwen).visual
    assert tower is not None
    images = tower.images(qwen)
    assert isinstance(images, QwenImages)
    for picture in _pictures(images):
        with torch.no_grad():
            patches, grid = images.patches(picture, 8, 2), torch.tensor([picture.grid])
            expected = qwen_oracle.model.get_image_features(patches, grid).pooler_output[0]
        got = tower.encode(picture)
        assert got.shape == (picture.tokens, 32) and (got - expected).abs().max() < 1e-5


def test_kimis_tower_against_transformers(kimi: Path, kimi_oracle: Any) -> None:
    """For several frames transformers' own splitting by pictures miscounts: its tower and projector are asked."""
    tower = loaded(kimi).visual
    assert tower is not None
    images = tower.images(kimi)
    assert isinstance(images, KimiImages)
    model = kimi_oracle.model
    for picture in _pictures(images):
        with torch.no_grad():
            patches = images.patches(picture, 4).view(-1, 3, 4, 4)
            rows = model.vision_tower(patches, grid_thw=torch.tensor([picture.grid])).pooler_output
            expected = model.mm_projector(rows).squeeze(1)
        got = tower.encode(picture)
        assert got.shape == (picture.tokens, 32) and (got - expected).abs().max() < 1e-5


def test_a_pictures_bits_do_not_depend_on_the_number_of_threads(qwen: Path, kimi: Path) -> None:
    before = torch.get_num_threads()
    try:
        for folder in (qwen, kimi):
            tower = loaded(folder).visual
            assert tower is not None
            picture = tower.images(folder).image(np.asarray(drawing(150, 100)))
            torch.set_num_threads(1)
            alone = tower.encode(picture)
            torch.set_num_threads(3)
            assert torch.equal(tower.encode(picture), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("preset", ["tiny-sight", "tiny-kimi-sight"])
def test_bfloat16_weights_give_the_bits_of_their_widening(tmp_path: Path, preset: str) -> None:
    half = write_random_checkpoint(tmp_path / "half", seed=3, preset=preset, dtype=torch.bfloat16)
    save(load_trainable(half), tmp_path / "wide")
    narrow, wide = loaded(half).visual, loaded(tmp_path / "wide").visual
    assert narrow is not None and wide is not None
    picture = narrow.images(half).image(np.asarray(drawing(90, 60)))
    assert torch.equal(narrow.encode(picture), wide.encode(picture))


# --- in a session ---


@pytest.mark.parametrize("family", ["qwen", "kimi"])
def test_logits_against_transformers_and_cut_anywhere(family: str, request: pytest.FixtureRequest) -> None:
    folder, oracle = request.getfixturevalue(family), request.getfixturevalue(f"{family}_oracle")
    model = loaded(folder)
    assert model.visual is not None
    images: Any = model.visual.images(folder)
    pictures = [images.image(np.asarray(drawing(*size))) for size in ((90, 60, 1), (40, 130, 2), (90, 60, 3))]
    tokens, placed = prompt(pictures)
    whole = run(model, tokens, placed, lambda at: len(tokens))
    for size in (1, 7, 33):
        assert torch.equal(run(model, tokens, placed, lambda at, size=size: size), whole)  # type: ignore[misc]
    kind = {"qwen": (8, 2), "kimi": (4,)}[family]
    patches = torch.cat([images.patches(picture, *kind) for picture in pictures])
    given: dict[str, Any] = {
        "input_ids": torch.tensor([tokens]),
        "pixel_values": patches if family == "qwen" else patches.view(-1, 3, 4, 4),
        "image_grid_thw": torch.tensor([picture.grid for picture in pictures]),
    }
    if family == "qwen":
        given["mm_token_type_ids"] = (given["input_ids"] == PAD).int()
        given["input_ids"][given["input_ids"] == PAD] = oracle.config.image_token_id
    with torch.no_grad():
        expected = oracle(**given).logits[0]
    assert (whole - expected).abs().max() < 1e-4
    assert (run(model, tokens, prompt(pictures[::-1])[1], lambda at: 50) - expected).abs().max() > 1e-2


def test_a_film_against_transformers(qwen: Path, qwen_oracle: Any) -> None:
    """Its frames' patches, the times between them, and the logits."""
    module = pytest.importorskip("transformers.models.qwen3_vl.video_processing_qwen3_vl")
    processing = pytest.importorskip("transformers.models.qwen3_vl.processing_qwen3_vl")
    model = loaded(qwen)
    assert model.visual is not None
    images = model.visual.images(qwen)
    assert isinstance(images, QwenImages)
    frames = [np.asarray(frame) for frame in film(5)]
    shown = images.video(frames, 4.0)
    times = processing.Qwen3VLProcessor._calculate_timestamps(None, list(range(5)), 4.0, 2)
    assert [part.text for part in shown] == [f"<{time:.1f} seconds>" for time in times]
    height, width = (8 * side for side in shown[0].picture.grid[1:])
    ready = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
    values = torch.from_numpy(np.stack([np.asarray(each) for each in ready])).permute(0, 3, 1, 2)[None] / 255
    expected, *grid = module.Qwen3VLVideoProcessor.patchify(None, (values - 0.5) / 0.5, 8, 2, 2)
    patches = torch.cat([images.patches(part.picture, 8, 2) for part in shown])
    assert (patches - expected[0]).abs().max() < 1e-6
    tokens, placed = prompt([part.picture for part in shown])
    ids = torch.tensor([tokens])
    types = 2 * (ids == PAD).int()
    ids[ids == PAD] = qwen_oracle.config.video_token_id
    with torch.no_grad():
        told = {"pixel_values_videos": patches, "video_grid_thw": torch.tensor([grid]), "mm_token_type_ids": types}
        logits = qwen_oracle(input_ids=ids, **told).logits[0]
    assert (run(model, tokens, placed, lambda at: 19) - logits).abs().max() < 1e-4


def test_a_session_batched_with_others_has_the_same_bits(qwen: Path) -> None:
    model = loaded(qwen)
    assert model.visual is not None
    images = model.visual.images(qwen)
    one, two = ([images.image(np.asarray(drawing(90, 60, seed)))] for seed in (1, 2))
    prompts = [prompt(one), prompt(two), (list(range(40)), []), prompt(two + one)]
    sessions = [Session(model) for _ in prompts]
    spans = [
        show(session.span(torch.tensor(tokens)), tokens, placed, model.visual, model.visual.encode)
        for session, (tokens, placed) in zip(sessions, prompts, strict=True)
    ]
    spans[2].positions = None
    together = model.forward(spans)
    start = 0
    for tokens, placed in prompts:
        alone = run(model, tokens, placed, lambda at: 11)
        assert torch.equal(together[start : start + len(tokens)], alone)
        start += len(tokens)


def test_positions_are_the_published_ones(qwen: Path, qwen_oracle: Any) -> None:
    images = QwenImages.load(qwen, 8, 2, 2)
    pictures = [images.image(np.asarray(drawing(*size))) for size in ((90, 60), (20, 130), (64, 64))]
    tokens, placed = prompt(pictures)
    ids = torch.tensor([tokens])
    types = (ids == PAD).int()
    grids = torch.tensor([picture.grid for picture in pictures])
    expected = qwen_oracle.model.get_rope_index(ids, types, image_grid_thw=grids)[0][:, 0].T
    whole = grid_positions(placed, 0, len(tokens), 2)
    assert whole is not None and torch.equal(whole, expected)
    for start in range(0, len(tokens), 3):
        part = grid_positions(placed, start, 17, 2)
        if part is not None:  # behind the prompt it goes on
            count = min(17, len(tokens) - start)
            assert torch.equal(part[:count], whole[start : start + count])
            assert (part[count:].diff(dim=0) == 1).all()
        else:
            assert torch.equal(whole[start : start + 17], torch.arange(start, start + 17)[:, None].expand(-1, 3))


def test_a_sessions_tokens_name_its_pictures(qwen: Path) -> None:
    images = QwenImages.load(qwen, 8, 2, 2)
    one, other = (images.image(np.asarray(drawing(90, 60, seed))) for seed in (1, 2))
    again = images.image(np.asarray(drawing(90, 60, 1)))
    assert one.digest == again.digest != other.digest
    tokens, placed = prompt([one, other])
    named = session_tokens(tokens, placed)
    assert np.array_equal(named, session_tokens(tokens, prompt([again, other])[1]))
    assert (named != session_tokens(tokens, prompt([other, one])[1])).sum() == 2 * (1 + one.tokens)
    assert (named < 0).sum() == 2 * (1 + one.tokens) and named.dtype == np.int32
    # found again among those of a longer prompt, at other places
    longer, there = prompt([other, again], between=9)
    back = vocabulary_tokens(named, longer, there)
    assert back is not None
    assert [each.position for each in back[1]] == [each.position for each in placed]
    assert [token for token in back[0] if token == PAD] == [PAD] * (one.tokens + other.tokens)
    assert vocabulary_tokens(named, longer, there[:1]) is None


# --- files ---


def test_a_copy_for_text_alone_reads_text_only(qwen: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(qwen, folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.visual.")}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors")
    assert loaded(folder).visual is None
    kept["model.visual.merger.norm.bias"] = tensors["model.visual.merger.norm.bias"]
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(models.CheckpointError, match=r"tensor model\.visual\..* is missing"):
        models.load(folder)


@pytest.mark.parametrize("family", ["qwen", "kimi"])
def test_a_tower_is_saved_as_it_was_read(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(family)
    save(load_trainable(folder), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((folder / "config.json").read_text())
    assert loaded(tmp_path).fingerprint == loaded(folder).fingerprint
    save(load_trainable(folder), tmp_path / "text", nested=False)
    if family == "qwen":
        assert loaded(tmp_path / "text").visual is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act: 'relu'"),
        ({"deepstack_visual_indexes": [1]}, "deepstack_visual_indexes"),
        ({"num_position_embeddings": 63}, "63 is no square"),
        ({"out_hidden_size": 33}, "out_hidden_size 33 is not 32"),
        ({"num_heads": 5}, "num_heads"),
        ({"depth": 3}, r"tensor model\.visual\.blocks\.2.* is missing"),
    ],
)
def test_a_tower_that_does_not_fit_is_refused(
    qwen: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(qwen, folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(models.CheckpointError, match=message):
        models.load(folder)


def test_kimis_bounds_are_read_in_both_forms(tmp_path: Path) -> None:
    assert KimiImages.load(tmp_path, 14, 2, 4) == KimiImages(14, 2, 4)
    limits = {"in_patch_limit": 100, "in_patch_limit_each_frame": 50, "patch_limit_on_one_side": 20}
    published = {"media_proc_cfg": {**limits, "patch_size": 14, "merge_kernel_size": 2, "fixed_output_tokens": None}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
    assert KimiImages.load(tmp_path, 14, 2, 4) == KimiImages(14, 2, 4, 100, 50, 20)
    with pytest.raises(models.CheckpointError, match="patch_size: 14"):
        KimiImages.load(tmp_path, 16, 2, 4)
    native = {"max_patches": 100, "size": {"max_height": 20, "max_width": 20}, "merge_size": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(native))
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"max_patches": 50}))
    assert KimiImages.load(tmp_path, 14, 2, 4) == KimiImages(14, 2, 4, 100, 50, 20)


def test_a_processor_that_asks_for_something_else_is_refused(qwen: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(qwen, folder)
    tower = loaded(folder).visual
    assert tower is not None
    for changes, message in (
        ({"image_mean": [0.4, 0.5, 0.5]}, "image_mean"),
        ({"patch_size": 14}, "patch_size: 14"),
        ({"size": {"shortest_edge": 10, "longest_edge": 5}}, "are no bounds"),
        ({"size": [10, 5]}, "size must be an object"),
        ({"image_mean": 0.4}, "image_mean"),
        ({"do_resize": False}, "do_resize"),
    ):
        file = folder / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads((qwen / file.name).read_text()) | changes))
        with pytest.raises(models.CheckpointError, match=message):
            tower.images(folder)
