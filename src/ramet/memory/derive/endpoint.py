"""A language model over HTTP: any endpoint that speaks OpenAI's Chat Completions, asked for JSON of a given form."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from ramet.memory.base import MemoryStoreError
from ramet.memory.derive.notes import ModelError, ReplyError, TooLongError

try:
    import httpx2
except ImportError:
    raise MemoryStoreError("asking a model needs an HTTP client: pip install 'ramet[derive]'") from None

_CONNECT_S, _READ_S = 10.0, 900.0
"""A model on a processor may read for minutes before it answers."""
_TRIES = 5
_FIRST_WAIT_S = 1.0
"""Doubled with every try, unless the endpoint says how long to wait."""
_LONGEST_WAIT_S = 120.0

_PASSING = {408, 429, 500, 502, 503, 504, 529}
"""What may be better in a moment."""
_NOT_TAKEN = {
    "response_format": re.compile(r"response_?format|json|schema|grammar|structured|guided", re.IGNORECASE),
    "chat_template_kwargs": re.compile(r"chat_template_kwargs|enable_thinking|template", re.IGNORECASE),
}
"""Fields that not every endpoint takes, and how it says so. They are left out from then on."""
_TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size|of \d)|too (long|large|many tokens)|maximum.{0,30}tokens", re.IGNORECASE
)


class Endpoint:
    """A model behind `URL/chat/completions`. A context manager; for one thread at a time.

    It is asked not to think aloud, and held to the form by `response_format`; where the endpoint takes neither, it is
    asked without, and whatever JSON object is in the reply is read.
    """

    def __init__(
        self, url: str, model: str, *, api_key: str | None = None, notice: Callable[[str], None] | None = None
    ) -> None:
        """`url`: up to and with `/v1` (which may be left out where nothing else follows the host).

        `notice` is told what is waited for, and what the endpoint cannot do. Raises ModelError for what is no URL.
        """
        self.model = model
        self._url = _completions(url)
        try:
            httpx2.URL(self._url)
        except httpx2.InvalidURL as error:
            raise ModelError(f"{url!r} is not the URL of an endpoint: {error}") from None
        self._key = api_key or ""
        if not (self._key.isascii() and self._key.isprintable()) or self._key != self._key.strip():
            raise ModelError("the API key has blanks or characters that no key has")
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.Client(headers=headers, timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S))
        self._notice = notice or (lambda _: None)
        self._left_out = set[str]()

    def ask(self, instructions: str, given: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the model replies; `schema` is its form. Whether it fits is for the caller to check.

        What is busy, broken or out of reach is tried again for a while. Raises ModelError where nothing that is asked
        there can be answered, ReplyError for a reply that holds no JSON object, TooLongError (a ReplyError) if the
        question or the reply is longer than the endpoint allows.
        """
        said = [{"role": "system", "content": instructions}, {"role": "user", "content": given}]
        optional = {
            "response_format": {"type": "json_schema", "json_schema": {"name": "notes", "schema": schema}},
            "chat_template_kwargs": {"enable_thinking": False},
        }
        while True:
            asked = {name: value for name, value in optional.items() if name not in self._left_out}
            response = self._post({"model": self.model, "messages": said, **asked})
            if response.status_code == 200:
                return _object(self._text(response))
            problem, code = self._problem(response)
            if response.status_code == 413 or (response.status_code == 400 and _TOO_LONG.search(f"{code} {problem}")):
                raise TooLongError(f"the question is too long for {self.model}: {problem}")
            refused = [name for name in asked if _NOT_TAKEN[name].search(problem)]
            if response.status_code not in (400, 422) or not refused:
                raise ModelError(self._refusal(response.status_code, problem))
            self._left_out.add(refused[0])
            self._notice(f"the endpoint does not take {refused[0]}, so it is asked without: {problem}")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, body: Mapping[str, Any]) -> httpx2.Response:
        """The answer, after as many tries as it takes. Raises ModelError if there is none worth waiting for."""
        problem = ""
        for attempt in range(_TRIES):
            wait = _FIRST_WAIT_S * 2**attempt
            try:
                response = self._client.post(self._url, json=body)
            except httpx2.ReadTimeout:
                raise ModelError(f"{self._url} did not answer within {_READ_S / 60:.0f} minutes") from None
            except httpx2.HTTPError as error:
                problem = f"nobody answers at {self._url} ({_plain(str(error)) or type(error).__name__})"
            else:
                if response.status_code not in _PASSING:
                    return response
                reason, code = self._problem(response)
                problem = f"{self._url} answered {response.status_code}: {reason}"
                asked_for = _retry_after(response.headers.get("retry-after"))
                wait = wait if asked_for is None else asked_for
                if "quota" in f"{code} {reason}" or wait > _LONGEST_WAIT_S:
                    later = f"; try again in {wait / 60:.0f} minutes" if wait > _LONGEST_WAIT_S else ""
                    raise ModelError(problem + later)
            if attempt + 1 < _TRIES:
                self._notice(f"{problem}; trying again in {wait:.0f} s")
                time.sleep(wait)
        raise ModelError(f"{problem}. It was tried {_TRIES} times")

    def _text(self, response: httpx2.Response) -> str:
        """What the model said. Raises ModelError for an answer in no known form, ReplyError for one without text."""
        try:
            choice = response.json()["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            content = message.get("content")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ModelError(f"{self._url} does not answer as Chat Completions do: {_plain(response.text)}") from None
        if reason == "length":
            raise TooLongError(f"the reply of {self.model} was cut off: it is longer than the endpoint allows")
        if isinstance(content, list):
            content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
        if not isinstance(content, str) or not content.strip():
            raise ReplyError(
                f"{self.model} said nothing{': ' + _plain(str(r)) if (r := message.get('refusal')) else ''}"
            )
        return content

    def _refusal(self, status: int, problem: str) -> str:
        """Why the endpoint cannot be used, and what to do."""
        if status in (401, 403):
            return f"{self._url} does not accept the API key{'' if self._key else ', as there is none'}: {problem}"
        if status == 404:
            return f"{self._url} has no model {self.model!r}, or is no endpoint: {problem}"
        if 300 <= status < 400:
            return f"{self._url} has moved: name the address that it is at now"
        return f"{self._url} refuses what is asked ({status}): {problem}"

    def _problem(self, response: httpx2.Response) -> tuple[str, str]:
        """What an error says, on one line and without the key, and its code."""
        found: Any = response.text
        code = ""
        try:
            found = response.json()
            while isinstance(found, dict):
                code = str(found.get("code") or "")
                found = next((found[name] for name in ("error", "message", "detail") if name in found), str(found))
        except ValueError:
            pass
        said = _plain(str(found)) or response.reason_phrase
        return (said.replace(self._key, "...") if self._key else said), code


def _completions(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:
        whole = False
    if not whole:
        raise ModelError(f"{url!r} is not the URL of an endpoint; write for example http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise ModelError("the URL holds a password: leave it out, and give the key in RAMET_API_KEY")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}/chat/completions"


def _retry_after(text: str | None) -> float | None:
    """Seconds to wait, from a number or from a date; None where neither is there."""
    if text is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text.strip()):
        return float(text)
    try:
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def _plain(text: str) -> str:
    """Printable text on one line, not too long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:2000]).split())
    return line if len(line) <= 300 else line[:299] + "…"


def _object(said: str) -> dict[str, Any]:
    """The first JSON object in what a model said, behind its reasoning. Raises ReplyError if there is none."""
    text = said.rpartition("</think>")[2]
    for found in _objects(text):
        return found
    raise ReplyError(f"the reply is not JSON: {_plain(text)[:120]!r}")


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    for _, opening in zip(range(20), re.finditer(r"\{", text), strict=False):
        try:
            found, _ = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
