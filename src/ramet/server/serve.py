"""`ramet serve`: load a model and answer until told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from ramet.engine.runtime import Runtime
from ramet.memory import Memory, default_embedder
from ramet.server.app import create_app
from ramet.server.settings import ServeError, Settings

_LAST_WORDS_S = 10
"""How long running replies may go on once the server was told to stop."""


def serve(settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """Load `settings.model` and serve it until SIGINT or SIGTERM; then bring the sessions to disk and return.

    `ready` is called with the server's URL once it listens. Raises RametError if the model cannot be loaded or the
    address not be bound.
    """
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    try:
        runtime = Runtime.load(
            settings.model,
            tree_dir=settings.tree_dir,
            ram_bytes=settings.ram_bytes,
            disk_bytes=settings.tree_bytes,
            drafts=settings.drafts,
        )
        with runtime, _memory(settings) as memory:
            app = create_app(runtime, settings, memory)
            try:
                listener.listen()
                if ready is not None:
                    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
                config = uvicorn.Config(
                    app, log_level="warning", timeout_graceful_shutdown=_LAST_WORDS_S, lifespan="off"
                )
                uvicorn.Server(config).run(sockets=[listener])
            finally:
                app.state.service.close()
    finally:
        listener.close()


@contextmanager
def _memory(settings: Settings) -> Iterator[Memory | None]:
    if settings.memory_store is None:
        yield None
        return
    with Memory.open(settings.memory_store, default_embedder()) as memory:
        yield memory


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket: an address that cannot be had is known before the model is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listener
