"""What stands before every endpoint: the key, the size of the body, and errors in the API's own form."""

from __future__ import annotations

import hmac
import logging
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramet.errors import RametError
from ramet.server.errors import ApiError, Dialect, internal_error
from ramet.server.metrics import Metrics
from ramet.server.sse import ClientGone

log = logging.getLogger("ramet.server")

_OPEN = ("/health",)
"""Paths that need no key."""
_CLIENT_GONE = 499
"""Counted for a request whose client did not wait for the answer."""


class Gate:
    """ASGI middleware. Answers every error that comes out of the application; none leaves with a traceback."""

    def __init__(self, app: ASGIApp, *, api_key: str | None, body_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._key = api_key.encode() if api_key is not None else None
        self._body_bytes = body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        dialect = Dialect.of(scope["path"], headers)
        request_id = f"req_{secrets.token_hex(12)}"
        status = 0

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = MutableHeaders(scope=message)
                named["x-request-id"] = request_id
                named["request-id"] = request_id
            await send(message)

        try:
            self._check_key(scope["path"], headers)
            await self._app(scope, self._limited(receive, headers), counted_send)
            return
        except ClientGone:
            status = _CLIENT_GONE
            return
        except ApiError as error:
            answer = error
        except RametError as error:
            answer = ApiError(500, str(error))
        except Exception as error:
            log.exception("%s %s (%s) failed", scope["method"], scope["path"], request_id)
            answer = internal_error(error)
        finally:
            if status:
                self._count(scope, status)
        if not status:
            self._count(scope, answer.status)
            await answer.response(dialect, request_id)(scope, receive, counted_send)

    def _count(self, scope: Scope, status: int) -> None:
        self._metrics.answered(getattr(scope.get("endpoint"), "__name__", "none"), status)

    def _check_key(self, path: str, headers: Headers) -> None:
        if self._key is None or path in _OPEN:
            return
        given = headers.get("x-api-key")
        if given is None:
            scheme, _, rest = headers.get("authorization", "").partition(" ")
            given = rest.strip() if scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(given.encode(), self._key):
            problem = "the API key is wrong" if given else "an API key is needed"
            raise ApiError(
                401,
                f"{problem}: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def _limited(self, receive: Receive, headers: Headers) -> Receive:
        """`receive` that stops at the largest body. Checks what the client announces before anything is read."""
        limit, read = self._body_bytes, 0
        too_large = ApiError(413, f"the body is larger than {limit} bytes, which is this server's limit")
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise too_large

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise too_large
            return message

        return limited
