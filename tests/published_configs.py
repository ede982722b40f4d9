"""The config.json of published models, as far as it says how large they are, and the sizes that their makers name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32,
                "dynamic": False,
            },
            "input_activations": None,
            "output_activations": None,
        }
    },
    "ignore": [
        "lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A published model; sizes in billions, as its makers round them."""

    config: dict[str, Any]
    family: str
    parameters: float
    active: float
    per_token: float
    """Bytes of bfloat16 rows that a token adds, reckoned by hand."""
    fixed: int
    """Bytes of a session's float32 states, reckoned by hand."""
    left_out: tuple[str, ...] = ()


def _qwen3_5(hidden: int, layers: int, heads: int, kv_heads: int, values: int, **more: Any) -> dict[str, Any]:
    moe = "num_experts" in more
    tied = more.pop("tie_word_embeddings", False)
    text = {
        "model_type": "qwen3_5_moe_text" if moe else "qwen3_5_text", "dtype": "bfloat16", "vocab_size": 248320,
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": 256, "full_attention_interval": 4, "attn_output_gate": True,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * (layers // 4), "attention_bias": False,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": values, "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 262144, "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": tied,
        "rope_parameters": {
            "mrope_interleaved": True, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
            "rope_theta": 10000000, "rope_type": "default",
        },
    } | more  # fmt: skip
    kind = "Qwen3_5Moe" if moe else "Qwen3_5"
    return {
        "architectures": [f"{kind}ForConditionalGeneration"],
        "model_type": "qwen3_5_moe" if moe else "qwen3_5",
        "text_config": text,
        "tie_word_embeddings": tied,
        "vision_config": {"depth": 27, "hidden_size": 1152, "model_type": "qwen3_5"},
    }


_LATENT: dict[str, Any] = {
    "attention_bias": False, "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432,
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "norm_topk_prob": True, "rms_norm_eps": 1e-6, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "tie_word_embeddings": False, "rope_theta": 10000,
}  # fmt: skip
_YARN = {
    "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
    "mscale": 1.0, "mscale_all_dim": 1.0,
}  # fmt: skip
DEEPSEEK_V3 = _LATENT | {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
    "vocab_size": 129280, "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
    "first_k_dense_replace": 3, "n_routed_experts": 256, "n_group": 8, "topk_group": 4,
    "max_position_embeddings": 163840, "num_nextn_predict_layers": 1, "rope_scaling": _YARN,
    "quantization_config": FP8,
}  # fmt: skip
DEEPSEEK_V32 = DEEPSEEK_V3 | {
    "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32",
    "index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048,
    "quantization_config": FP8 | {"scale_fmt": "ue8m0"},
}  # fmt: skip
KIMI_K25 = {
    "architectures": ["KimiK25ForConditionalGeneration"],
    "model_type": "kimi_k25",
    "dtype": "bfloat16",
    "tie_word_embeddings": False,
    "text_config": _LATENT | {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "dtype": "bfloat16",
        "vocab_size": 163840, "num_hidden_layers": 61, "num_attention_heads": 64, "num_key_value_heads": 64,
        "first_k_dense_replace": 1, "n_routed_experts": 384, "n_group": 1, "topk_group": 1,
        "max_position_embeddings": 262144, "num_nextn_predict_layers": 0, "rope_theta": 50000,
        "routed_scaling_factor": 2.827, "rms_norm_eps": 1e-5,
        "rope_scaling": _YARN | {"factor": 64, "beta_fast": 32.0, "beta_slow": 1.0},
        "quantization_config": INT4,
    },
    "vision_config": {"vt_hidden_size": 1152, "vt_num_hidden_layers": 27},
}  # fmt: skip
GLM_5 = _LATENT | {
    "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "dtype": "bfloat16",
    "vocab_size": 154880, "hidden_size": 6144, "intermediate_size": 12288, "num_hidden_layers": 78,
    "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 2048, "qk_head_dim": 256,
    "qk_nope_head_dim": 192, "v_head_dim": 256, "first_k_dense_replace": 3, "n_routed_experts": 256, "n_group": 1,
    "topk_group": 1, "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048,
    "indexer_rope_interleave": True, "rope_interleave": True, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 202752, "num_nextn_predict_layers": 1,
    "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
}  # fmt: skip
MINIMAX_M2 = {
    "architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2", "attn_type_list": [1] * 62,
    "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 1536, "num_hidden_layers": 62,
    "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "rotary_dim": 64, "num_local_experts": 256,
    "num_experts_per_tok": 8, "max_position_embeddings": 196608, "mtp_transformer_layers": 1, "num_mtp_modules": 3,
    "use_mtp": True, "qk_norm_type": "per_layer", "use_qk_norm": True, "use_routing_bias": True,
    "rms_norm_eps": 1e-6, "rope_theta": 5000000, "scoring_func": "sigmoid", "shared_intermediate_size": 0,
    "tie_word_embeddings": False, "hidden_act": "silu",
    "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8",
        "weight_block_size": [128, 128], "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
    },
}  # fmt: skip


def _deepseek_v4(ratios: list[int], **sizes: int) -> dict[str, Any]:
    return sizes | {
        "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "torch_dtype": "bfloat16",
        "attention_bias": False, "hidden_act": "silu", "vocab_size": 129280, "head_dim": 512, "qk_rope_head_dim": 64,
        "o_lora_rank": 1024, "index_n_heads": 64, "index_head_dim": 128, "num_hidden_layers": len(ratios) - 1,
        "num_experts_per_tok": 6, "n_shared_experts": 1, "num_key_value_heads": 1, "norm_topk_prob": True,
        "compress_ratios": ratios, "num_hash_layers": 3, "sliding_window": 128, "swiglu_limit": 10.0, "hc_mult": 4,
        "hc_eps": 1e-6, "hc_sinkhorn_iters": 20, "scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc",
        "routed_scaling_factor": 1.5, "rms_norm_eps": 1e-6, "rope_theta": 10000, "compress_rope_theta": 160000,
        "max_position_embeddings": 1048576, "num_nextn_predict_layers": 1, "tie_word_embeddings": False,
        "rope_scaling": {
            "type": "yarn", "factor": 16, "original_max_position_embeddings": 65536, "beta_fast": 32, "beta_slow": 1,
        },
        "expert_dtype": "fp4", "quantization_config": FP8 | {"scale_fmt": "ue8m0"},
    }  # fmt: skip


DEEPSEEK_V4_FLASH = _deepseek_v4(
    [0, 0] + [4, 128] * 20 + [4, 0], hidden_size=4096, num_attention_heads=64, q_lora_rank=1024, o_groups=8,
    n_routed_experts=256, moe_intermediate_size=2048, index_topk=512,
)  # fmt: skip
DEEPSEEK_V4_PRO = _deepseek_v4(
    [128, 128] + [4, 128] * 29 + [4, 0], hidden_size=7168, num_attention_heads=128, q_lora_rank=1536, o_groups=16,
    n_routed_experts=384, moe_intermediate_size=3072, index_topk=1024,
)  # fmt: skip

_MTP, _IMAGES = "multi-token prediction, for guessing ahead", "the vision tower, which is not counted"


def _pools(sparse: int, heavy: int) -> int:
    """Of DeepSeek V4's unfinished groups: largest gate, sum of weights, weighted sum; a column of 512, or 128."""
    return 4 * 3 * (sparse * 2 * (512 + 128) + heavy * 512)


PUBLISHED = {
    "Qwen3.5-0.8B": Published(
        _qwen3_5(1024, 24, 8, 2, 16, intermediate_size=3584, tie_word_embeddings=True), "Qwen3.5", 0.8, 0.8,
        6 * 2 * 2 * 256 * 2, 18 * 4 * (3 * (3 * 16 * 128) + 16 * 128 * 128), (_MTP, _IMAGES),
    ),
    "Qwen3.5-27B": Published(
        _qwen3_5(5120, 64, 24, 4, 48, intermediate_size=17408), "Qwen3.5", 27, 27,
        16 * 2 * 4 * 256 * 2, 48 * 4 * (3 * (2 * 16 + 48) * 128 + 48 * 128 * 128), (_MTP, _IMAGES),
    ),
    "Qwen3.5-397B-A17B": Published(
        _qwen3_5(
            4096, 60, 32, 2, 64, num_experts=512, num_experts_per_tok=10, moe_intermediate_size=1024,
            shared_expert_intermediate_size=1024,
        ), "Qwen3.5", 397, 17,
        15 * 2 * 2 * 256 * 2, 45 * 4 * (3 * (2 * 16 + 64) * 128 + 64 * 128 * 128), (_MTP, _IMAGES),
    ),
    "DeepSeek-V3": Published(DEEPSEEK_V3, "DeepSeek V3", 671, 37, 61 * 2 * 576, 0, (_MTP,)),
    "DeepSeek-V3.2": Published(DEEPSEEK_V32, "DeepSeek V3.2", 671, 37, 61 * 2 * (576 + 128), 0, (_MTP,)),
    "Kimi-K2.5": Published(KIMI_K25, "Kimi K2.5", 1026, 32, 61 * 2 * 576, 0, (_IMAGES,)),
    "GLM-5": Published(GLM_5, "GLM-5", 744, 40, 78 * 2 * (576 + 128), 0, (_MTP,)),
    "GLM-5.2": Published(
        GLM_5 | {"indexer_types": ["full"] * 3 + (["shared"] * 3 + ["full"]) * 18 + ["shared"] * 3}, "GLM-5", 744, 40,
        78 * 2 * 576 + 21 * 2 * 128, 0, (_MTP,),
    ),
    "MiniMax-M2.5": Published(MINIMAX_M2, "MiniMax M2", 230, 10, 62 * 2 * 2 * 8 * 128, 0, (_MTP,)),
    "DeepSeek-V4-Flash": Published(
        DEEPSEEK_V4_FLASH, "DeepSeek V4", 284, 13,
        2 * (21 * (512 + 128) / 4 + 20 * 512 / 128), 43 * 4 * 128 * 512 + _pools(21, 20), (_MTP,),
    ),
    "DeepSeek-V4-Pro": Published(
        DEEPSEEK_V4_PRO, "DeepSeek V4", 1573, 49,
        2 * (30 * (512 + 128) / 4 + 31 * 512 / 128), 61 * 4 * 128 * 512 + _pools(30, 31), (_MTP,),
    ),
}  # fmt: skip
