"""Training a small byte-level BPE tokenizer, and writing the files that make a tokenizer of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Control tokens; ids 0, 1, 2."""
TEXT = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
CALL = ("<tool_call>\n<function=sql>\n<parameter=query>\n", "\n</parameter>\n</function>\n</tool_call>")
RESPONSE = ("\n<tool_response>\n", "\n</tool_response>")
"""Fixed pieces of the format that are one token each, so that a call costs two tokens beside its SQL."""

_SPLIT = r"'s|(?i: ?[cv]\d{1,2}\b)| ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer with Qwen's control tokens. Digits stand alone; handles (`c12`, `v3`) stay whole."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    added += [AddedToken(text, special=False, normalized=False) for text in (*TEXT, *CALL, *RESPONSE)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(added) + len(SPECIAL),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(added[: len(SPECIAL)])
    tokenizer.add_tokens(added[len(SPECIAL) :])
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, template: str) -> None:
    """`tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(template)
    ids = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    generation = {"eos_token_id": ids, "pad_token_id": ids[1], "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
