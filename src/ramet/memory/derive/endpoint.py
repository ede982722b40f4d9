"""A language model over HTTP: any endpoint that speaks OpenAI's Chat Completions, asked for JSON of a given form."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    "temperature": re.compile(r"temperature", re.IGNORECASE),
    "max_tokens": re.compile(r"max_tokens", re.IGNORECASE),
    "max_completion_tokens": re.compile(r"max_(completion_)?tokens", re.IGNORECASE),
}
"""Fields that not every endpoint takes, and how it says so. They are left out from then on."""
_TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size|of \d)|too (long|large|many tokens)|maximum.{0,30}tokens", re.IGNORECASE
)

_LIMITS = ("max_tokens", "max_completion_tokens")
"""How long a reply may get, under its two names: the second is for endpoints that do not take the first."""
_A_TOKEN = 2
"""Characters of a reply that are a token: three to four in most languages, one to two in Chinese."""
_ASIDE = 2048
"""Tokens beside the JSON object: blanks, and the thoughts of a model that cannot do without."""


class Endpoint:
    """A model behind `URL/chat/completions`. A context manager; for one thread at a time.

    It is asked not to think aloud, to say what is likeliest (temperature 0), and no more than the form has room for,
    and held to the form by `response_format`; where the endpoint takes one of these not, it is asked without, and
    whatever JSON object is in the reply is read.
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
        optional: dict[str, Any] = {
            "response_format": {"type": "json_schema", "json_schema": {"name": "notes", "schema": schema}},
            "chat_template_kwargs": {"enable_thinking": False},
            "temperature": 0,
        }
        longest = _longest(schema)
        limit = longest // _A_TOKEN + _ASIDE if longest is not None else None
        too_long = ""
        while True:
            field = next((name for name in _LIMITS if name not in self._left_out), None) if limit is not None else None
            asked = {name: value for name, value in optional.items() if name not in self._left_out}
            if field is not None:
                asked[field] = limit
            response = self._post({"model": self.model, "messages": said, **asked})
            if response.status_code == 200:
                if too_long:  # but not without a limit
                    self._leave_out(_LIMITS, too_long)
                return self._object(self._text(response, limit if field else None))
            problem, code = self._problem(response)
            if response.status_code == 413 or (response.status_code == 400 and _TOO_LONG.search(f"{code} {problem}")):
                if field is None or response.status_code == 413:
                    raise TooLongError(f"the question is too long for {self.model}: {problem}")
                limit, too_long = None, problem
                continue
            refused = [name for name in asked if _NOT_TAKEN[name].search(problem)]
            if response.status_code not in (400, 422) or not refused:
                raise ModelError(self._refusal(response.status_code, problem))
            self._leave_out(refused[:1], problem)

    def _leave_out(self, names: Sequence[str], reason: str) -> None:
        self._left_out.update(names)
        self._notice(f"the endpoint does not take {names[0]}, so it is asked without: {reason}")

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
                problem = f"nobody answers at {self._url} ({self._quoted(str(error)) or type(error).__name__})"
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

    def _text(self, response: httpx2.Response, limit: int | None) -> str:
        """What the model said. Raises ModelError for an answer in no known form, ReplyError for one without text.

        `limit`: the tokens that it was given. What was cut off there is no TooLongError: it was no reply of the form,
        and less to read would not change that.
        """
        try:
            answer = response.json()
            choice = answer["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            content = message.get("content")
            used = (answer.get("usage") or {}).get("completion_tokens")
        except (ValueError, LookupError, TypeError, AttributeError):
            said = self._quoted(response.text)
            raise ModelError(f"{self._url} does not answer as Chat Completions do: {said}") from None
        if reason == "length":
            if limit is not None and (not isinstance(used, int) or used >= limit):
                raise ReplyError(f"{self.model} does not end: after {limit:,} tokens its reply was cut off")
            raise TooLongError(f"the reply of {self.model} was cut off: it is longer than the endpoint allows")
        if isinstance(content, list):
            content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
        if not isinstance(content, str) or not content.strip():
            refusal = message.get("refusal")
            raise ReplyError(f"{self.model} said nothing{': ' + self._quoted(str(refusal)) if refusal else ''}")
        return content

    def _object(self, said: str) -> dict[str, Any]:
        """The first JSON object in what a model said, behind its reasoning. Raises ReplyError if there is none."""
        text = said.rpartition("</think>")[2]
        for found in _objects(text):
            return found
        raise ReplyError(f"the reply is not JSON: {self._quoted(text)[:120]!r}")

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
        return self._quoted(str(found)) or response.reason_phrase, code

    def _quoted(self, text: str) -> str:
        """What another said: without the key, printable, on one line, not too long."""
        text = text.replace(self._key, "...") if self._key else text
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:2000]).split())
        return line if len(line) <= 300 else line[:299] + "…"


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


def _longest(schema: Mapping[str, Any]) -> int | None:
    """Characters of the longest JSON that a schema allows; None where it sets no end."""
    match schema:
        case {"enum": values}:
            return max(len(json.dumps(value)) for value in values)
        case {"type": "boolean"}:
            return len("false")
        case {"type": "string", "maxLength": length}:
            return int(length) + 2
        case {"type": "array", "maxItems": most, "items": items}:
            longest = _longest(items)
            return None if longest is None else int(most) * (longest + 2) + 2
        case {"type": "object", "properties": properties, "additionalProperties": False}:
            size = 2
            for name, value in properties.items():
                longest = _longest(value)
                if longest is None:
                    return None
                size += len(name) + longest + 6
            return size
    return None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    for _, opening in zip(range(20), re.finditer(r"\{", text), strict=False):
        try:
            found, _ = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
