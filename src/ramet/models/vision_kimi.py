"""Kimi K2.5's vision tower and projector: a ViT over up to 4 frames at once, pooled over time, 2 x 2 patches a row.

Modules and parameters carry the names of the published checkpoints, which have no common prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ramet import kernels
from ramet.models.fields import Fields
from ramet.models.images_kimi import KimiImages
from ramet.models.layers import Layer, LayerNorm
from ramet.models.pictures import Picture, Placed
from ramet.models.rope import Rope
from ramet.models.vision import BiasLinear, gelu, resampled

_EPS = 1e-5


@dataclass(frozen=True)
class KimiVisionConfig:
    """Sizes of the tower, under the names of `config.json`'s published `vision_config`."""

    vt_hidden_size: int
    text_hidden_size: int
    vt_intermediate_size: int = 4304
    vt_num_hidden_layers: int = 27
    vt_num_attention_heads: int = 16
    patch_size: int = 14
    init_pos_emb_height: int = 64
    init_pos_emb_width: int = 64
    init_pos_emb_time: int = 4
    merge: int = 2
    """Patches to a side of what becomes one row (`merge_kernel_size`)."""
    projector_ln_eps: float = 1e-5
    media_placeholder_token_id: int = 163605

    @classmethod
    def from_json(cls, outer: Fields) -> KimiVisionConfig:
        """Read the `vision_config` inside a checkpoint's config, in the published words or transformers'.

        Raises CheckpointError.
        """
        vision, text = outer.object("vision_config"), outer.object("text_config")
        for name, value in _ONLY:
            vision.must_be(name, value)
        kernel = vision.get("merge_kernel_size", [2, 2])
        if (
            not isinstance(kernel, list | tuple)
            or len(kernel) != 2
            or kernel[0] != kernel[1]
            or kernel[0] not in (1, 2, 4)
        ):
            vision.refuse("merge_kernel_size", f"{kernel!r}; only squares of 1, 2 or 4 are supported")
            kernel = [2, 2]
        width = vision.integer("vt_hidden_size" if vision.get("vt_hidden_size") else "hidden_size")
        sizes = {
            ours: vision.integer(ours if vision.get(ours) else theirs, getattr(cls, ours)) for ours, theirs in _USUAL
        }
        if width % (4 * sizes["vt_num_attention_heads"]):
            vision.refuse("vt_num_attention_heads", "the width is no multiple of four times the heads")
        mark = outer if outer.get("media_placeholder_token_id") else Fields({}, outer.source)
        return cls(
            vt_hidden_size=width,
            **sizes,
            text_hidden_size=text.integer("hidden_size"),
            merge=int(kernel[0]),
            projector_ln_eps=vision.number("projector_ln_eps", cls.projector_ln_eps),
            media_placeholder_token_id=mark.integer("media_placeholder_token_id", cls.media_placeholder_token_id),
        )

    def to_json(self) -> dict[str, Any]:
        """What it adds to a checkpoint's config: the `vision_config`, and the mark of pictures."""
        sizes = {name: getattr(self, name) for name in ("vt_hidden_size", *dict(_USUAL))}
        about = {"merge_kernel_size": [self.merge] * 2, "projector_ln_eps": self.projector_ln_eps}
        about |= {"mm_hidden_size": self.vt_hidden_size, "text_hidden_size": self.text_hidden_size}
        mark = self.media_placeholder_token_id
        return {"vision_config": {**sizes, **about, **dict(_ONLY)}, "media_placeholder_token_id": mark}


_USUAL = (
    ("vt_intermediate_size", "intermediate_size"),
    ("vt_num_hidden_layers", "num_hidden_layers"),
    ("vt_num_attention_heads", "num_attention_heads"),
    ("patch_size", "patch_size"),
    ("init_pos_emb_height", "pos_emb_height"),
    ("init_pos_emb_width", "pos_emb_width"),
    ("init_pos_emb_time", "pos_emb_time"),
)
"""Published names, and transformers'."""
_ONLY = (
    ("merge_type", "sd2_tpool"),
    ("mm_projector_type", "patchmerger"),
    ("pos_emb_type", "divided_fixed"),
    ("video_attn_type", "spatial_temporal"),
    ("projector_hidden_act", "gelu"),
)


class PositionGrid(Layer):
    """Learned positions `[height, width, hidden]`, and fixed ones for the frames of a film."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        width = config.vt_hidden_size
        self.weight = nn.Parameter(torch.empty(config.init_pos_emb_height, config.init_pos_emb_width, width))

    def forward(self, grid: tuple[int, int, int]) -> Tensor:
        """`[time * height * width, hidden]`."""
        time, height, width = grid
        placed = resampled(self.weight.detach(), (height, width), cubic=True)
        if time == 1:
            return placed
        angles = kernels.rope_table(torch.arange(time), Rope.unscaled(placed.shape[1], 10_000.0).inv_freq)
        half = angles.shape[1] // 2
        moments = torch.cat([angles[:, half:], angles[:, :half]], 1)  # sines first
        return (placed + moments[:, None]).flatten(0, 1)


class PatchEmbed(Layer):
    """One linear map of each patch, and where it is."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        self.proj = BiasLinear((3, config.patch_size, config.patch_size), config.vt_hidden_size)
        self.pos_emb = PositionGrid(config)

    def forward(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        return self.proj(patches) + self.pos_emb(grid)


class TowerMLP(Layer):
    """Two maps with a GELU between."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        self.fc0 = BiasLinear(config.vt_hidden_size, config.vt_intermediate_size)
        self.fc1 = BiasLinear(config.vt_intermediate_size, config.vt_hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc1(kernels.gelu_tanh(self.fc0(x)))


class Block(Layer):
    """Attention among all patches of all frames, and an MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        width = config.vt_hidden_size
        self.heads = config.vt_num_attention_heads
        self.scale = (width // self.heads) ** -0.5
        self.norm0 = LayerNorm(width, _EPS)
        self.norm1 = LayerNorm(width, _EPS)
        self.wqkv = BiasLinear(width, 3 * width)
        self.wo = BiasLinear(width, width)
        self.mlp = TowerMLP(config)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.wqkv(self.norm0(x)).chunk(3, dim=1)
        q, k = (kernels.rope(part, table, heads=self.heads, interleaved=True) for part in (q, k))
        x = x + self.wo(kernels.segment_attention(q, k, v, [x.shape[0]], heads=self.heads, scale=self.scale))
        return x + self.mlp(self.norm1(x))


class Encoder(Layer):
    """The blocks, and a last norm."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.vt_num_hidden_layers))
        self.final_layernorm = LayerNorm(config.vt_hidden_size, _EPS)
        self.rope = Rope.unscaled(config.vt_hidden_size // config.vt_num_attention_heads // 2, 10_000.0)

    def forward(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        time, height, width = grid
        place = torch.arange(height * width)
        table = self._table(place // width, place % width).repeat(time, 1)
        for block in self.blocks:
            x = block(x, table)
        return self.final_layernorm(x)

    def _table(self, row: Tensor, column: Tensor) -> Tensor:
        """Cosines and sines, `[patches, head]`: of a frequency's two angles the first goes by column, then by row."""
        half = self.rope.inv_freq.numel()
        by_row, by_column = (kernels.rope_table(at, self.rope.inv_freq) for at in (row, column))
        both = torch.stack([by_column.view(-1, 2, half), by_row.view(-1, 2, half)], dim=-1)
        return both.flatten(1)


class VisionTower(Layer):
    """What is below `vision_tower.`."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        self.merge = config.merge
        self.patch_embed = PatchEmbed(config)
        self.encoder = Encoder(config)

    def forward(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """The mean over time of every patch, merged ones together: `[rows, merge * merge, hidden]`."""
        x = self.encoder(self.patch_embed(patches, grid), grid)
        time, height, width = grid
        total = x.view(time, height * width, -1)[0].clone()
        for frame in x.view(time, height * width, -1)[1:]:  # in order
            total += frame
        blocks = (total / time).view(height // self.merge, self.merge, width // self.merge, self.merge, -1)
        return blocks.transpose(1, 2).reshape(-1, self.merge**2, x.shape[1])


class Projector(Layer):
    """What is below `mm_projector.`: neighbouring patches become one row of the language model's width."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        self.width = config.vt_hidden_size * config.merge**2
        self.pre_norm = LayerNorm(config.vt_hidden_size, config.projector_ln_eps)
        self.proj = nn.ModuleDict(
            {"0": BiasLinear(self.width, self.width), "2": BiasLinear(self.width, config.text_hidden_size)}
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = self.pre_norm(x.flatten(0, 1)).view(-1, self.width)
        out: Tensor = self.proj["2"](gelu(self.proj["0"](rows)))
        return out


class KimiVision(nn.Module):
    """The tower and its projector."""

    def __init__(self, config: KimiVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = VisionTower(config)
        self.mm_projector = Projector(config)

    @torch.no_grad()
    def encode(self, picture: Picture) -> Tensor:
        """See `pictures.Tower`."""
        patches = KimiImages.patches(picture, self.config.patch_size)
        rows: Tensor = self.mm_projector(self.vision_tower(patches, picture.grid))
        return rows

    def images(self, folder: Path) -> KimiImages:
        """See `pictures.Tower`."""
        return KimiImages.load(folder, self.config.patch_size, self.config.merge, self.config.init_pos_emb_time)

    def positions(self, placed: Sequence[Placed], start: int, count: int) -> Tensor | None:
        """See `pictures.Tower`: a picture's rows are counted like words."""
        return None
