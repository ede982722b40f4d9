"""A real server on 127.0.0.1 over a tiny random checkpoint, for the tests of the HTTP APIs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import uvicorn
from anthropic import Anthropic
from openai import OpenAI

from ramet.engine.runtime import Runtime
from ramet.server.app import create_app
from ramet.server.settings import Settings

NAME = "tiny"
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


@dataclass
class Serving:
    """A running server."""

    url: str
    runtime: Runtime
    settings: Settings

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.settings.api_key or "none", max_retries=0, timeout=120)

    @property
    def anthropic(self) -> Anthropic:
        return Anthropic(base_url=self.url, api_key=self.settings.api_key or "none", max_retries=0, timeout=120)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120)


@contextmanager
def serving(settings: Settings) -> Iterator[Serving]:
    """A server for the length of a `with` block."""
    settings = replace(settings, model_name=NAME)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with Runtime.load(settings.model, tree_dir=settings.tree_dir, ram_bytes=settings.ram_bytes) as runtime:
        app = create_app(runtime, settings)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Serving(f"http://127.0.0.1:{listener.getsockname()[1]}", runtime, settings)
        finally:
            server.should_exit = True
            thread.join()
            app.state.service.close()


def tiny_checkpoint(folder: Path) -> Path:
    """A random checkpoint that runs in milliseconds."""
    from ramet.models.random import write_random_checkpoint

    write_random_checkpoint(folder, seed=1)
    return folder
