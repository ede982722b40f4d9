"""A Chat Completions endpoint for tests: a real HTTP server whose answers a test writes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], Any]
"""From a request's body to what the model says: text, an object (as JSON), or a whole `Raw` answer."""


@dataclass
class Raw:
    """An answer that is none of a model's."""

    status: int
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def error(cls, status: int, message: str, **headers: str) -> Raw:
        return cls(status, {"error": {"message": message, "type": "x"}}, headers)


@dataclass
class Asked:
    """A running endpoint and what it was asked."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def endpoint(answer: Answer) -> Iterator[Asked]:
    """An endpoint for the length of a `with` block."""
    asked = Asked("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.bodies.append(body)
            asked.headers.append({name.lower(): value for name, value in self.headers.items()})
            said = answer(body) if self.path == "/v1/chat/completions" else Raw.error(404, f"nothing at {self.path}")
            raw = said if isinstance(said, Raw) else Raw(200, completion(said))
            data = (raw.body if isinstance(raw.body, str) else json.dumps(raw.body)).encode()
            self.send_response(raw.status)
            for name, value in {"content-length": str(len(data)), **raw.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was killed

    server = Server(("127.0.0.1", 0), Handler)
    asked.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(said: Any, reason: str = "stop") -> dict[str, Any]:
    """A chat completion that says this."""
    content = said if isinstance(said, str) or said is None else json.dumps(said)
    message = {"role": "assistant", "content": content}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}


def given(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of what a request gives the model."""
    return [json.loads(line) for line in body["messages"][-1]["content"].splitlines()]


_LIVES = re.compile(r"(\w+) lives in (\w+)")


def keeper(body: dict[str, Any]) -> dict[str, Any]:
    """A model that knows one kind of fact, "Ann lives in Oslo", and that a person lives in one place at a time."""
    lines = given(body)
    if "dates" in lines[-1]:
        *turns, last = lines
        facts = [
            {"text": f"{match[0]}.", "sources": [turn["id"]], "since": (last["dates"] or [None])[0]}
            for turn in turns
            for match in _LIVES.finditer(turn["text"])
            if not turn.get("known")
        ]
        return {"summary": f"{len(turns)} turns, from {turns[0]['text'][:40]!r} on.", "facts": facts}
    told = {line["id"]: _LIVES.search(line["text"]) for line in lines}
    changes = []
    for line in lines:
        for other in line.get("near", ()):
            one, two = told[line["id"]], told[other]
            if one and two and one[1] == two[1]:
                relation = "repeats" if one[2] == two[2] else "replaces"
                changes.append({"fact": line["id"], "relation": relation, "other": other})
    return {"changes": changes}
