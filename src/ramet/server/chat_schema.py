"""The request body of OpenAI Chat Completions, as far as a text model on one machine can serve it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ramet.server.fields import Body, Part

Unit = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Positive = Annotated[int, Field(ge=1)]
Stop = Annotated[list[str], Field(max_length=16)]


class PictureUrl(Part):
    """Where a picture or a film is: in a data: URL."""

    url: str
    detail: str | None = None


class ContentPart(Part):
    """One part of a message's content: text, and, for models that see, pictures. Others are turned down by name."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | PictureUrl | None = None
    video_url: str | PictureUrl | None = None
    video: str | list[str] | None = None
    fps: float | int | None = None
    file_id: str | None = None


class CalledFunction(Part):
    """The function of a tool call that an assistant message carries."""

    name: str
    arguments: str


class ToolCall(Part):
    """A tool call that an assistant message carries."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Part):
    """A message of any role."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Another name for it, which some clients send back."""


class FunctionDefinition(Part):
    """A function the model may call; `parameters` is a JSON schema."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Part):
    """A tool of the only type that is served."""

    type: Literal["function"]
    function: FunctionDefinition


class ChosenFunction(Part):
    """The function a named tool choice names."""

    name: str


class NamedToolChoice(Part):
    """Exactly this function must be called."""

    type: Literal["function"]
    function: ChosenFunction


class AllowedTools(Part):
    """The subset that may (auto) or must (required) be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedToolChoice]


class AllowedToolChoice(Part):
    """A tool choice that narrows the tools without changing the prompt."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class JsonSchema(Part):
    """A named JSON schema for the reply."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Part):
    """The form of the reply's text."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Part):
    """What a stream says besides the reply."""

    include_usage: bool | None = None


class ChatRequest(Body):
    """POST /v1/chat/completions. Fields in the last group are accepted and change nothing."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Positive | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Unit | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: int | None = None
    stop: str | Stop | None = None
    stop_token_ids: list[int] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    store: bool | None = None

    modalities: list[Literal["text"]] | None = None
    metadata: dict[str, Any] | None = None
    moderation: None = None
    prediction: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
