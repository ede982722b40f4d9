"""Errors as each API words them: status, JSON body, headers."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from ramet.errors import RametError


class Dialect(enum.Enum):
    """Whose form an answer takes."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"

    @staticmethod
    def of(path: str, headers: Mapping[str, str]) -> Dialect:
        """The dialect of a request: Anthropic's for `/v1/messages...`, and where the client says so in a header."""
        anthropic = path.startswith("/v1/messages") or "anthropic-version" in headers
        return Dialect.ANTHROPIC if anthropic else Dialect.OPENAI


_OPENAI_TYPES = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


class ApiError(RametError):
    """An error to answer a request with.

    `status` is the HTTP status; `param` the path of the field at fault, if one is; `code` OpenAI's machine-readable
    code, if there is one; `headers` go with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self, dialect: Dialect, request_id: str | None = None) -> dict[str, Any]:
        """The JSON body in `dialect`'s form."""
        if dialect is Dialect.ANTHROPIC:
            kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
            message = self.message
            if self.param is not None:
                # Anthropic's error has no field for the path; it stands in front of the message, dotted.
                message = f"{self.param.replace('[', '.').replace(']', '')}: {message}"
            return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
        kind = _OPENAI_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, dialect: Dialect, request_id: str | None = None) -> JSONResponse:
        """The whole HTTP answer in `dialect`'s form."""
        return JSONResponse(self.body(dialect, request_id), status_code=self.status, headers=self.headers)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request is wrong at `param`."""
    return ApiError(400, message, param=param, code=code)


def internal_error(error: BaseException) -> ApiError:
    """500 for an error nobody foresaw: names its class, never its traceback or contents."""
    return ApiError(
        500,
        f"the server failed while answering ({type(error).__name__}); its log has the details",
        code="internal_error",
    )
