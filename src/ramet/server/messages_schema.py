"""The request bodies of Anthropic Messages, as far as a text model on one machine can serve them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from ramet.server.chat_schema import Positive, Unit
from ramet.server.fields import Body, Other, Part, by_type


class TextBlock(Part):
    """Text."""

    type: Literal["text"]
    text: str


class ThinkingBlock(Part):
    """What the model thought; the signature is not needed to go on from it."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class ImageSource(Part):
    """A picture's bytes."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ImageBlock(Part):
    """A picture."""

    type: Literal["image"]
    source: ImageSource | None = None


class ToolUseBlock(Part):
    """A call the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Part):
    """What came back from a call."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Block] | None = None
    is_error: bool | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageBlock, Tag("image")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[Other, Tag("other")],
    by_type("text", "image", "thinking", "tool_use", "tool_result"),
]


class Message(Part):
    """A message; the tool's results come in user messages."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Part):
    """A tool; only the client's own are served."""

    type: str | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Part):
    """Whether and which tool must be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Part):
    """Whether to think. A budget is accepted; `max_tokens` is what bounds the reply."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None


class OutputFormat(Part):
    """The schema that the reply's text must satisfy."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Part):
    """How the reply should be."""

    effort: str | None = None
    format: OutputFormat | None = None


class CountTokensRequest(Body):
    """POST /v1/messages/count_tokens. Fields in the last group are accepted and change nothing."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    cache_control: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None
    diagnostics: dict[str, Any] | None = None
    speed: str | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None


class MessagesRequest(CountTokensRequest):
    """POST /v1/messages. Fields in the last group are accepted and change nothing."""

    max_tokens: Positive
    stream: bool | None = None
    temperature: Unit | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    stop_sequences: Annotated[list[str], Field(max_length=16)] | None = None

    inference_geo: str | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None


ToolResultBlock.model_rebuild()
