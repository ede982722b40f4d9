"""From pixels to what a tower is shown: each family resizes, cuts and counts as its published processor does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ramet.models.errors import CheckpointError
from ramet.models.fields import Fields, read_json
from ramet.models.image_files import ImageError
from ramet.models.pictures import Picture

Pixels = NDArray[np.uint8]
"""RGB, `[height, width, 3]`."""


@dataclass(frozen=True)
class Shown:
    """One part of what stands for a picture or a film in a prompt."""

    text: str
    """Before the picture and its mark: in a film, when it is."""
    picture: Picture


class Images(Protocol):
    """A family's processor."""

    @property
    def image_mark(self) -> str:
        """What the chat template writes for a picture: as many of it are given as the picture has rows."""
        ...

    @property
    def video_whole(self) -> tuple[str, str, str]:
        """What the template writes for a film: a mark, and what belongs to it on both sides and is replaced with it."""
        ...

    @property
    def film_part(self) -> tuple[str, str]:
        """Around each of a film's pictures, the time before it."""
        ...

    def image(self, pixels: Pixels) -> Picture:
        """A picture as the tower is shown it. Raises ImageError."""
        ...

    def video(self, frames: Sequence[Pixels], fps: float) -> list[Shown]:
        """A film of frames of one size, `fps` a second. Raises ImageError."""
        ...


@dataclass(frozen=True)
class QwenImages:
    """Qwen's: sides rounded to whole rows of the session, the area kept within bounds, the shape within 1 to 200."""

    patch: int
    merge: int
    temporal: int
    least: int = 65536
    """Pixels of a picture."""
    most: int = 16777216
    video_least: int = 4096
    """Pixels of a film, over all frames."""
    video_most: int = 25165824
    image_mark: str = "<|image_pad|>"
    video_whole: tuple[str, str, str] = ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>")
    film_part: tuple[str, str] = ("<|vision_start|>", "<|vision_end|>")

    @classmethod
    def load(cls, folder: Path, patch: int, merge: int, temporal: int) -> QwenImages:
        """Bounds from `preprocessor_config.json` and `video_preprocessor_config.json`, where they are.

        Raises CheckpointError for what is not computed here.
        """
        images = processor_of(folder / "preprocessor_config.json")
        films = processor_of(folder / "video_preprocessor_config.json")
        for fields in (images, films):
            for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
                fields.must_be(name, True)
            fields.must_be("resample", 3)
            must_be_halves(fields)
            for name, value in (("patch_size", patch), ("merge_size", merge), ("temporal_patch_size", temporal)):
                fields.must_be(name, value)
        least, most = _bounds(images, cls.least, cls.most)
        video_least, video_most = _bounds(films, cls.video_least, cls.video_most)
        return cls(patch, merge, temporal, least, most, video_least, video_most)

    def image(self, pixels: Pixels) -> Picture:
        """See `Images`."""
        height, width = self.size(*pixels.shape[:2])
        return self._picture(np.broadcast_to(resized(pixels, height, width), (self.temporal, height, width, 3)))

    def video(self, frames: Sequence[Pixels], fps: float) -> list[Shown]:
        """See `Images`. Each `temporal` frames are a picture, at the mean of the first and last one's times."""
        height, width = self._video_size(len(frames), *frames[0].shape[:2])
        ready = [resized(frame, height, width) for frame in frames]
        ready += [ready[-1]] * (-len(ready) % self.temporal)
        seconds = [index / fps for index in range(len(frames))]
        seconds += [seconds[-1]] * (len(ready) - len(frames))
        shown = []
        for first in range(0, len(ready), self.temporal):
            last = first + self.temporal
            middle = (seconds[first] + seconds[last - 1]) / 2
            shown.append(Shown(f"<{middle:.1f} seconds>", self._picture(np.stack(ready[first:last]))))
        return shown

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that a picture is resized to."""
        self._check_shape(height, width)
        factor = self.patch * self.merge
        tall, wide = round(height / factor) * factor, round(width / factor) * factor
        if tall * wide > self.most:
            return self._smaller(height, width, math.sqrt(height * width / self.most))
        if tall * wide < self.least:
            return self._larger(height, width, math.sqrt(self.least / (height * width)))
        return tall, wide

    def _video_size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        factor = self.patch * self.merge
        if height < factor or width < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        self._check_shape(height, width)
        tall, wide = round(height / factor) * factor, round(width / factor) * factor
        frames = max(frames, self.temporal)
        long = round(frames / self.temporal) * self.temporal
        if long * tall * wide > self.video_most:
            return self._smaller(height, width, math.sqrt(frames * height * width / self.video_most))
        if long * tall * wide < self.video_least:
            return self._larger(height, width, math.sqrt(self.video_least / (frames * height * width)))
        return tall, wide

    def _smaller(self, height: int, width: int, by: float) -> tuple[int, int]:
        factor = self.patch * self.merge
        tall, wide = (max(factor, math.floor(side / by / factor) * factor) for side in (height, width))
        return tall, wide

    def _larger(self, height: int, width: int, by: float) -> tuple[int, int]:
        factor = self.patch * self.merge
        tall, wide = (math.ceil(side * by / factor) * factor for side in (height, width))
        return tall, wide

    @staticmethod
    def _check_shape(height: int, width: int) -> None:
        if max(height, width) > 200 * min(height, width):
            raise ImageError(f"it is {width} x {height} pixels: one side may be 200 times the other at most")

    def _picture(self, frames: Pixels) -> Picture:
        height, width = frames.shape[1] // self.patch, frames.shape[2] // self.patch
        return Picture(frames, (1, height, width), height * width // self.merge**2)

    @staticmethod
    def patches(picture: Picture, patch: int, merge: int) -> Tensor:
        """Float32 `[patches, 3 * frames * patch * patch]`, values in -1 to 1, merged patches together."""
        _, height, width = picture.grid
        values = normalised(picture.frames)  # [frames, 3, H, W]
        count = values.shape[0]
        cut = values.reshape(count, 3, height // merge, merge, patch, width // merge, merge, patch)
        # -> down, along, in the block down and along, colour, frame, in the patch
        cut = cut.transpose(2, 5, 3, 6, 1, 0, 4, 7)
        return torch.from_numpy(np.ascontiguousarray(cut).reshape(height * width, -1))


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Bicubic, by Pillow."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def normalised(frames: Pixels) -> NDArray[np.float32]:
    """`(x / 255 - 0.5) / 0.5` in float32: `[frames, H, W, 3]` -> `[frames, 3, H, W]`."""
    scaled = (frames.astype(np.float64) * (1 / 255)).astype(np.float32)
    half = np.float32(0.5)
    return ((scaled - half) / half).transpose(0, 3, 1, 2)


def processor_of(path: Path) -> Fields:
    """A processor's config. No file: all as usual."""
    return Fields(read_json(path) if path.is_file() else {}, str(path))


def must_be_halves(fields: Fields) -> None:
    """Refuse a processor that normalises otherwise than `normalised`."""
    for name in ("image_mean", "image_std"):
        fields.must_be(name, [0.5, 0.5, 0.5])


def _bounds(fields: Fields, least: int, most: int) -> tuple[int, int]:
    size = fields.object("size") if fields.get("size") else Fields({}, fields.source)
    low = size.get("shortest_edge") or fields.get("min_pixels") or least
    high = size.get("longest_edge") or fields.get("max_pixels") or most
    if not all(isinstance(value, int) and 0 < value < 1 << 40 for value in (low, high)) or low > high:
        raise CheckpointError(f"{fields.source}: size: {low!r} to {high!r} pixels are no bounds")
    return low, high
