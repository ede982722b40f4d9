"""Qwen3.5's vision tower: patches of 2 frames, a ViT with learned and rotary positions, 2 x 2 patches a row.

Modules and parameters carry the names of the published checkpoints below `model.visual.`.
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
from ramet.models.images import QwenImages
from ramet.models.layers import Layer, LayerNorm
from ramet.models.pictures import Picture, Placed, grid_positions
from ramet.models.rope import Rope
from ramet.models.vision import BiasLinear, gelu, resampled

_EPS = 1e-6


@dataclass(frozen=True)
class Qwen3_5VisionConfig:
    """Sizes of the tower, under the names of `config.json`'s `vision_config`."""

    hidden_size: int
    out_hidden_size: int
    """The language model's width."""
    depth: int = 27
    intermediate_size: int = 4304
    num_heads: int = 16
    num_position_embeddings: int = 2304
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    image_token_id: int = 248056
    video_token_id: int = 248057
    vision_start_token_id: int = 248053
    vision_end_token_id: int = 248054

    @classmethod
    def from_json(cls, outer: Fields) -> Qwen3_5VisionConfig:
        """Read the `vision_config` inside a checkpoint's config. Raises CheckpointError."""
        vision = outer.object("vision_config")
        for name, value in (("hidden_act", "gelu_pytorch_tanh"), ("in_channels", 3)):
            vision.must_be(name, value)
        if vision.get("deepstack_visual_indexes"):
            vision.refuse("deepstack_visual_indexes", "Qwen3.5 feeds pictures in at the embedding alone")
        config = cls(
            hidden_size=vision.integer("hidden_size"),
            out_hidden_size=vision.integer("out_hidden_size", outer.object("text_config").integer("hidden_size")),
            **{name: vision.integer(name, getattr(cls, name)) for name in _USUAL},
            **{name: outer.integer(name, getattr(cls, name)) for name in _TOKENS},
        )
        side = round(config.num_position_embeddings**0.5)
        if side * side != config.num_position_embeddings:
            vision.refuse("num_position_embeddings", f"{config.num_position_embeddings} is no square")
        if config.hidden_size % (4 * config.num_heads):
            vision.refuse("num_heads", f"{config.hidden_size} columns are no {config.num_heads} heads")
        return config

    def to_json(self, family: str) -> dict[str, Any]:
        """What it adds to a checkpoint's config: the `vision_config`, and the marks of pictures."""
        about = {"model_type": f"{family}_vision", "hidden_act": "gelu_pytorch_tanh", "in_channels": 3}
        sizes = {name: getattr(self, name) for name in ("hidden_size", "out_hidden_size", *_USUAL)}
        vision = {**about, **sizes, "deepstack_visual_indexes": [], "initializer_range": 0.02}
        return {"vision_config": vision, **{name: getattr(self, name) for name in _TOKENS}}


_USUAL = (
    "depth",
    "intermediate_size",
    "num_heads",
    "num_position_embeddings",
    "patch_size",
    "temporal_patch_size",
    "spatial_merge_size",
)
_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


class PatchEmbed(Layer):
    """A convolution whose windows do not overlap: one linear map of each patch."""

    def __init__(self, config: Qwen3_5VisionConfig) -> None:
        super().__init__()
        size = (3, config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = BiasLinear(size, config.hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        return self.proj(patches)


class PositionTable(Layer):
    """Learned positions, `[places, hidden]`, of a square that every picture's grid is laid over."""

    def __init__(self, places: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(places, hidden))

    def forward(self, grid: tuple[int, int]) -> Tensor:
        side = round(self.weight.shape[0] ** 0.5)
        return resampled(self.weight.detach().view(side, side, -1), grid, cubic=False)


class Attention(Layer):
    """Every patch of a frame sees every other; heads are rotated by row and column."""

    def __init__(self, config: Qwen3_5VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.scale = (config.hidden_size // config.num_heads) ** -0.5
        self.qkv = BiasLinear(config.hidden_size, 3 * config.hidden_size)
        self.proj = BiasLinear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, table: Tensor, lengths: list[int]) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=1)
        q, k = (kernels.rope(part, table, heads=self.heads) for part in (q, k))
        return self.proj(kernels.segment_attention(q, k, v, lengths, heads=self.heads, scale=self.scale))


class TowerMLP(Layer):
    """Two maps with a GELU between."""

    def __init__(self, config: Qwen3_5VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = BiasLinear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = BiasLinear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(kernels.gelu_tanh(self.linear_fc1(x)))


class Block(Layer):
    """Attention and an MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: Qwen3_5VisionConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.hidden_size, _EPS)
        self.norm2 = LayerNorm(config.hidden_size, _EPS)
        self.attn = Attention(config)
        self.mlp = TowerMLP(config)

    def forward(self, x: Tensor, table: Tensor, lengths: list[int]) -> Tensor:
        x = x + self.attn(self.norm1(x), table, lengths)
        return x + self.mlp(self.norm2(x))


class Merger(Layer):
    """Neighbouring patches, `spatial_merge_size` squared, become one row of the language model's width."""

    def __init__(self, config: Qwen3_5VisionConfig) -> None:
        super().__init__()
        self.width = config.hidden_size * config.spatial_merge_size**2
        self.norm = LayerNorm(config.hidden_size, _EPS)
        self.linear_fc1 = BiasLinear(self.width, self.width)
        self.linear_fc2 = BiasLinear(self.width, config.out_hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(gelu(self.linear_fc1(self.norm(x).view(-1, self.width))))


class Qwen3_5Vision(nn.Module):
    """The tower."""

    def __init__(self, config: Qwen3_5VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = PositionTable(config.num_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.merger = Merger(config)
        self.rope = Rope.unscaled(config.hidden_size // config.num_heads // 2, 10_000.0)

    @torch.no_grad()
    def encode(self, picture: Picture) -> Tensor:
        """See `pictures.Tower`."""
        config = self.config
        x = self.patch_embed(QwenImages.patches(picture, config.patch_size, config.spatial_merge_size))
        time, height, width = picture.grid
        order = _blocks_first(height, width, config.spatial_merge_size)
        x = x + self.pos_embed((height, width))[order].repeat(time, 1)
        table = self._table(order // width, order % width).repeat(time, 1)
        for block in self.blocks:
            x = block(x, table, [height * width] * time)
        return self.merger(x)

    def images(self, folder: Path) -> QwenImages:
        """See `pictures.Tower`."""
        config = self.config
        return QwenImages.load(folder, config.patch_size, config.spatial_merge_size, config.temporal_patch_size)

    def positions(self, placed: Sequence[Placed], start: int, count: int) -> Tensor | None:
        """See `pictures.Tower`."""
        return grid_positions(placed, start, count, self.config.spatial_merge_size)

    def _table(self, row: Tensor, column: Tensor) -> Tensor:
        """Cosines and sines, `[patches, head]`: the first half of the angles by row, the other by column."""
        by_row, by_column = (kernels.rope_table(at, self.rope.inv_freq) for at in (row, column))
        half = self.rope.inv_freq.numel()
        return torch.cat([by_row[:, :half], by_column[:, :half], by_row[:, half:], by_column[:, half:]], 1)


def _blocks_first(height: int, width: int, merge: int) -> Tensor:
    """The patches of a frame, counted by rows, in the order in which the tower has them: merged ones together."""
    counted = torch.arange(height * width).view(height // merge, merge, width // merge, merge)
    return counted.transpose(1, 2).flatten()
