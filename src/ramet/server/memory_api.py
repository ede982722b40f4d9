"""The memory over HTTP: /v1/memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ramet.memory import Memory, MemoryStoreError
from ramet.memory.jsonl import as_object
from ramet.memory.tools import run
from ramet.server.errors import ApiError, bad_request


async def stats(request: Request) -> Response:
    """GET: what the memory holds."""
    found = await asyncio.to_thread(_memory(request).stats)
    return JSONResponse({"object": "memory", **asdict(found)})


async def remember(request: Request) -> Response:
    """POST: store a turn; answers with it."""
    memory = _memory(request)
    return JSONResponse({"object": "memory.turn", **await _run(memory, "remember", await _body(request))})


async def recall(request: Request) -> Response:
    """POST: the turns that say most about a question, best first."""
    memory = _memory(request)
    found = await _run(memory, "recall", await _body(request))
    return JSONResponse({"object": "list", "data": found["turns"]})


async def retrieve(request: Request) -> Response:
    """GET: a turn by its id."""
    id = request.path_params["id"]
    turn = await asyncio.to_thread(_memory(request).get, id)
    if turn is None:
        raise ApiError(404, f"the memory has no turn {id!r}", code="not_found")
    return JSONResponse({"object": "memory.turn", **as_object(turn)})


async def forget(request: Request) -> Response:
    """DELETE: remove a turn and all that was derived from it."""
    id = request.path_params["id"]
    found = await _run(_memory(request), "forget", {"ids": [id]})
    if not found["removed"]:
        raise ApiError(404, f"the memory has no turn {id!r}", code="not_found")
    return JSONResponse({"object": "memory.deleted", "id": id, "deleted": True, **found})


def _memory(request: Request) -> Memory:
    memory: Memory | None = request.app.state.memory
    if memory is None:
        raise ApiError(404, "this server has no memory; start it with --memory-store FILE", code="not_found")
    return memory


async def _body(request: Request) -> Mapping[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    return body


async def _run(memory: Memory, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return await asyncio.to_thread(run, memory, name, arguments)
    except MemoryStoreError as error:
        raise bad_request(str(error)) from None
