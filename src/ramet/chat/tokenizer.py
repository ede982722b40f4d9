"""Text <-> tokens: byte-level BPE from a checkpoint's `tokenizer.json`."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from ramet.chat.formats import CONTROL, REPLY_TAGS
from ramet.models.errors import CheckpointError
from ramet.models.fields import read_json

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet, by which byte-level vocabularies write bytes as printable characters: character -> byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


_BYTE_OF = _byte_of_character()


class Tokenizer:
    """Encodes and decodes for one checkpoint. Safe to use from several threads.

    `vocab_size`: every token's id is below it; a model may have more rows, which stand for nothing.
    `named_tokens`: the tokens that the config names (`eos_token`, `pad_token`, ...), as chat templates see them.
    `eos_ids`: tokens that end a reply, the turn's own end first.
    `turn_end`: the text of the token that closes a message (`<|im_end|>`).
    `special_ids`: control tokens; they never appear in decoded text unless asked for. The tags of reasoning and calls
    are not among them, whatever the vocabulary says of them: parsers must see them.
    `special_texts`: what no message may contain as a token.
    """

    def __init__(self, backend: tokenizers.Tokenizer, named_tokens: dict[str, str], eos_ids: Sequence[int]) -> None:
        self.backend = backend
        self.named_tokens = named_tokens
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        added = backend.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        control = {id: token.content for id, token in added.items() if token.special or token.content in CONTROL}
        self.special_ids = frozenset(id for id, content in control.items() if content not in REPLY_TAGS)
        self.special_texts = frozenset(control.values())
        self.eos_ids = tuple(eos_ids)
        self.turn_end = self._added.get(self.eos_ids[0]) or (backend.id_to_token(self.eos_ids[0]) or "")
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` from a checkpoint's folder.

        Raises CheckpointError if they are missing, damaged, not byte-level BPE, or name no end-of-turn token.
        """
        folder = Path(path)
        file = folder / "tokenizer.json"
        if not file.is_file() and (folder / "tiktoken.model").is_file():
            raise CheckpointError(
                f"{folder}: its tokenizer is in tiktoken's form (tiktoken.model), which is not read yet; convert it to "
                "a tokenizer.json with the transformers library and put that beside it"
            )
        if not file.is_file():
            raise CheckpointError(
                f"{folder}: no tokenizer.json. Give the folder of a checkpoint in the published layout "
                "(config.json, model.safetensors, tokenizer.json, ...)."
            )
        contents = read_json(file)
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{file}: not a tokenizer that can be read ({error})") from error
        if not _is_byte_level(contents.get("decoder")):
            raise CheckpointError(f"{file}: its decoder is not byte-level; Ramet reads byte-level vocabularies only")
        backend.no_truncation()
        backend.no_padding()
        config_file = folder / "tokenizer_config.json"
        config = read_json(config_file) if config_file.is_file() else {}
        named = {name: text for name in _NAMED_TOKENS if (text := _token_text(config.get(name))) is not None}
        return cls(backend, named, _end_ids(folder, backend, named))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; control tokens written in it are recognised, none are added."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of `text` with what looks like a control token taken as the ordinary characters it is."""
        return list(self._without_specials.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int], *, specials: bool = False) -> str:
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD; control tokens only with `specials`."""
        return b"".join(self.token_bytes(token, specials=specials) for token in tokens).decode("utf-8", "replace")

    def stream(self, *, specials: bool = False) -> StreamDecoder:
        """A decoder that is fed one token at a time."""
        return StreamDecoder(self, specials=specials)

    def token_bytes(self, token: int, *, specials: bool = True) -> bytes:
        """The bytes that `token` stands for; empty for ids that the vocabulary has no text for (padding rows)."""
        if not specials and token in self.special_ids:
            return b""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._find_bytes(token)
        return known

    def token_id(self, text: str) -> int | None:
        """The id of the token that is written `text` in the vocabulary, if there is one."""
        token_id = self.backend.token_to_id(text)
        return None if token_id is None else int(token_id)

    def _find_bytes(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        written = self.backend.id_to_token(token) if token >= 0 else None
        if written is None:
            return b""
        try:
            return bytes(_BYTE_OF[character] for character in written)
        except KeyError:
            return str(written).encode()

    @cached_property
    def _without_specials(self) -> tokenizers.Tokenizer:
        state = json.loads(self.backend.to_str())
        for token in state["added_tokens"]:
            token["special"] = token["special"] or token["content"] in CONTROL
        backend = tokenizers.Tokenizer.from_str(json.dumps(state))
        backend.encode_special_tokens = True
        return backend


class StreamDecoder:
    """Decodes token by token: text comes out as soon as its bytes are whole characters, and never changes after."""

    def __init__(self, tokenizer: Tokenizer, *, specials: bool = False) -> None:
        self._tokenizer = tokenizer
        self._specials = specials
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that `token` completes: empty while a character's bytes are still missing."""
        return self._utf8.decode(self._tokenizer.token_bytes(token, specials=self._specials))

    def finish(self) -> str:
        """What is left: U+FFFD if the tokens ended inside a character, else nothing."""
        return self._utf8.decode(b"", final=True)


def _is_byte_level(decoder: Any) -> bool:
    if not isinstance(decoder, dict):
        return False
    if decoder.get("type") == "Sequence":
        return any(_is_byte_level(part) for part in decoder.get("decoders") or [])
    return decoder.get("type") == "ByteLevel"


def _token_text(value: Any) -> str | None:
    if isinstance(value, dict):  # written as an AddedToken's fields
        value = value.get("content")
    return value if isinstance(value, str) else None


def _end_ids(folder: Path, backend: tokenizers.Tokenizer, named: dict[str, str]) -> list[int]:
    """The turn's end first (`<|im_end|>` or tokenizer_config's eos_token), then what generation_config.json adds.

    Base checkpoints name `<|endoftext|>` as their eos_token, but a turn in a conversation ends as in the others.
    """
    ends: list[int] = []
    if (turn_end := backend.token_to_id("<|im_end|>")) is not None:
        ends.append(turn_end)
    if "eos_token" in named:
        token_id = backend.token_to_id(named["eos_token"])
        if token_id is None:
            raise CheckpointError(
                f"{folder / 'tokenizer_config.json'}: its eos_token {named['eos_token']!r} is not in tokenizer.json"
            )
        if token_id not in ends:
            ends.append(token_id)
    file = folder / "generation_config.json"
    if file.is_file():
        value = read_json(file).get("eos_token_id")
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is None:
                continue
            known = isinstance(token_id, int) and not isinstance(token_id, bool) and 0 <= token_id < 1 << 32
            if not known or backend.id_to_token(token_id) is None:
                raise CheckpointError(f"{file}: its eos_token_id {token_id!r} is not a token of tokenizer.json")
            if token_id not in ends:
                ends.append(token_id)
    if not ends:
        raise CheckpointError(
            f"{folder}: no end-of-turn token. Name it as eos_token in tokenizer_config.json "
            "or as eos_token_id in generation_config.json."
        )
    return ends
