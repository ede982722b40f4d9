"""Keys, limits, disconnects, metrics: what does not depend on which API is spoken."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ramet.server.serve import serve
from ramet.server.settings import Limits, ServeError, Settings
from tests.serving import NAME, NO_THINKING, Serving, serving, tiny_checkpoint

KEY = "k-123"
HELLO: Any = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    limits = Limits(body_bytes=20_000, prompt_tokens=2000, output_tokens=20_000, concurrent=2)
    with serving(Settings(tiny_checkpoint(tmp_path_factory.mktemp("model")), api_key=KEY, limits=limits)) as running:
        yield running


@pytest.fixture
def http(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as client:
        yield client


def long_reply(server: Serving) -> dict[str, Any]:
    """A request whose reply goes on for as long as anybody reads it."""
    ends = {str(token): -100 for token in server.runtime.tokenizer.eos_ids}
    return {**HELLO, "max_tokens": 20_000, "stream": True, "logit_bias": ends, **NO_THINKING}


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_without_the_key_nothing_but_health_is_answered(server: Serving) -> None:
    with server.http() as client:
        assert client.get("/health").json() == {"status": "ok", "model": NAME}
        for path in ("/metrics", "/v1/models", "/v1/ramet/tree"):
            assert client.get(path).status_code == 401
        answer = client.post("/v1/chat/completions", json=HELLO)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        answer = client.post("/v1/messages", json=HELLO, headers={"x-api-key": "wrong"})
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k-124", max_retries=0).models.list()
    assert [model.id for model in server.openai.models.list()] == [NAME]
    assert server.anthropic.messages.create(**HELLO).usage.output_tokens <= 2


def test_a_body_that_is_too_large_is_turned_away(server: Serving, http: httpx.Client) -> None:
    big = {**HELLO, "messages": [{"role": "user", "content": "x" * 30_000}]}
    answer = http.post("/v1/chat/completions", json=big)
    assert answer.status_code == 413
    assert "20000" in answer.json()["error"]["message"]
    assert http.post("/v1/messages", json=big).json()["error"]["type"] == "request_too_large"

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 1000

    assert http.post("/v1/chat/completions", content=chunks()).status_code == 413


def test_a_prompt_that_is_too_long_is_turned_away(server: Serving) -> None:
    with pytest.raises(openai.BadRequestError, match="2000") as caught:
        server.openai.chat.completions.create(**{**HELLO, "messages": [{"role": "user", "content": "word " * 1000}]})
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(anthropic.BadRequestError, match="20000"):
        server.anthropic.messages.create(**{**HELLO, "max_tokens": 30_000})


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"text"', b"\xff\xfe", b""])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_what_is_no_json_object(http: httpx.Client, path: str, raw: bytes) -> None:
    answer = http.post(path, content=raw)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_paths_and_methods(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert http.get("/v1/chat/completions").status_code == 405
    answer = http.get("/v1/messages")
    assert answer.status_code == 405
    assert answer.json()["type"] == "error"
    assert answer.json()["request_id"] == answer.headers["request-id"]


def test_a_client_that_leaves_a_stream_frees_the_engine(server: Serving, http: httpx.Client) -> None:
    with http.stream("POST", "/v1/chat/completions", json=long_reply(server)) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        next(lines)
        assert until(lambda: server.runtime.engine.stats().running == 1)
    assert until(lambda: server.runtime.engine.stats().running == 0)
    assert server.runtime.engine.stats().finished["cancelled"] >= 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_client_that_does_not_wait_for_the_whole_frees_the_engine(
    server: Serving, http: httpx.Client, path: str
) -> None:
    cancelled = server.runtime.engine.stats().finished.get("cancelled", 0)
    if path == "/v1/responses":
        body: dict[str, Any] = {"model": NAME, "input": "Hello", "max_output_tokens": 20_000}
    else:
        body = {**HELLO, "max_tokens": 20_000}
    # The random model might end its reply by itself, before the client leaves: then it has to be asked again.
    for seed in range(20):
        with contextlib.suppress(httpx.ReadTimeout):
            extra = {} if path == "/v1/messages" else {"seed": seed}
            http.post(path, json={**body, **extra}, timeout=0.1)
        assert until(lambda: server.runtime.engine.stats().running == 0)
        if server.runtime.engine.stats().finished.get("cancelled", 0) > cancelled:
            return
    raise AssertionError("no request was cancelled")


def test_more_than_may_run_at_once_are_told_to_come_back(server: Serving, http: httpx.Client) -> None:
    entered, leave = threading.Barrier(3), threading.Event()

    def hold() -> None:
        with http.stream("POST", "/v1/chat/completions", json=long_reply(server)) as answer:
            lines = answer.iter_lines()
            next(lines)
            entered.wait()
            leave.wait()

    holders = [threading.Thread(target=hold) for _ in range(2)]
    for holder in holders:
        holder.start()
    try:
        entered.wait(60)
        answer = http.post("/v1/chat/completions", json=HELLO)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["type"] == "rate_limit_error"
        with pytest.raises(anthropic.RateLimitError):
            server.anthropic.messages.create(**HELLO)
    finally:
        leave.set()
        for holder in holders:
            holder.join()
    assert until(lambda: http.post("/v1/chat/completions", json=HELLO).status_code == 200)


def metrics(http: httpx.Client) -> dict[tuple[str, str], float]:
    text = http.get("/metrics").text
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happened(server: Serving, http: httpx.Client) -> None:
    before = metrics(http)
    usage = http.post("/v1/chat/completions", json={**HELLO, "seed": 1, **NO_THINKING}).json()["usage"]
    http.post("/v1/chat/completions", content=b"{")
    after = metrics(http)

    def grown(name: str, **labels: str) -> float:
        key = (name, json.dumps(labels, sort_keys=True))
        return after[key] - before.get(key, 0)

    assert grown("ramet_prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("ramet_reused_tokens_total") == usage["prompt_tokens_details"]["cached_tokens"]
    assert grown("ramet_http_requests_total", endpoint="chat_completions", status="200") == 1
    assert grown("ramet_http_requests_total", endpoint="chat_completions", status="400") == 1
    assert grown("ramet_first_token_seconds_count") == 1
    assert after[("ramet_tree_nodes", "{}")] == server.runtime.tree.stats().nodes


def test_the_tree_in_pages(server: Serving, http: httpx.Client) -> None:
    http.post("/v1/chat/completions", json=HELLO)
    found: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None:
        page = http.get("/v1/ramet/tree", params={"start": start, "limit": 2}).json()
        assert len(page["data"]) <= 2
        found += page["data"]
        start = page["next"]
    assert len(found) == server.runtime.tree.stats().nodes
    known = {page["root"]}
    for node in found:
        assert node["parent"] in known  # parents come before children
        known.add(node["id"])
    assert {"user", "assistant"} <= {node["role"] for node in found}
    assert http.get("/v1/ramet/tree", params={"limit": "all"}).status_code == 400
    assert http.get("/v1/ramet/tree", params={"start": "9" * 5000}).status_code == 400


def test_an_address_that_is_taken_is_said_so(server: Serving) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(ServeError, match=str(port)):
        serve(Settings(server.settings.model, port=port))
