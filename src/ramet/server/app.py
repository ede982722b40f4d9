"""The application: which path is answered by what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ramet.engine.runtime import Runtime
from ramet.memory import Memory
from ramet.server import chat_api, memory_api, messages_api, metrics, responses_api, tree_view
from ramet.server.errors import ApiError, Dialect
from ramet.server.gate import Gate
from ramet.server.service import Service
from ramet.server.settings import Settings


def create_app(runtime: Runtime, settings: Settings, memory: Memory | None = None) -> Starlette:
    """The HTTP application over a loaded runtime, and a memory if there is one.

    The caller closes `app.state.service`, then the runtime and the memory.
    """
    shown = metrics.Metrics(runtime)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_api.chat_completions, methods=["POST"]),
            Route("/v1/responses", responses_api.create, methods=["POST"]),
            Route("/v1/responses/{id}", responses_api.retrieve, methods=["GET"]),
            Route("/v1/responses/{id}", responses_api.delete, methods=["DELETE"]),
            Route("/v1/responses/{id}/input_items", responses_api.input_items, methods=["GET"]),
            Route("/v1/conversations", responses_api.create_conversation, methods=["POST"]),
            Route("/v1/conversations/{id}", responses_api.retrieve_conversation, methods=["GET"]),
            Route("/v1/conversations/{id}", responses_api.delete_conversation, methods=["DELETE"]),
            Route("/v1/messages", messages_api.messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", messages_api.count_tokens, methods=["POST"]),
            Route("/v1/models", list_models, methods=["GET"]),
            Route("/v1/models/{id:path}", retrieve_model, methods=["GET"]),
            Route("/v1/ramet/tree", tree_view.tree, methods=["GET"]),
            Route("/v1/memory", memory_api.stats, methods=["GET"]),
            Route("/v1/memory/recall", memory_api.recall, methods=["POST"]),
            Route("/v1/memory/turns", memory_api.remember, methods=["POST"]),
            Route("/v1/memory/turns/{id:path}", memory_api.retrieve, methods=["GET"]),
            Route("/v1/memory/turns/{id:path}", memory_api.forget, methods=["DELETE"]),
            Route("/health", health, methods=["GET"]),
            Route("/metrics", show_metrics, methods=["GET"]),
        ],
        middleware=[
            Middleware(Gate, api_key=settings.api_key, body_bytes=settings.limits.body_bytes, metrics=shown),
        ],
        exception_handlers={HTTPException: _http_error},
    )
    app.state.service = Service(runtime, settings)
    app.state.metrics = shown
    app.state.memory = memory
    app.state.started = datetime.now(UTC)
    return app


async def health(request: Request) -> Response:
    """Whether the server answers, and with which model."""
    service: Service = request.app.state.service
    return JSONResponse({"status": "ok", "model": service.name})


async def show_metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(request.app.state.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})


async def list_models(request: Request) -> Response:
    """The served model, in a list."""
    model = _model(request)
    ends = {"has_more": False, "first_id": model["id"], "last_id": model["id"]}
    return JSONResponse({"object": "list", "data": [model], **ends})


async def retrieve_model(request: Request) -> Response:
    """The served model."""
    request.app.state.service.check_model(request.path_params["id"])
    return JSONResponse(_model(request))


def _model(request: Request) -> dict[str, object]:
    service: Service = request.app.state.service
    started: datetime = request.app.state.started
    context = service.runtime.model.context_length
    if Dialect.of(request.url.path, request.headers) is Dialect.ANTHROPIC:
        return {
            "type": "model",
            "id": service.name,
            "display_name": service.name,
            "created_at": started.isoformat(),
            "lifecycle": "active",
            "max_input_tokens": context,
            "max_tokens": service.settings.limits.output_tokens,
        }
    about = {"object": "model", "created": int(started.timestamp()), "owned_by": "ramet"}
    return {"id": service.name, **about, "context_length": context}


async def _http_error(request: Request, error: Exception) -> NoReturn:
    """404 and 405 of the router, for the gate to answer in the API's own form."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        message = f"{request.method} is not what {path} takes"
    else:
        message = f"there is nothing at {path}"
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    raise ApiError(error.status_code, message, code=code, headers=dict(error.headers or {}))
