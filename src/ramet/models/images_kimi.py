"""Kimi's processor: never larger than the picture, padded with black to whole rows, films in pieces of 4 frames."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ramet.models.images import Pixels, Shown, must_be_halves, normalised, processor_of, resized
from ramet.models.pictures import Picture


@dataclass(frozen=True)
class KimiImages:
    """The number of patches is bounded, in all and to a side."""

    patch: int
    merge: int
    temporal: int
    most: int = 16384
    """Patches of a picture."""
    video_most: int = 4096
    """Patches of a film's frame."""
    side: int = 512
    """Patches to a side."""
    image_mark: str = "<|media_pad|>"
    video_whole: tuple[str, str, str] = ("", "<|kimi_k25_video_placeholder|>", "")
    film_part: tuple[str, str] = ("<|media_begin|>video<|media_content|>", "<|media_end|>")

    @classmethod
    def load(cls, folder: Path, patch: int, merge: int, temporal: int) -> KimiImages:
        """Bounds from `preprocessor_config.json`, as published (`media_proc_cfg`) or in transformers' words.

        Raises CheckpointError for what is not computed here.
        """
        outer = processor_of(folder / "preprocessor_config.json")
        fields = outer.object("media_proc_cfg") if outer.get("media_proc_cfg") else outer
        films = processor_of(folder / "video_preprocessor_config.json")
        for name, value in (
            ("patch_size", patch),
            ("merge_kernel_size", merge),
            ("merge_size", merge),
            ("temporal_merge_kernel_size", temporal),
        ):
            fields.must_be(name, value)
        must_be_halves(fields)
        side = fields.object("size").integer("max_height", cls.side) if fields.get("size") else cls.side
        return cls(
            patch,
            merge,
            temporal,
            fields.integer("in_patch_limit", fields.integer("max_patches", cls.most)),
            fields.integer("in_patch_limit_each_frame", films.integer("max_patches", cls.video_most)),
            fields.integer("patch_limit_on_one_side", side),
        )

    def image(self, pixels: Pixels) -> Picture:
        """See `images.Images`."""
        return self._picture([self._fitted(pixels, self.most)])

    def video(self, frames: Sequence[Pixels], fps: float) -> list[Shown]:
        """See `images.Images`. The time is that of a piece's first frame."""
        ready = [self._fitted(frame, self.video_most) for frame in frames]
        shown = []
        for first in range(0, len(ready), self.temporal):
            seconds = first / fps
            clock = time.strftime("%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}"
            shown.append(Shown(clock, self._picture(ready[first : first + self.temporal])))
        return shown

    def size(self, height: int, width: int, most: int) -> tuple[int, int]:
        """The height and width that a picture is resized to, before it is padded."""
        patches = max(1, height // self.patch) * max(1, width // self.patch)
        longest = self.side * self.patch
        scale = min(1.0, math.sqrt(most / patches), longest / height, longest / width)
        return min(max(1, int(height * scale)), longest), min(max(1, int(width * scale)), longest)

    def _fitted(self, pixels: Pixels, most: int) -> Pixels:
        smaller = resized(pixels, *self.size(pixels.shape[0], pixels.shape[1], most))
        factor = self.patch * self.merge
        below, right = (-side % factor for side in smaller.shape[:2])
        return np.pad(smaller, ((0, below), (0, right), (0, 0)))

    def _picture(self, frames: Sequence[Pixels]) -> Picture:
        stacked = np.stack(frames)
        height, width = stacked.shape[1] // self.patch, stacked.shape[2] // self.patch
        return Picture(stacked, (len(frames), height, width), height * width // self.merge**2)

    @staticmethod
    def patches(picture: Picture, patch: int) -> Tensor:
        """Float32 `[patches, 3 * patch * patch]`, values in -1 to 1, frame by frame, by rows."""
        count, height, width = picture.grid
        values = normalised(picture.frames)
        cut = values.reshape(count, 3, height, patch, width, patch).transpose(0, 2, 4, 1, 3, 5)
        return torch.from_numpy(np.ascontiguousarray(cut).reshape(count * height * width, -1))
