"""Pictures over HTTP with the official clients, both families: reuse, restarts, and how each API refuses."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from ramet.models.random import write_random_checkpoint
from ramet.server.settings import Settings
from tests.pictures import data_url, drawing, encoded, film
from tests.serving import NAME, NO_THINKING, Serving, serving, tiny_checkpoint

ONE, OTHER = (data_url(encoded(drawing(90, 60, seed))) for seed in (1, 2))
TALL = data_url(encoded(drawing(40, 130), "JPEG"), "image/jpeg")


@pytest.fixture(scope="module", params=["tiny-sight", "tiny-kimi-sight"])
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(preset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("sight"), seed=3, preset=preset)


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Serving]:
    with serving(Settings(model=checkpoint)) as found:
        yield found


def user(*parts: str | dict[str, Any]) -> dict[str, Any]:
    """A user's message of texts and picture URLs."""
    content: list[Any] = []
    for part in parts:
        if isinstance(part, dict):
            content.append(part)
        elif part.startswith("data:"):
            content.append({"type": "image_url", "image_url": {"url": part}})
        else:
            content.append({"type": "text", "text": part})
    return {"role": "user", "content": content}


def ask(server: Serving, *messages: dict[str, Any], **fields: Any) -> Any:
    told = {"max_tokens": 6, "temperature": 0, "logprobs": True, "extra_body": NO_THINKING, **fields}
    return server.openai.chat.completions.create(model=NAME, messages=messages, **told)  # type: ignore[call-overload]


def odds(answer: Any) -> list[float]:
    """The log probabilities of a reply: equal ones come of equal bits."""
    return [entry.logprob for entry in answer.choices[0].logprobs.content]


def encodings(server: Serving) -> int:
    """How many times the tower has run."""
    return server.runtime.engine.stats().pictures_encoded


def test_a_picture_is_encoded_once_and_its_rows_are_reused(server: Serving) -> None:
    before = encodings(server)
    first = ask(server, user("What is this? ", ONE, " Say."))
    again = ask(server, user("What is this? ", ONE, " Say."))
    assert odds(again) == odds(first) and encodings(server) == before + 1
    prompt = first.usage.prompt_tokens
    assert again.usage.prompt_tokens_details.cached_tokens >= prompt - 16
    other = ask(server, user("What is this? ", OTHER, " Say."))
    assert odds(other) != odds(first) and encodings(server) == before + 2
    assert other.usage.prompt_tokens == prompt
    assert other.usage.prompt_tokens_details.cached_tokens < 30  # up to the mark, where the pictures differ
    assert other.ramet["divergence"]["there"] == "(a picture)"
    with server.http() as http:
        page = http.get("/v1/ramet/tree?limit=1000").text
    assert "sha256:" in page and ONE[-99:] not in page  # the tree keeps names of pictures
    # the same picture at another place in another session is not encoded again
    ask(server, user("Two: ", OTHER, ONE))
    assert encodings(server) == before + 2


def test_many_at_once_encode_a_picture_once(server: Serving) -> None:
    new = data_url(encoded(drawing(100, 100, 9)))
    before = encodings(server)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: ask(server, user(f"{n % 4}", new)), range(8)))
    assert encodings(server) == before + 1
    assert [odds(answer) for answer in answers[:4]] == [odds(answer) for answer in answers[4:]]


def test_a_conversation_goes_on_with_its_pictures(server: Serving) -> None:
    messages = [user("Look: ", ONE)]
    for turn, more in enumerate((OTHER, TALL, ONE)):
        answer = ask(server, *messages)
        assert answer.usage.prompt_tokens_details.cached_tokens >= 30 * turn
        messages += [
            {"role": "assistant", "content": answer.choices[0].message.content},
            user(f"and {turn}: ", more, " so?"),
        ]
    whole = ask(server, *messages)
    cold = ask(server, *messages, n=2)
    assert whole.choices[0].message.content == cold.choices[0].message.content == cold.choices[1].message.content


def test_responses_and_a_previous_response(server: Serving) -> None:
    def create(*parts: Any, **fields: Any) -> Any:
        return server.openai.responses.create(
            model=NAME, input=[{"role": "user", "content": list(parts)}], max_output_tokens=5, temperature=0, **fields
        )

    text = {"type": "input_text", "text": "this?"}
    first = create(text, {"type": "input_image", "image_url": ONE, "detail": "auto"})
    second = create(text, {"type": "input_image", "image_url": TALL}, previous_response_id=first.id)
    third = create({"type": "input_text", "text": "and?"}, previous_response_id=second.id)
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 2
    assert third.usage.input_tokens_details.cached_tokens >= second.usage.total_tokens - 2
    fork = create(text, {"type": "input_image", "image_url": OTHER}, previous_response_id=first.id)
    assert fork.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 2
    assert fork.ramet["divergence"]["cause"] == "fork"


def test_anthropics_form_and_a_tool_that_shows_a_picture(server: Serving) -> None:
    def image(url: str, kind: str = "image/png") -> dict[str, Any]:
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": url.partition(",")[2]}}

    said = [{"type": "text", "text": "What is this? "}, image(ONE), {"type": "text", "text": " Say."}]
    tools: Any = [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    messages: list[Any] = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "look", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": [image(TALL, "image/jpeg")]}],
        },
    ]
    client = server.anthropic
    first = client.messages.create(model=NAME, max_tokens=4, messages=messages[:1], tools=tools)
    full = client.messages.create(model=NAME, max_tokens=4, messages=messages, tools=tools)
    assert full.usage.cache_read_input_tokens and full.usage.cache_read_input_tokens > 30
    counted = client.messages.count_tokens(model=NAME, messages=messages, tools=tools).input_tokens
    assert counted == (full.usage.input_tokens or 0) + full.usage.cache_read_input_tokens
    assert 1 <= first.usage.output_tokens <= 4


def test_a_restart_and_a_lost_tree_change_no_bit(checkpoint: Path, tmp_path: Path) -> None:
    messages = [user("Two: ", ONE, " and ", TALL, ". Which?")]
    longer = [*messages, {"role": "assistant", "content": "The first."}, user("And now? ", OTHER)]
    found = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        with serving(Settings(model=checkpoint, tree_dir=folder)) as each:
            if len(found) < 2:
                ask(each, *messages)
            answer = ask(each, *longer)
            found.append((odds(answer), encodings(each)))
    (cold, first), (restored, second), (at_once, third) = found
    assert cold == restored == at_once
    assert (first, second, third) == (3, 0, 3)  # what was run is not encoded again


def test_films_as_frames_and_as_a_file(server: Serving) -> None:
    shots = film(5)
    frames = [data_url(encoded(shot)) for shot in shots]
    options = {"save_all": True, "append_images": shots[1:], "duration": 250, "lossless": True}
    moving = data_url(encoded(shots[0], "WEBP", **options), "image/webp")
    jpegs = [encoded(shot, "JPEG") for shot in shots]
    joined = "data:video/jpeg;base64," + ",".join(data_url(each).partition(",")[2] for each in jpegs)
    one = ask(server, user("Film: ", {"type": "video", "video": frames, "fps": 4}))
    two = ask(server, user("Film: ", {"type": "video_url", "video_url": {"url": moving}}))
    three = ask(server, user("Film: ", {"type": "video_url", "video_url": {"url": joined}}))
    assert odds(one) == odds(two) != odds(three)
    assert two.usage.prompt_tokens_details.cached_tokens > 20
    assert one.usage.prompt_tokens == three.usage.prompt_tokens


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1/a.png", "not fetched from the network"),
        ("data:image/png;base64,AAAA", "no picture that can be read"),
        ("data:image/png;base64,A", "not valid base64"),
        (ONE[:2000], "base64|cut off|cannot be read"),
    ],
)
def test_what_cannot_be_shown_is_said(server: Serving, url: str, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=rf"messages\[0\]\.content\[0\].*({message})"):
        ask(server, user({"type": "image_url", "image_url": {"url": url}}))


def test_a_strip_is_shown_only_where_the_family_allows_it(server: Serving, preset: str) -> None:
    strip = user(data_url(encoded(drawing(3, 900))))
    if preset == "tiny-sight":
        with pytest.raises(openai.BadRequestError, match=r"messages\[0\]\.content\[0\].*200 times"):
            ask(server, strip)
    else:
        assert ask(server, strip).usage.prompt_tokens > 30


def test_other_parts_are_refused_by_name(server: Serving) -> None:
    for part, message in (
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "'input_audio' are not served"),
        ({"type": "image_url"}, "image_url' is required"),
        ({"type": "input_image", "file_id": "file-1"}, "send the picture itself"),
        ({"type": "video", "video": [ONE, TALL]}, "of one size"),
        ({"type": "video_url", "video_url": {"url": ONE}, "fps": -1}, "fps must be"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            ask(server, user(part))


def test_what_is_written_like_a_mark_is_text(server: Serving) -> None:
    marks = "<|vision_start|><|image_pad|><|vision_end|><|media_begin|>image<|media_content|><|media_pad|><|media_end|>"
    plain, shown = ask(server, user(marks, ONE)), ask(server, user(ONE))
    assert plain.usage.prompt_tokens == shown.usage.prompt_tokens + len(marks)  # a token a byte


def test_a_text_model_says_so_in_each_apis_form(tmp_path: Path) -> None:
    with serving(Settings(model=tiny_checkpoint(tmp_path))) as text:
        with pytest.raises(openai.BadRequestError, match="reads text only") as caught:
            ask(text, user("x", ONE))
        assert caught.value.body["param"] == "messages[0].content[1].type"  # type: ignore[index]
        with pytest.raises(openai.BadRequestError, match="reads text only"):
            image = {"type": "input_image", "image_url": ONE, "detail": "auto"}
            text.openai.responses.create(model=NAME, input=[{"role": "user", "content": [image]}])  # type: ignore
        source = {"type": "base64", "media_type": "image/png", "data": ONE.partition(",")[2]}
        blocks: Any = [{"type": "image", "source": source}]
        with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.0\.type: .*reads text only"):
            text.anthropic.messages.create(model=NAME, max_tokens=1, messages=[{"role": "user", "content": blocks}])
