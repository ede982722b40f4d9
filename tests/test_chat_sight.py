"""Pictures' places in prompts: marks, films, results of tools, and templates that do not know of them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from ramet.chat import Chat, Tokenizer, sight
from ramet.chat.messages import MessageError
from ramet.chat.prompt import Prompt
from ramet.chat.sight import by_name
from ramet.chat.template import ChatTemplate, load_templates
from ramet.models.images import Images, QwenImages
from ramet.models.images_kimi import KimiImages
from tests.chat_support import build_tokenizer, tool_call, write_chat_files
from tests.pictures import data_url, drawing, encoded, film

ONE, TALL = (data_url(encoded(drawing(*size))) for size in ((90, 60), (40, 130)))
QWEN_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
KIMI_MARKS = (
    "<|media_begin|>",
    "<|media_content|>",
    "<|media_end|>",
    "<|media_pad|>",
    "<|kimi_k25_video_placeholder|>",
)
KIMI = """{%- for message in messages -%}<|im_start|>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == 'image' -%}<|media_begin|>image<|media_content|><|media_pad|><|media_end|>
{%- elif part.type == 'video' -%}<|kimi_k25_video_placeholder|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}"""


@cache
def tokenizer(marks: tuple[str, ...]) -> Tokenizer:
    backend = build_tokenizer()
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    end = backend.token_to_id("<|im_end|>")
    assert end is not None
    return Tokenizer(backend, {}, [end])


@cache
def chat(family: str) -> Chat:
    marks, images = {
        "qwen": (QWEN_MARKS, QwenImages(8, 2, 2, 1024, 12288, 1024, 12288)),
        "kimi": (KIMI_MARKS, KimiImages(4, 2, 4)),
    }[family]
    found: Images = images  # type: ignore[assignment]
    if family == "kimi":
        return Chat({"default": ChatTemplate(KIMI, "a test")}, tokenizer(marks), found)
    with tempfile.TemporaryDirectory() as folder:
        return Chat(load_templates(write_chat_files(Path(folder))), tokenizer(marks), found)


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def shown(prompt: Prompt, family: str) -> str:
    """The prompt's text as it is given, each picture's rows as one `#`."""
    words = chat(family).tokenizer
    out, at = "", 0
    for each in prompt.pictures:
        out += words.decode(prompt.tokens[at : each.position], specials=True) + "#"
        rows = prompt.tokens[each.position : each.end]
        assert len(set(rows)) == 1 and len(rows) == each.picture.tokens
        at = each.end
    return out + words.decode(prompt.tokens[at:], specials=True)


def test_each_picture_stands_in_its_marks() -> None:
    messages = [
        {"role": "user", "content": [text("a "), image(ONE), text(" b "), image(TALL)]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": [image(ONE), text("<|image_pad|> d")]},
    ]
    prompt = chat("qwen").render(messages)
    one = "<|vision_start|>#<|vision_end|>"
    assert shown(prompt, "qwen").startswith(f"<|im_start|>user\na {one} b {one}<|im_end|>\n<|im_start|>assistant\n")
    assert f"<|im_start|>user\n{one}<|image_pad|> d<|im_end|>" in shown(prompt, "qwen")
    first, _, third = prompt.pictures
    assert first.picture is third.picture  # read once
    assert prompt.boundaries[0] > prompt.pictures[1].end and prompt.messages[0] == messages[0]
    assert all(not each.position < at < each.end for each in prompt.pictures for at in prompt.save_at)


def test_a_result_of_a_tool_shows_a_picture() -> None:
    messages = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "tool_calls": [tool_call("look", {})]},
        {"role": "tool", "tool_call_id": "call_0", "content": [image(ONE), text("that")]},
    ]
    assert "<tool_response>\n<|vision_start|>#<|vision_end|>that" in shown(chat("qwen").render(messages), "qwen")


def test_films_in_both_families() -> None:
    frames = [data_url(encoded(shot)) for shot in film(6)]
    messages = [{"role": "user", "content": [text("f "), {"type": "video", "video": frames, "fps": 2}, image(ONE)]}]
    part = "seconds><|vision_start|>#<|vision_end|>"
    expected = f"f <0.2 {part}<1.2 {part}<2.2 {part}<|vision_start|>#<|vision_end|><|im_end|>"
    assert expected in shown(chat("qwen").render(messages), "qwen")
    part = "<|media_begin|>video<|media_content|>#<|media_end|>"
    expected = f"f 00:00:00.000{part}00:00:02.000{part}<|media_begin|>image<|media_content|>#<|media_end|><|im_end|>"
    assert expected in shown(chat("kimi").render(messages), "kimi")


def test_a_template_that_shows_no_pictures_is_not_believed() -> None:
    plain = Chat(
        {"default": ChatTemplate("{{ messages[0].content[0].text }}<|im_end|>", "a test")},
        tokenizer(QWEN_MARKS),
        QwenImages(8, 2, 2),
    )
    with pytest.raises(MessageError, match="shows 0 of 1 pictures"):
        plain.render([{"role": "user", "content": [text("a"), image(ONE)]}])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image_url"}, "must be a data: URL"),
        ({"type": "image_url", "image_url": {"url": 5}}, "must be a data: URL"),
        ({"type": "video", "video": []}, "must be a data: URL"),
        ({"type": "video", "video": [ONE], "fps": 0}, "fps must be"),
        ({"type": "image", "image": "sha256:00"}, "does not keep pictures"),
        ({"type": "audio", "audio": ""}, "only text, pictures and films"),
    ],
)
def test_a_part_that_is_no_picture_is_named(part: dict[str, Any], message: str) -> None:
    with pytest.raises(MessageError, match=rf"messages\[1\]\.content\[1\].*{message}"):
        chat("qwen").render([{"role": "system", "content": "s"}, {"role": "user", "content": [text("a"), part]}])


def test_what_unfolds_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [data_url(encoded(shot)) for shot in film(6)]
    monkeypatch.setattr(sight, "FILM_PIXELS", 5 * 72 * 56)
    with pytest.raises(MessageError, match=r"this film cannot be used: it has more than 768 frames, or"):
        chat("qwen").render([{"role": "user", "content": [{"type": "video", "video": frames}]}])
    monkeypatch.setattr(sight, "_SHOWN", 1 << 17)
    with pytest.raises(MessageError, match=r"content\[3\]: this picture.*with those before it, it has more than 0 MiB"):
        chat("qwen").render([{"role": "user", "content": [image(ONE)] * 9}])


def test_a_message_by_its_pictures_names() -> None:
    message = {"role": "tool", "messages": [{"role": "tool", "content": [image(ONE), text("a")]}]}
    named = by_name(message)["messages"][0]["content"]
    assert named[0]["type"] == "image" and named[0]["image"].startswith("sha256:") and len(named[0]["image"]) == 71
    assert named[1] == text("a") and by_name({"role": "user", "content": "b"}) == {"role": "user", "content": "b"}
    assert named == by_name(message)["messages"][0]["content"]
