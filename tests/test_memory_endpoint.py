"""How a model's endpoint is asked: what it may refuse, what is waited for, and what is said when it is neither."""

from __future__ import annotations

import importlib
import json
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ramet.cli.main import app
from ramet.memory import Memory, MemoryStoreError, ModelError
from ramet.memory.derive import ReplyError, TooLongError
from ramet.memory.derive import endpoint as module
from ramet.memory.derive.endpoint import Endpoint
from ramet.memory.derive.notes import notes
from tests.endpoints import Raw, completion, endpoint, keeper
from tests.memory_support import said

SCHEMA = {"type": "object"}
CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 98}}},
    "additionalProperties": False,
}
"""The longest reply has some 320 characters."""
KEY = "sk-secret-1234"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The waits between tries, in seconds, which are not waited for."""
    found: list[float] = []
    monkeypatch.setattr(module.time, "sleep", found.append)
    yield found


def ask(*answers: Any, notes: list[str] | None = None) -> Any:
    """What is replied by an endpoint that answers so, one after the other; the last one for ever."""
    left = list(answers)
    with endpoint(lambda _: left.pop(0) if len(left) > 1 else left[0]) as asked:
        told = notes if notes is not None else []
        with Endpoint(asked.url, "m", api_key=KEY, notice=told.append) as found:
            return found.ask("Do this", "given", SCHEMA)


def test_what_is_sent() -> None:
    with endpoint(lambda _: {"x": 1}) as asked, Endpoint(f"{asked.url}/v1/", "m", api_key=KEY) as found:
        assert found.ask("Do this", "given", SCHEMA) == {"x": 1}
    (body,), (headers,) = asked.bodies, asked.headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body["messages"] == [{"role": "system", "content": "Do this"}, {"role": "user", "content": "given"}]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA and set(body) == {
        "model", "messages", "response_format", "chat_template_kwargs", "temperature"
    }  # fmt: skip
    assert body["temperature"] == 0


def test_a_reply_is_given_room_for_its_form() -> None:
    with endpoint(lambda _: {"summary": "s", "facts": []}) as asked, Endpoint(asked.url, "m") as found:
        found.ask("", "", CLOSED)
        notes(found, [], [said(0, "Hello")])
    assert 2048 + 150 < asked.bodies[0]["max_tokens"] < 2048 + 170
    most = asked.bodies[1]["response_format"]["json_schema"]["schema"]["properties"]["facts"]["maxItems"]
    fact = {"text": "x" * 300, "sources": ["t1"] * 12, "since": None}
    longest = json.dumps({"summary": "x" * 400, "facts": [fact] * most})
    assert len(longest) / 2 <= asked.bodies[1]["max_tokens"] - 2048 < len(longest) / 2 + 20


@pytest.mark.parametrize(
    ("usage", "kind", "message"),
    [
        (None, ReplyError, "m does not end: after 2,2.. tokens"),
        (2300, ReplyError, "m does not end"),
        (700, TooLongError, "longer than the endpoint allows"),
    ],
)
def test_who_cut_a_reply_off(usage: int | None, kind: type[Exception], message: str) -> None:
    """What is cut off by the limit that we set would not end in halves of the question either."""
    answer = completion('{"a": ', "length") | ({"usage": {"completion_tokens": usage}} if usage else {})
    with (
        endpoint(lambda _: Raw(200, answer)) as asked,
        Endpoint(asked.url, "m") as found,
        pytest.raises(ReplyError, match=message) as error,
    ):
        found.ask("", "", CLOSED)
    assert type(error.value) is kind


def test_a_limit_that_is_too_much_is_left_out() -> None:
    def answer(body: dict[str, Any]) -> Any:
        size = len(body["messages"][1]["content"]) + body.get("max_tokens", 0)
        return {"a": []} if size <= 1000 else Raw.error(400, f"maximum context length is 1000 tokens, not {size}")

    told: list[str] = []
    with endpoint(answer) as asked, Endpoint(asked.url, "m", notice=told.append) as found:
        with pytest.raises(TooLongError):
            found.ask("", "x" * 2000, CLOSED)
        assert told == []  # it was not the limit
        assert found.ask("", "x" * 900, CLOSED) == found.ask("", "x" * 900, CLOSED) == {"a": []}
    assert ["max_tokens" in body for body in asked.bodies] == [True, False, True, False, False]
    assert not any("max_completion_tokens" in body for body in asked.bodies)
    assert len(told) == 1 and "does not take max_tokens" in told[0]


def test_the_newer_name_of_the_limit() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return Raw.error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return {"a": []} if "max_completion_tokens" in body else "No."

    with endpoint(answer) as asked, Endpoint(asked.url, "m") as found:
        assert found.ask("", "", CLOSED) == found.ask("", "", CLOSED) == {"a": []}
    assert len(asked.bodies) == 3


@pytest.mark.parametrize("status", [200, 301, 400, 404])
@pytest.mark.parametrize("form", ["<html>{}", '{{"choices": "{}"}}', *("." * cut + "{}" for cut in range(280, 300))])
def test_the_key_is_repeated_nowhere(form: str, status: int) -> None:
    """By whatever way an endpoint repeats it, and wherever what it says is cut off."""
    with (
        endpoint(lambda _: Raw(status, form.format(asked.headers[-1]["authorization"]))) as asked,
        Endpoint(asked.url, "m", api_key=KEY) as found,
        pytest.raises(ModelError) as error,
    ):
        found.ask("", "", SCHEMA)
    assert KEY[:4] not in str(error.value)


def test_a_model_that_repeats_the_key_is_not_quoted() -> None:
    with (
        endpoint(lambda _: f"I was asked with {asked.headers[-1]['authorization']}") as asked,
        Endpoint(asked.url, "m", api_key=KEY) as found,
        pytest.raises(ReplyError, match=r"asked with Bearer \.\.\.'$"),
    ):
        found.ask("", "", SCHEMA)


@pytest.mark.parametrize(
    "url",
    ["{}", "{}/", "{}/v1", "{}/v1/chat/completions"],
)
def test_urls(url: str) -> None:
    with endpoint(lambda _: {}) as asked, Endpoint(url.format(asked.url), "m") as found:
        assert found.ask("", "", SCHEMA) == {} and "authorization" not in asked.headers[0]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "is not the URL of an endpoint; write for example"),
        ("http://", "is not the URL"),
        ("http://h:99999", "is not the URL"),
        ("http://a b/", "is not the URL"),
        ("http://a\x01b/", "is not the URL of an endpoint: "),
        ("http://me:word@h/v1", "leave it out, and give the key in RAMET_API_KEY"),
    ],
)
def test_what_is_no_url(url: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        Endpoint(url, "m")
    assert "word" not in str(error.value).replace("password", "")


@pytest.mark.parametrize("key", ["sk-1\n", " sk", "schlüssel"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(ModelError, match="API key has blanks or characters"):
        Endpoint("http://127.0.0.1", "m", api_key=key)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Here you are:\n```json\n{"a": {"b": "}"}}\n```\nAnything else?', {"a": {"b": "}"}}),
        ("<think>\n{not json} and {}\n</think>\n\n{\"a\": 2}", {"a": 2}),
        ("A set {1, 2} is no object, but {\"a\": 3} is", {"a": 3}),
    ],
)  # fmt: skip
def test_replies_are_read_leniently(said: str, found: Any) -> None:
    assert ask(said) == found
    parts = [{"type": "text", "text": said[:5]}, {"type": "text", "text": said[5:]}]
    whole = completion("")
    whole["choices"][0]["message"]["content"] = parts
    assert ask(Raw(200, whole)) == found


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ("I cannot", ReplyError, "the reply is not JSON: 'I cannot'"),
        ('{"a": ' * 100_000, ReplyError, "not JSON"),
        (None, ReplyError, "m said nothing"),
        (Raw(200, completion('{"a": ', "length")), TooLongError, "was cut off"),
        (Raw(200, "<html>\x1b[31mWelcome</html>"), ModelError, r"as Chat Completions do: <html> \[31mWel"),
        (Raw(200, {"choices": []}), ModelError, "does not answer as"),
        (Raw.error(401, f"Incorrect API key: {KEY}"), ModelError, r"the API key: Incorrect API key: \.\.\.$"),
        (Raw.error(404, "The model m does not exist"), ModelError, "has no model 'm', or is no endpoint: The"),
        (Raw(404, "nginx"), ModelError, "is no endpoint: nginx"),
        (Raw.error(400, "messages must alternate"), ModelError, r"refuses what is asked \(400\): messages"),
        (Raw(301, "", {"location": "http://elsewhere"}), ModelError, "has moved"),
        (Raw.error(400, "This model's maximum context length is 10"), TooLongError, "too long for m: This model's"),
        (Raw.error(400, "the prompt has 9 tokens; the model's context of 4 leaves"), TooLongError, "long for m: the"),
        (Raw(400, {"error": {"message": "No.", "code": "context_length_exceeded"}}), TooLongError, "long for m: No"),
        (Raw.error(413, "Payload"), TooLongError, "too long"),
        (Raw.error(429, "You exceeded your current quota"), ModelError, "429: You exceeded your current quota$"),
        (Raw(429, {"error": {"message": "Pay", "code": "insufficient_quota"}}), ModelError, "429: Pay$"),
        (Raw.error(429, "Slow down", retry_after="3600"), ModelError, "Slow down; try again in 60 minutes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(answer: Any, kind: type[Exception], message: str, waits: list[float]) -> None:
    with pytest.raises(kind, match=message) as error:
        ask(answer)
    assert type(error.value) is kind and KEY not in str(error.value) and "\x1b" not in str(error.value)
    assert waits == []


def test_what_passes_is_waited_for(waits: list[float]) -> None:
    notes: list[str] = []
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    busy = [
        Raw.error(429, "Slow down", retry_after="7"), Raw.error(503, "Loading"), Raw(502, "Bad gateway"),
        Raw.error(429, "Slow down", retry_after=later),
    ]  # fmt: skip
    assert ask(*busy, {"a": 1}, notes=notes) == {"a": 1}
    assert waits[:3] == [7, 2, 4] and 25 < waits[3] <= 30
    assert notes[0].endswith("answered 429: Slow down; trying again in 7 s") and len(notes) == 4


def test_what_does_not_pass_is_given_up(waits: list[float]) -> None:
    with pytest.raises(ModelError, match=r"answered 500: It broke\. It was tried 5 times"):
        ask(Raw.error(500, "It broke"))
    assert waits == [1, 2, 4, 8]


def test_nobody_there(waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with Endpoint(url, "m") as found, pytest.raises(ModelError, match=f"nobody answers at {url}.*refused.*5 times"):
        found.ask("", "", SCHEMA)


@pytest.mark.parametrize(
    ("status", "message", "field"),
    [
        (400, "Invalid parameter: 'response_format' of type 'json_schema' is not supported", "response_format"),
        (400, "JSON schema at properties.a: unimplemented", "response_format"),
        (422, "[{'loc': ['body', 'chat_template_kwargs'], 'msg': 'extra fields'}]", "chat_template_kwargs"),
        (400, "Unsupported value: 'temperature' does not support 0 with this model", "temperature"),
    ],
)  # fmt: skip
def test_what_not_every_endpoint_takes_is_left_out(status: int, message: str, field: str) -> None:
    def answer(body: dict[str, Any]) -> Any:
        return Raw.error(status, message) if field in body else 'Sure! {"a": 1}'

    notes: list[str] = []
    with endpoint(answer) as asked, Endpoint(asked.url, "m", notice=notes.append) as found:
        assert found.ask("", "", SCHEMA) == found.ask("", "", SCHEMA) == {"a": 1}
    assert [field in body for body in asked.bodies] == [True, False, False]
    assert len(notes) == 1 and f"does not take {field}" in notes[0]


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    monkeypatch.delitem(sys.modules, "ramet.memory.derive.endpoint")
    with pytest.raises(MemoryStoreError, match=r"pip install 'ramet\[derive\]'"):
        importlib.import_module("ramet.memory.derive.endpoint")


# The command line.


def command(store: Path, url: str, *more: str) -> Result:
    words = ["memory", "derive", "--model", "m", "--url", url, "--store", str(store), "--lexical", *more]
    return CliRunner().invoke(app, words)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Memory.open(tmp_path / "m.db") as memory:
        memory.remember_turns([said(0, "Ann lives in Oslo"), said(1, "Ann lives in Rome", session="t")])
        memory.remember_turns([said(0, "Ben lives in Bern", "d")])
    return tmp_path / "m.db"


def test_the_command(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMET_API_KEY", KEY)
    with endpoint(keeper) as asked:
        result = command(store, asked.url, "--conversation", "c")
        assert result.exit_code == 0, result.output
        assert result.stdout == "2 facts, 2 summaries written; 1 in place of an older one\n"
        assert command(store, asked.url).stdout == "1 fact, 1 summary written\n"
        assert command(store, asked.url).stdout == "0 facts, 0 summaries written\n"
    assert {headers["authorization"] for headers in asked.headers} == {f"Bearer {KEY}"}
    shown = CliRunner().invoke(app, ["memory", "search", "Where does Ann live?", "--store", str(store), "--lexical"])
    assert "fact" in shown.stdout and "no longer so: see f_" in shown.stdout


def test_the_command_says_what_is_wrong(store: Path) -> None:
    with endpoint(lambda _: Raw.error(401, "no such key")) as asked:
        result = command(store, asked.url)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 1 and "does not accept the API key, as there is none: no such key" in said
    assert "what was written is kept" in said
    with endpoint(lambda body: "No." if "Bern" in str(body) else keeper(body)) as asked:
        result = command(store, asked.url)
    assert result.exit_code == 1 and result.stdout.startswith("2 facts, 2 summaries written")
    assert "Left out: d · s, from 'd:0' on: the reply is not JSON: 'No.'" in " ".join(result.stderr.split())
    assert "no conversation 'e'" in command(store, asked.url, "-c", "e").stderr
    assert command(store, "nonsense").exit_code == 1
    assert command(store.with_name("none.db"), "http://127.0.0.1").exit_code == 1
