"""The promise for sessions with pictures: whatever was shared, cut, evicted or brought back, the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ramet import models
from ramet.chat import Tokenizer
from ramet.engine import Completion, Engine, Request, RequestError, Sampling
from ramet.models.base import Model
from ramet.models.pictures import Picture, Placed
from ramet.models.random import write_random_checkpoint
from ramet.tree import Tree
from tests.pictures import drawing

SIZES = ((90, 60), (40, 130), (64, 64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("sight"), seed=3, preset="tiny-sight")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return models.load(folder)


class Bench:
    """An engine over a tree."""

    def __init__(self, model: Model, folder: Path, *, step: int = 512, ram: int = 1 << 26, at: Path | None = None):
        self.tree = Tree(model.layout, model.fingerprint, ram_bytes=ram, directory=at)
        self.engine = Engine(model, self.tree, Tokenizer.load(folder), step_tokens=step)
        self.engine.start()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.stop()
        self.tree.close()


def prompts(model: Model, folder: Path, count: int, seed: int) -> Iterator[Request]:
    """Random prompts that begin alike: words and pictures, some the same at the same place, some not."""
    assert model.visual is not None
    images = model.visual.images(folder)
    shown = [[images.image(np.asarray(drawing(*size, each))) for each in range(2)] for size in SIZES]
    dice = np.random.default_rng(seed)
    mark = Tokenizer.load(folder).token_id("<|image_pad|>")
    assert mark is not None
    for _ in range(count):
        tokens: list[int] = [9] * 40
        placed: list[Placed] = []
        for turn in range(int(dice.integers(1, 4))):
            picture: Picture = shown[turn][int(dice.integers(2))]
            placed.append(Placed(len(tokens), picture))
            tokens += [mark] * picture.tokens + [10 + turn] * int(dice.choice((3, 30)))
        ends = [each.end for each in placed if each.end < len(tokens)]
        sampling = Sampling(temperature=0, max_tokens=5, logprobs=0, ignore_eos=True)
        yield Request(tokens, boundaries=[*ends, len(tokens)], pictures=placed, save_at=[40], sampling=sampling)


def same(ours: Sequence[Completion], theirs: Sequence[Completion]) -> bool:
    return [(each.tokens, each.logprobs) for each in ours] == [(each.tokens, each.logprobs) for each in theirs]


def cold(model: Model, folder: Path, request: Request) -> list[Completion]:
    with Bench(model, folder) as bench:
        return bench.engine.submit(request).result()


def test_the_promise_with_pictures(model: Model, folder: Path, tmp_path: Path) -> None:
    requests = list(prompts(model, folder, 10, seed=1))
    expected = [cold(model, folder, request) for request in requests]
    tight = 6 * (model.layout.state_bytes + model.layout.page_bytes)  # most states are gone when they are asked for
    for options in ({"step": 7}, {"step": 33, "ram": tight}, {"at": tmp_path}, {"at": tmp_path}):
        with Bench(model, folder, **options) as bench:  # type: ignore[arg-type]
            handles = [bench.engine.submit(request) for request in requests]  # together
            assert all(same(handle.result(), want) for handle, want in zip(handles, expected, strict=True))
            reused = 0
            for request, want in zip(requests[::-1], expected[::-1], strict=True):  # one by one, warm
                found = bench.engine.submit(request).result()
                assert same(found, want)
                assert found[0].finish is not None
                reused += found[0].finish.usage.reused
            assert reused > 100 or "ram" in options


def test_guessing_ahead_behind_pictures_changes_nothing(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, seed=3, preset="tiny-sight", ahead=True)
    plain, ahead = models.load(folder), models.load(folder, ahead=True)
    for request in prompts(plain, folder, 3, seed=4):
        longer = Request(**{**vars(request), "sampling": Sampling(temperature=0, max_tokens=20, logprobs=0)})
        with Bench(ahead, folder) as bench:
            assert same(bench.engine.submit(longer).result(), cold(plain, folder, longer))
            assert bench.engine.stats().drafted_tokens > 0


def test_a_state_saved_inside_a_picture_is_gone_on_from(model: Model, folder: Path) -> None:
    request = next(prompts(model, folder, 1, seed=2))
    first = request.pictures[0]
    middle = first.position + first.picture.tokens // 2
    fields = {**vars(request), "save_at": [middle], "boundaries": [len(request.tokens)]}
    with Bench(model, folder) as bench:
        bench.engine.submit(Request(**fields)).result()
        fields["tokens"] = [*request.tokens[: first.end], 77, 78]
        fields["pictures"] = [first]
        other = Request(**{**fields, "boundaries": [first.end + 2]})
        found = bench.engine.submit(other).result()
        assert found[0].finish is not None and found[0].finish.usage.reused >= middle
        assert same(found, cold(model, folder, other))


def test_pictures_that_do_not_fit_the_prompt_are_refused(model: Model, folder: Path) -> None:
    request = next(prompts(model, folder, 1, seed=3))
    picture = request.pictures[0].picture
    length = len(request.tokens)
    with Bench(model, folder) as bench:
        for placed in (
            [Placed(0, picture)],
            [Placed(length - 3, picture)],
            [Placed(20, picture), Placed(20 + picture.tokens, picture)],
            [Placed(60, picture), Placed(5, picture)],
        ):
            with pytest.raises(RequestError, match="pictures must come one after the other"):
                bench.engine.submit(Request(request.tokens, pictures=placed))
