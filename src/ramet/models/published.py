"""Where a family's published checkpoints keep its tensors."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

PREDICTION, VISION = "multi-token prediction, for guessing ahead", "the vision tower, which is not counted"
"""Parts that text generation does without."""


@dataclass(frozen=True)
class Names:
    """The published name of each parameter: a prefix, and what replaces the outer modules' names."""

    body: str
    """Before everything but the output layer."""
    head: str = "lm_head."
    embed: str = "embed_tokens."
    others: tuple[tuple[str, str], ...] = ()
    """Parts of names that differ: ours, theirs."""
    visual: str = "model.visual."
    """Before the vision tower's, in place of `visual.`."""
    ahead: str = ""
    """Before the part that predicts one token further (MTP); `{layers}` stands for the number of layers. The names of
    its module `block` follow at once."""

    def at(self, layers: int) -> Names:
        """The names in a model of so many layers."""
        return replace(self, ahead=self.ahead.format(layers=layers))

    def of(self, parameter: str) -> str:
        """The published name of a parameter of a `Decoder`."""
        if parameter.startswith("lm_head."):
            return self.head + parameter.removeprefix("lm_head.")
        if parameter.startswith("visual."):
            return self.visual + parameter.removeprefix("visual.")
        if parameter.startswith("embed_tokens."):
            return self.body + self.embed + parameter.removeprefix("embed_tokens.")
        for ours, theirs in self.others:
            parameter = parameter.replace(ours, theirs)
        if self.ahead and parameter.startswith("ahead."):
            return self.ahead + parameter.removeprefix("ahead.").removeprefix("block.")
        return self.body + parameter


@dataclass(frozen=True)
class Published:
    """What is to be known of a family's files. Modules have the published names, so this is not much."""

    names: tuple[Names, ...]
    """The layouts that occur; the first is written (the last for a text model alone)."""
    experts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    """The gate, up and down matrices of one expert, where experts are written one by one: `experts.E.NAME.weight`."""
    fused_experts: bool = False
    """Experts are written as `experts.gate_up_proj` and `experts.down_proj`; both forms are read."""
    tower: tuple[str, ...] = ()
    """How the names of a vision tower's tensors begin: left out where nothing reads them."""
    predicts_ahead: bool = False
    """Layers beyond `num_hidden_layers` guess tokens further ahead (MTP); what is not used of them is left out."""
    ahead: str | None = None
    """Or the part that does so has a prefix of its own; the same holds for it."""
    wide: tuple[str, ...] = ()
    """How the names of parameters end that are written in float32 whatever the others are."""

    def layout_of(self, tensors: Container[str], layers: int) -> Names:
        """Which of the layouts a checkpoint with these tensors, of a model of so many layers, has."""
        layouts = [names.at(layers) for names in self.names]
        return next((layout for layout in layouts if layout.of("embed_tokens.weight") in tensors), layouts[0])

    def part_left_out(self, tensor: str, layout: Names, layers: int) -> str | None:
        """In words, the part that a tensor belongs to, if that part is left out; `layers` is how many are run."""
        if tensor.endswith(".rotary_emb.inv_freq"):
            return "rotary frequencies, which config.json gives as well"
        layer = re.match(rf"{re.escape(layout.body)}layers\.(\d+)\.", tensor)
        if self.predicts_ahead and layer and int(layer[1]) >= layers:
            return PREDICTION
        if self.ahead and tensor.startswith(self.ahead):
            return PREDICTION
        return VISION if self.tower and tensor.startswith(self.tower) else None

    def by_expert(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """The matrices of a fused parameter where experts are written one by one, gate before up; else none.

        `name` is the parameter's published one, `shape` its `[experts, out, in]`.
        """
        stem, _, kind = name.rpartition(".")
        if not stem.endswith(".experts") or kind not in ("gate_up_proj", "down_proj"):
            return []
        gate, up, down = self.experts
        parts = (gate, up) if kind == "gate_up_proj" else (down,)
        return [f"{stem}.{expert}.{part}.weight" for expert in range(shape[0]) for part in parts]

    def has_tower(self, tensors: Iterable[str]) -> bool:
        """Whether a checkpoint with these tensors has a vision tower, or some of one."""
        return bool(self.tower) and any(tensor.startswith(self.tower) for tensor in tensors)
