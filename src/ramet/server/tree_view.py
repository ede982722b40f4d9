"""The tree as JSON: GET /v1/ramet/tree, page by page."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ramet.server.errors import bad_request
from ramet.server.service import Service
from ramet.tree import Node, Tree

_MOST = 1000


async def tree(request: Request) -> Response:
    """Nodes from `?start=` (a count, default 0) on, at most `?limit=` (default 100), parents before children."""
    service: Service = request.app.state.service
    start = _number(request, "start", 0, 0, 1 << 62)
    limit = _number(request, "limit", 100, 1, _MOST)
    return JSONResponse(await asyncio.to_thread(page, service.runtime.tree, start, limit))


def page(tree: Tree, start: int, limit: int) -> dict[str, Any]:
    """`limit` of the tree's nodes, and the number to start the next page at, if there is one."""
    nodes = list(islice(tree.nodes(), start, start + limit + 1))
    return {
        "object": "list",
        "root": tree.root.id,
        "stats": asdict(tree.stats()),
        "data": [_node(node) for node in nodes[:limit]],
        "next": start + limit if len(nodes) > limit else None,
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "parent": node.parent.id if node.parent is not None else None,
        "start": node.start,
        "tokens": len(node.tokens),
        "role": node.message.get("role") if node.message is not None else None,
        "message": node.message,
        "bill": asdict(node.bill) if node.bill is not None else None,
    }


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    if not given.isdecimal() or len(given) > 19 or not least <= int(given) <= most:
        raise bad_request(f"{name} is a number from {least} to {most}, not {given!r}", name, "invalid_value")
    return int(given)
