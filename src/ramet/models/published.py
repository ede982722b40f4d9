"""Where a family's published checkpoints keep its tensors."""

from __future__ import annotations

from dataclasses import dataclass


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
    left_out: tuple[str, ...] = ()
    """How the names of parts begin that text generation does without, as a vision tower."""
    tower: tuple[str, ...] = ()
    """How the names of a vision tower's tensors begin: left out where the model has none."""
    predicts_ahead: bool = False
    """Layers beyond `num_hidden_layers` guess tokens further ahead (MTP) and are left out."""
    wide: tuple[str, ...] = ()
    """How the names of parameters end that are written in float32 whatever the others are."""
