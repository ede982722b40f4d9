"""The serving operators: float32, one row's bits independent of every other row.

Every op takes 2-D float32 tensors `[rows, features]` on the CPU whose columns are adjacent; rows may be any stride
apart, so a column slice of a fused projection is passed as it is. Results are fresh and contiguous. Wrong shapes,
dtypes or strides raise `ValueError`. No gradient flows through these ops; `kernels.reference` has the differentiable
ones.

Ops that read or write a session's states take `Spans`, built once per step.
"""

from ramet.kernels.activations import add_gated, sigmoid_gate, swiglu
from ramet.kernels.attention import attention
from ramet.kernels.coded import CodedExperts, CodedHeads, CodedLinear, CodedMatrix
from ramet.kernels.conv import causal_conv
from ramet.kernels.delta_rule import delta_rule
from ramet.kernels.entries import compress, entry_attention, select_entries
from ramet.kernels.hyper_connections import hyper_collapse, hyper_expand, hyper_weights
from ramet.kernels.latent import index_rows, latent_attention
from ramet.kernels.linear import PackedHeads, PackedLinear, embed
from ramet.kernels.moe import PackedExperts
from ramet.kernels.norms import gated_rms_norm, layer_norm, rms_norm
from ramet.kernels.rope import norm_rope, rope, rope_table
from ramet.kernels.routing import Score, route, route_by_score, weigh_experts
from ramet.kernels.runtime import available_isas, build_id, isa, set_isa, set_threads, threads
from ramet.kernels.spans import PAGE_TOKENS, Spans

__all__ = [
    "PAGE_TOKENS",
    "CodedExperts",
    "CodedHeads",
    "CodedLinear",
    "CodedMatrix",
    "PackedExperts",
    "PackedHeads",
    "PackedLinear",
    "Score",
    "Spans",
    "add_gated",
    "attention",
    "available_isas",
    "build_id",
    "causal_conv",
    "compress",
    "delta_rule",
    "embed",
    "entry_attention",
    "gated_rms_norm",
    "hyper_collapse",
    "hyper_expand",
    "hyper_weights",
    "index_rows",
    "isa",
    "latent_attention",
    "layer_norm",
    "norm_rope",
    "rms_norm",
    "rope",
    "rope_table",
    "route",
    "route_by_score",
    "select_entries",
    "set_isa",
    "set_threads",
    "sigmoid_gate",
    "swiglu",
    "threads",
    "weigh_experts",
]
