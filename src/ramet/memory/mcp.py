"""The memory over MCP."""

from __future__ import annotations

from typing import Any

from ramet.memory.base import MemoryStoreError
from ramet.memory.memory import Memory
from ramet.memory.tools import TOOLS, call

try:
    from mcp.server import MCPServer
except ImportError:
    raise MemoryStoreError("the MCP server needs its package: pip install 'ramet[mcp]'") from None

_ABOUT = {tool["function"]["name"]: tool["function"]["description"] for tool in TOOLS}


def server(memory: Memory) -> MCPServer[Any]:
    """An MCP server whose tools are those of `tools.TOOLS`."""
    found: MCPServer[Any] = MCPServer(
        "ramet-memory", instructions="What was said in earlier conversations. Recall before you answer about the past."
    )

    @found.tool(description=_ABOUT["remember"])
    def remember(text: str, speaker: str = "", conversation: str = "notes", time: str | None = None) -> dict[str, Any]:
        return call(memory, "remember", {"text": text, "speaker": speaker, "conversation": conversation, "time": time})

    @found.tool(description=_ABOUT["recall"])
    def recall(
        question: str, conversation: str | None = None, count: int = 10, time: str | None = None
    ) -> dict[str, Any]:
        asked = {"question": question, "conversation": conversation, "count": count, "time": time}
        return call(memory, "recall", asked)

    @found.tool(description=_ABOUT["forget"])
    def forget(ids: list[str]) -> dict[str, Any]:
        return call(memory, "forget", {"ids": ids})

    return found


def serve(memory: Memory) -> None:
    """Answer on standard input and output until that closes."""
    server(memory).run("stdio")
