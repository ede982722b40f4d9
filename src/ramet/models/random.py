"""Complete checkpoints with random weights, in the published layout: for tests, benchmarks and trying things out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from ramet.models.decoder import Config, Decoder
from ramet.models.deepseek_v3 import DeepseekV3, KimiK25
from ramet.models.deepseek_v3_config import DeepseekV3Config, KimiK25Config
from ramet.models.deepseek_v4 import DeepseekV4
from ramet.models.deepseek_v4_config import HASH, HEAVY, ROUTED, SLIDING, SPARSE, DeepseekV4Config
from ramet.models.deepseek_v32 import DeepseekV32, GlmMoeDsa
from ramet.models.deepseek_v32_config import DeepseekV32Config, GlmMoeDsaConfig
from ramet.models.loading import save
from ramet.models.minimax_m2 import MiniMaxM2
from ramet.models.minimax_m2_config import MiniMaxM2Config
from ramet.models.qwen3_5 import Qwen3_5
from ramet.models.qwen3_5_config import MoEConfig, Qwen3_5Config
from ramet.models.vision_kimi import KimiVisionConfig
from ramet.models.vision_qwen3_5 import Qwen3_5VisionConfig

_SIGHT = {
    "qwen3_5": ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "kimi_k25": (
        *("<|media_begin|>", "<|media_content|>", "<|media_end|>", "<|media_pad|>", "<|kimi_k25_video_placeholder|>"),
    ),
}
"""The marks of pictures, by chat format."""
_DSML = {
    "control": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    "tags": ("｜DSML｜",),
    "ends": ("<｜end▁of▁sentence｜>",),
}
_CHAT: dict[str, dict[str, tuple[str, ...]]] = {
    "qwen3_5": {
        "control": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "tags": ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
        "ends": ("<|im_end|>", "<|endoftext|>"),
    },
    "glm5": {
        "control": (
            *("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        ),
        "tags": (
            *("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
            *("<tool_response>", "</tool_response>"),
        ),
        "ends": ("<|endoftext|>", "<|user|>", "<|observation|>"),
    },
    "minimax_m2": {
        "control": ("]~!b[", "]~b]", "[e~["),
        "tags": ("<minimax:tool_call>", "</minimax:tool_call>"),
        "ends": ("[e~[",),
    },
    "kimi_k25": {
        "control": ("<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),
        "tags": (
            *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
            *("<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        ),
        "ends": ("<|im_end|>",),
    },
    "deepseek_v32": _DSML,
    "deepseek_v4": _DSML,
    "deepseek_v3": {
        "control": (
            *_DSML["control"],
            *("<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
        ),
        "tags": (
            *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
            "<｜tool▁call▁end｜>",
        ),
        "ends": ("<｜end▁of▁sentence｜>",),
    },
}
"""The control tokens, tags and ends of replies in each chat format, as `ramet.chat.formats` names them."""

_TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "intermediate_size": 48,
}
_TINY_LATENT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
_TINY_SPARSE = _TINY_LATENT | {"index_n_heads": 3, "index_head_dim": 16, "index_topk": 24}
_TINY_SIGHT = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_heads": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
    "patch_size": 8,
}
_TINY_KIMI_SIGHT = {
    "vt_hidden_size": 32,
    "text_hidden_size": 32,
    "vt_intermediate_size": 40,
    "vt_num_hidden_layers": 2,
    "vt_num_attention_heads": 2,
    "patch_size": 4,
    "init_pos_emb_height": 6,
    "init_pos_emb_width": 6,
}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("qwen3_5", _TINY),
    "tiny-moe": ("qwen3_5", _TINY | {"moe": MoEConfig(8, 2, 16, 24)}),
    # With a vision tower, whose tokens the tokenizer has as well; rope enough for all three axes.
    "tiny-sight": ("qwen3_5", _TINY | {"head_dim": 32, "partial_rotary_factor": 0.5, "vision": _TINY_SIGHT}),
    # Qwen3.5-0.8B, in bfloat16: 20.2 MB of recurrent and window states, 12.3 kB of rows a token.
    "0.8b": (
        "qwen3_5",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "intermediate_size": 3584,
            "tie_word_embeddings": True,
        },
    ),
    # The same layers, 64 times thinner: 314 kB of states, 192 B of rows a token; states weigh 1638 tokens, there 1644.
    "thin": (
        "qwen3_5",
        {
            "hidden_size": 64,
            "num_hidden_layers": 24,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 1,
            "linear_key_head_dim": 48,
            "linear_value_head_dim": 80,
            "intermediate_size": 128,
            "tie_word_embeddings": True,
        },
    ),
    "tiny-deepseek-v4": (
        "deepseek_v4",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "head_dim": 16,
            "qk_rope_head_dim": 8,
            "q_lora_rank": 24,
            "o_groups": 2,
            "o_lora_rank": 12,
            "moe_intermediate_size": 20,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "index_n_heads": 3,
            "index_head_dim": 12,
            "index_topk": 5,
            "layer_types": (SLIDING, SPARSE, HEAVY),
            "mlp_layer_types": (HASH, ROUTED, ROUTED),
            "sliding_window": 16,
            "heavy_ratio": 64,
            "max_position_embeddings": 4096,
        },
    ),
    "tiny-minimax": (
        "minimax_m2",
        {
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rotary_dim": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
        },
    ),
    "tiny-deepseek-v3": ("deepseek_v3", _TINY_LATENT),
    "tiny-kimi": ("kimi_k25", _TINY_LATENT),
    "tiny-kimi-sight": ("kimi_k25", _TINY_LATENT | {"vision": _TINY_KIMI_SIGHT}),
    "tiny-deepseek-v32": ("deepseek_v32", _TINY_SPARSE),
    "tiny-glm": ("glm_moe_dsa", _TINY_SPARSE),
}
"""Sizes to write checkpoints in: a family of `_FAMILIES`, and fields of its config."""

_FAMILIES: dict[str, tuple[Callable[..., Decoder], Callable[..., Config], str]] = {
    "qwen3_5": (Qwen3_5, Qwen3_5Config, "qwen3_5"),
    "minimax_m2": (MiniMaxM2, MiniMaxM2Config, "minimax_m2"),
    "deepseek_v4": (DeepseekV4, DeepseekV4Config, "deepseek_v4"),
    "deepseek_v3": (DeepseekV3, DeepseekV3Config, "deepseek_v3"),
    "kimi_k25": (KimiK25, KimiK25Config, "kimi_k25"),
    "deepseek_v32": (DeepseekV32, DeepseekV32Config, "deepseek_v32"),
    "glm_moe_dsa": (GlmMoeDsa, GlmMoeDsaConfig, "glm5"),
}
"""A family's model, config and chat format."""
_SPREAD = ("A_log", "dt_bias", "conv1d.weight")
"""How the names of parameters end whose fresh values are spread already."""


def write_random_checkpoint(
    path: str | Path,
    *,
    seed: int,
    preset: str = "tiny",
    dtype: torch.dtype = torch.float32,
    nested: bool = True,
    ahead: bool = False,
    corpus: Iterable[str] | None = None,
    corpus_vocabulary: int = 4096,
    **config_overrides: Any,
) -> Path:
    """Write a checkpoint folder that differs from a family's published ones only in sizes and sense; returns `path`.

    `preset` is a key of `PRESETS`; `config_overrides` are fields of the family's config. The tokenizer is byte-level
    with the control tokens of the family's chat format: one token per byte, or, where a `corpus` is given, a BPE of at
    most `corpus_vocabulary` tokens trained on it. Every weight matters to the logits, norms included. `nested` is the
    published layout, else that of a text model alone; with `ahead`, the part that guesses one token further (MTP) is
    there too. The same arguments write the same files.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    family, sizes = PRESETS[preset]
    model, config_type, chat = _FAMILIES[family]
    sizes = sizes | config_overrides
    vision = sizes.get("vision")
    size = write_tokenizer(folder, corpus, corpus_vocabulary, chat, sight=vision is not None)
    if vision is not None:
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        write = _with_qwens_sight if family == "qwen3_5" else _with_kimis_sight
        sizes["vision"] = write(folder, vision, [vocabulary[mark] for mark in _SIGHT[chat]])
    config = config_type(**({"vocab_size": -(-size // 64) * 64} | sizes))
    if config.vocab_size < size:
        raise ValueError(f"vocab_size {config.vocab_size} is less than the tokenizer's {size}")
    fresh = model(config)
    if ahead:
        fresh.look_ahead()
    save(_randomise(fresh, seed), folder, dtype=dtype, nested=nested)
    return folder


def _with_qwens_sight(folder: Path, sizes: dict[str, Any], tokens: list[int]) -> Qwen3_5VisionConfig:
    """The tower's config, with the tokens of `_SIGHT`; writes the processors' configs, of small pictures."""
    start, end, image, video = tokens
    marks = {
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
    }
    config = Qwen3_5VisionConfig(**sizes, **marks)
    cell = (config.patch_size * config.spatial_merge_size) ** 2
    processor = {
        "size": {"shortest_edge": 4 * cell, "longest_edge": 48 * cell},
        "patch_size": config.patch_size,
        "temporal_patch_size": config.temporal_patch_size,
        "merge_size": config.spatial_merge_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    kinds = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen3VLProcessor"}
    _write_json(folder / "preprocessor_config.json", processor | kinds)
    kinds = {"video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor"}
    _write_json(folder / "video_preprocessor_config.json", processor | kinds)
    return config


def _with_kimis_sight(folder: Path, sizes: dict[str, Any], tokens: list[int]) -> KimiVisionConfig:
    """As `_with_qwens_sight`; one config for pictures and films, in the published words."""
    config = KimiVisionConfig(**sizes, media_placeholder_token_id=tokens[3])
    processor = {
        "in_patch_limit": 48 * config.merge**2,
        "in_patch_limit_each_frame": 24 * config.merge**2,
        "patch_limit_on_one_side": 64,
        "patch_size": config.patch_size,
        "merge_kernel_size": config.merge,
        "temporal_merge_kernel_size": config.init_pos_emb_time,
        "fixed_output_tokens": None,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    _write_json(folder / "preprocessor_config.json", {"media_proc_cfg": processor})
    return config


def write_tokenizer(
    folder: Path,
    corpus: Iterable[str] | None = None,
    vocabulary: int = 4096,
    chat: str = "qwen3_5",
    *,
    sight: bool = False,
) -> int:
    """Write the tokenizer, its config, the chat template and `generation_config.json`; returns the tokens' number.

    With `sight` it has the marks of pictures.
    """
    words = _CHAT[chat]
    control, tags, ends = words["control"], ("<think>", "</think>", *words["tags"]), words["ends"]
    control += _SIGHT[chat] if sight else ()
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    added = len(control) + len(tags)
    trainer = BpeTrainer(
        vocab_size=(256 if corpus is None else max(256, vocabulary - added)),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus or (), trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in tags])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": ends[0],
            "pad_token": ends[-1],
            "bos_token": control[0] if control[0] not in ends else None,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "split_special_tokens": False,
        },
    )
    _write_json(
        folder / "generation_config.json",
        {
            "eos_token_id": [tokenizer.token_to_id(end) for end in ends],
            "pad_token_id": tokenizer.token_to_id(ends[-1]),
            "do_sample": True,
            "temperature": 1.0,
            "top_p": 0.95,
            "top_k": 20,
        },
    )
    template = resources.files("ramet") / "chat" / "templates" / f"{chat}.jinja"
    (folder / "chat_template.jinja").write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    return int(tokenizer.get_vocab_size(with_added_tokens=True))


@torch.no_grad()
def _randomise(model: Decoder, seed: int) -> Decoder:
    """Logits near one; layers that add to the residual stream less than is there, as in trained models, so that float32
    errors do not grow from layer to layer; norms, decays and time steps spread around their usual values.
    """
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, weight in model.named_parameters():
        if name == "embed_tokens.weight":
            weight.normal_(0.0, 1.0 if model.lm_head else weight.shape[-1] ** -0.5, generator=generator)
        elif name == "lm_head.weight":
            weight.normal_(0.0, weight.shape[-1] ** -0.5, generator=generator)
        elif name.endswith(_SPREAD) or not weight.is_floating_point():
            continue
        elif weight.dim() > 3:  # a convolution over patches
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
        elif weight.dim() == 1:
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        else:
            weight.normal_(0.0, 0.5 * weight.shape[-1] ** -0.5, generator=generator)
    return model


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
