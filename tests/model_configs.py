"""Random configs of every family that between them reach every branch; `preset` names the family, the rest is changed.

A new family adds its own here; all tests of `test_models_families.py` then run over it.
"""

from __future__ import annotations

from typing import Any

from ramet.models.deepseek_v3_config import DENSE
from ramet.models.deepseek_v3_config import SPARSE as EXPERTS
from ramet.models.deepseek_v4_config import HASH, HEAVY, ROUTED, SLIDING, SPARSE
from ramet.models.deepseek_v32_config import FULL as FULL_INDEXER
from ramet.models.deepseek_v32_config import SHARED
from ramet.models.qwen3_5_config import FULL, LINEAR, MoEConfig
from ramet.models.yarn import Yarn

QWEN3_5: dict[str, dict[str, Any]] = {
    "qwen3_5-dense-tied-3to1": {"tie_word_embeddings": True},
    "qwen3_5-dense-untied-1to1": {
        "layer_types": (LINEAR, FULL) * 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 24,
    },
    "qwen3_5-dense-odd-sizes-full-first": {
        "layer_types": (FULL, LINEAR, LINEAR, FULL, LINEAR),
        "num_hidden_layers": 5,
        "hidden_size": 44,
        "intermediate_size": 37,
        "head_dim": 24,
        "num_attention_heads": 3,
        "linear_key_head_dim": 12,
        "linear_value_head_dim": 20,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-5,
        "nested": False,
    },
    "qwen3_5-dense-5to1-wide-rotation": {
        "layer_types": (LINEAR,) * 5 + (FULL,),
        "num_hidden_layers": 6,
        "head_dim": 64,
        "partial_rotary_factor": 0.5,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 4,
        "linear_conv_kernel_dim": 3,
        "tie_word_embeddings": True,
    },
    "qwen3_5-moe-untied-3to1": {"moe": MoEConfig(8, 2, 16, 24)},
    "qwen3_5-moe-tied-1to2": {
        "moe": MoEConfig(5, 3, 20, 12),
        "layer_types": (LINEAR, FULL, FULL),
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
        "nested": False,
    },
    "qwen3_5-moe-every-expert-2to1": {
        "moe": MoEConfig(4, 4, 24, 32),
        "layer_types": (LINEAR, LINEAR, FULL),
        "num_hidden_layers": 3,
    },
}

MINIMAX_M2: dict[str, dict[str, Any]] = {
    "minimax_m2-half-rotated": {},
    "minimax_m2-tied-all-rotated": {"rotary_dim": 16, "tie_word_embeddings": True, "num_experts_per_tok": 1},
    "minimax_m2-every-expert": {"num_local_experts": 4, "num_experts_per_tok": 4, "rope_theta": 10_000.0},
    "minimax_m2-one-key-head": {"num_attention_heads": 6, "num_key_value_heads": 1, "num_local_experts": 17},
    "minimax_m2-odd-sizes": {
        "hidden_size": 44,
        "intermediate_size": 19,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 20,
        "rotary_dim": 6,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-5,
    },
    "minimax_m2-deep": {"num_hidden_layers": 7, "num_local_experts": 32, "num_experts_per_tok": 8},
}

DEEPSEEK_V4: dict[str, dict[str, Any]] = {
    "deepseek_v4-every-kind-of-layer": {},
    "deepseek_v4-published-ratios-yarn": {
        "num_hidden_layers": 4,
        "layer_types": (HEAVY, HEAVY, SPARSE, HEAVY),
        "mlp_layer_types": (HASH, HASH, HASH, ROUTED),
        "heavy_ratio": 128,
        "sliding_window": 33,
        "yarn": Yarn(16.0, 64, attention_factor=1.0),
    },
    "deepseek_v4-odd-sizes-clamped": {
        "hidden_size": 44,
        "num_attention_heads": 6,
        "head_dim": 20,
        "qk_rope_head_dim": 6,
        "q_lora_rank": 18,
        "o_groups": 3,
        "o_lora_rank": 7,
        "moe_intermediate_size": 19,
        "n_routed_experts": 5,
        "num_experts_per_tok": 3,
        "index_n_heads": 5,
        "index_head_dim": 10,
        "index_topk": 1,
        "sparse_ratio": 8,
        "swiglu_limit": 0.05,
        "rms_norm_eps": 1e-5,
        "hc_eps": 1e-4,
    },
    "deepseek_v4-sparse-only-two-streams": {
        "layer_types": (SPARSE, SPARSE, SPARSE),
        "mlp_layer_types": (ROUTED, ROUTED, ROUTED),
        "index_topk": 9,
        "index_n_heads": 1,
        "sliding_window": 4,
        "hc_mult": 2,
        "hc_sinkhorn_iters": 3,
        "yarn": Yarn(4.0, 32, attention_factor=1.0),
    },
    "deepseek_v4-sliding-only-hashed": {
        "layer_types": (SLIDING, SLIDING, SLIDING),
        "mlp_layer_types": (HASH, HASH, HASH),
        "sliding_window": 70,
        "hc_mult": 1,
        "routed_scaling_factor": 2.5,
    },
    "deepseek_v4-many-heads-all-rotated": {
        "num_attention_heads": 40,
        "qk_rope_head_dim": 12,
        "head_dim": 12,
        "index_n_heads": 35,
        "o_groups": 1,
        "index_topk": 20,
        "sparse_ratio": 2,
        "sliding_window": 128,
        "n_routed_experts": 4,
        "num_experts_per_tok": 4,
    },
}

YARN = Yarn(4.0, 64, mscale=1.0, mscale_all_dim=1.0)

DEEPSEEK_V3: dict[str, dict[str, Any]] = {
    "deepseek_v3-groups": {"n_group": 4, "topk_group": 2},
    "deepseek_v3-yarn": {"yarn": YARN, "first_k_dense_replace": 2},
    "deepseek_v3-whole-queries": {"q_lora_rank": None, "norm_topk_prob": False, "first_k_dense_replace": 0},
    "deepseek_v3-odd-sizes-tied": {
        "hidden_size": 44,
        "num_attention_heads": 3,
        "kv_lora_rank": 21,
        "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 6,
        "v_head_dim": 7,
        "moe_intermediate_size": 19,
        "n_routed_experts": 5,
        "n_shared_experts": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "deepseek_v3-half-split-yarn-of-other-scales": {
        "rope_interleave": False,
        "yarn": Yarn(10.0, 32, beta_fast=8.0, beta_slow=2.0, mscale=0.7, mscale_all_dim=1.2),
        "n_group": 2,
        "topk_group": 1,
    },
    "deepseek_v3-dense-many-heads": {"first_k_dense_replace": 4, "num_attention_heads": 37, "q_lora_rank": 40},
    "deepseek_v3-as-kimi-many-experts": {
        "n_routed_experts": 48,
        "num_experts_per_tok": 8,
        "rope_theta": 50_000.0,
        "routed_scaling_factor": 2.827,
        "yarn": Yarn(32.0, 64, beta_fast=1.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0),
    },
}
"""Kimi K2.5's text model is one of these too, below a prefix."""

DEEPSEEK_V32: dict[str, dict[str, Any]] = {
    "deepseek_v32-few-rows": {"index_topk": 5},
    "deepseek_v32-groups-yarn": {"n_group": 4, "topk_group": 2, "yarn": YARN, "index_topk": 70},
    "deepseek_v32-one-index-head": {"index_n_heads": 1, "index_head_dim": 8, "index_topk": 64},
    "deepseek_v32-more-rows-than-there-are": {"index_topk": 2048},
    "deepseek_v32-deep-many-index-heads": {
        "num_hidden_layers": 6,
        "index_n_heads": 17,
        "index_head_dim": 20,
        "index_topk": 33,
        "first_k_dense_replace": 3,
    },
}

GLM_MOE_DSA: dict[str, dict[str, Any]] = {
    "glm_moe_dsa-all-full": {},
    "glm_moe_dsa-shared": {"indexer_types": (FULL_INDEXER, SHARED, FULL_INDEXER, SHARED), "index_topk": 40},
    "glm_moe_dsa-one-indexer": {"indexer_types": (FULL_INDEXER, SHARED, SHARED, SHARED), "rms_norm_eps": 1e-5},
    "glm_moe_dsa-mixed-layers-yarn": {
        "mlp_layer_types": (DENSE, EXPERTS, DENSE, EXPERTS),
        "yarn": Yarn(8.0, 40, attention_factor=1.3),
        "index_topk": 65,
    },
    "glm_moe_dsa-many-experts": {
        "n_routed_experts": 32,
        "num_experts_per_tok": 8,
        "num_attention_heads": 33,
        "index_n_heads": 6,
        "indexer_types": (FULL_INDEXER, FULL_INDEXER, SHARED, SHARED),
        "rope_theta": 1_000_000.0,
    },
}

CONFIGS: dict[str, dict[str, Any]] = {
    name: {"preset": preset} | config
    for preset, configs in (
        ("tiny", QWEN3_5),
        ("tiny-minimax", MINIMAX_M2),
        ("tiny-deepseek-v4", DEEPSEEK_V4),
        ("tiny-deepseek-v3", DEEPSEEK_V3),
        ("tiny-deepseek-v32", DEEPSEEK_V32),
        ("tiny-glm", GLM_MOE_DSA),
    )
    for name, config in configs.items()
}
