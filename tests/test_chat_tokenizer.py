"""Text <-> tokens, against the transformers library, and what is said about files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ramet.chat import Tokenizer
from ramet.models.errors import CheckpointError
from tests.chat_support import PLAIN, SPECIAL, write_chat_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_files(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def oracle(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folder)


texts = st.lists(st.text(max_size=12) | st.sampled_from([*SPECIAL, *PLAIN, "the tool ", "🙂", "\n\n"]), max_size=6).map(
    "".join
)


@given(text=texts)
def test_encodes_as_transformers_does(tokenizer: Tokenizer, oracle: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.encode(text) == oracle.encode(text, add_special_tokens=False)


@given(tokens=st.lists(st.integers(0, 608), max_size=30))
def test_decodes_as_transformers_does(tokenizer: Tokenizer, oracle: PreTrainedTokenizerFast, tokens: list[int]) -> None:
    assert tokenizer.decode(tokens, specials=True) == oracle.decode(tokens)
    assert tokenizer.decode(tokens) == oracle.decode(tokens, skip_special_tokens=True)


@given(tokens=st.lists(st.integers(0, 608), max_size=30))
def test_a_stream_is_the_whole_text_whatever_the_tokens(tokenizer: Tokenizer, tokens: list[int]) -> None:
    stream = tokenizer.stream()
    pieces = [stream.feed(token) for token in tokens]
    assert "".join([*pieces, stream.finish()]) == tokenizer.decode(tokens)


def test_a_stream_never_shows_half_a_character(tokenizer: Tokenizer) -> None:
    text = "a🙃é"
    for size in range(1, len(text) + 1):
        stream = tokenizer.stream()
        shown = ""
        for token in tokenizer.encode(text[:size]):
            shown += stream.feed(token)
            assert text.startswith(shown)
        assert shown == text[:size] and stream.finish() == ""


def test_a_stream_that_ends_inside_a_character_says_so(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    first = next(token for token in range(tokenizer.vocab_size) if tokenizer.token_bytes(token) == b"\xf0")
    assert stream.feed(first) == "" and stream.finish() == "\ufffd"


def test_control_tokens_are_hidden_and_tags_that_parsers_need_are_not(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("<think>a</think><tool_call><|im_end|><|endoftext|>")
    assert tokenizer.decode(tokens) == "<think>a</think><tool_call>"
    stream = tokenizer.stream()
    assert "".join(map(stream.feed, tokens)) == "<think>a</think><tool_call>"


def test_plain_encoding_makes_no_control_tokens(tokenizer: Tokenizer) -> None:
    text = "<|im_end|>\n<|im_start|>system"
    tokens = tokenizer.encode_plain(text)
    assert not tokenizer.special_ids & set(tokens)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.encode_plain("<think>") == tokenizer.encode("<think>")


def test_the_ends_of_a_reply_come_from_the_configs_the_turns_own_first(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([end], specials=True) for end in tokenizer.eos_ids] == ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.turn_end == "<|im_end|>"


def test_ids_that_stand_for_nothing_decode_to_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(100_000) == b"" and tokenizer.decode([-1]) == ""


def test_every_byte_has_a_token_and_bytes_come_back(tokenizer: Tokenizer) -> None:
    single = {tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= single


def break_folder(folder: Path, name: str, text: str | None) -> Path:
    write_chat_files(folder)
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", '{"version": "1.0", "mod', "not valid JSON"),
        ("tokenizer.json", "[]", "expected a JSON object, found list"),
        ("tokenizer.json", '{"version": "1.0"}', "not a tokenizer that can be read"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", '{"eos_token": "<end>"}', "'<end>' is not in tokenizer.json"),
        ("generation_config.json", '{"eos_token_id": [999999]}', "999999 is not a token"),
        ("generation_config.json", '{"eos_token_id": "x"}', "'x' is not a token"),
        ("generation_config.json", '{"eos_token_id": -1}', "-1 is not a token"),
        ("generation_config.json", '{"eos_token_id": true}', "True is not a token"),
        ("tokenizer_config.json", '{"a": ' + "[" * 9999 + "]" * 9999 + "}", "nested too deeply"),
    ],
)
def test_wrong_files_are_named_with_what_is_wrong(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as error:
        Tokenizer.load(break_folder(tmp_path, name, text))
    assert str(tmp_path) in str(error.value)


def test_a_torn_tokenizer_is_an_error_wherever_it_was_torn(tmp_path: Path) -> None:
    whole = (write_chat_files(tmp_path) / "tokenizer.json").read_bytes()
    for cut in range(0, len(whole) - 2, len(whole) // 50):
        (tmp_path / "tokenizer.json").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
            Tokenizer.load(tmp_path)


def test_a_vocabulary_that_is_not_of_bytes_is_refused(tmp_path: Path) -> None:
    file = write_chat_files(tmp_path) / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "decoder": {"type": "Fuse"}}))
    with pytest.raises(CheckpointError, match="byte-level"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_must_say_what_ends_a_turn(tmp_path: Path) -> None:
    file = write_chat_files(tmp_path) / "tokenizer.json"
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    assert Tokenizer.load(tmp_path).turn_end == "<|im_end|>"  # as in base checkpoints of the family
    file.write_text(file.read_text().replace("<|im_end|>", "<end>"))
    assert Tokenizer.load(tmp_path).turn_end == "<|endoftext|>"
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert Tokenizer.load(tmp_path).turn_end == "<end>"  # generation_config.json still names it
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match="no end-of-turn token"):
        Tokenizer.load(tmp_path)


def test_tokens_in_the_config_may_be_written_out(tmp_path: Path) -> None:
    write_chat_files(tmp_path, config={"eos_token": {"content": "<|im_end|>", "special": True}, "pad_token": None})
    assert Tokenizer.load(tmp_path).named_tokens == {"eos_token": "<|im_end|>"}
