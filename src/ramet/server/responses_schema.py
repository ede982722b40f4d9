"""The request bodies of OpenAI Responses and Conversations, as far as a text model on one machine can serve them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from ramet.server.chat_schema import ContentPart, Positive, Unit
from ramet.server.fields import Body, Other, Part, by_type


class MessageItem(Part):
    """A message in the input; the content parts' types are input_text and output_text."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ContentPart]


class FunctionCallItem(Part):
    """A call the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionCallOutputItem(Part):
    """What came back from a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ContentPart]


class ReasoningText(Part):
    """One piece of reasoning."""

    type: str
    text: str


class ReasoningItem(Part):
    """What the model thought before it answered."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None
    summary: list[ReasoningText] = Field(default_factory=list)


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[Other, Tag("other")],
    by_type("message", "function_call", "function_call_output", "reasoning", default="message"),
]


class ResponseTool(Part):
    """A tool. Only functions are served; the others are turned down by name."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(Part):
    """A tool choice that names a function."""

    type: Literal["function"]
    name: str


class AllowedTools(Part):
    """A tool choice that narrows the tools without changing the prompt."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class TextFormat(Part):
    """The form of the reply's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextConfig(Part):
    """How the reply's text should be."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Part):
    """Whether and how much to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None


class ConversationReference(Part):
    """A conversation by its id."""

    id: str


class ResponsesRequest(Body):
    """POST /v1/responses. Fields in the last group are accepted and change nothing."""

    model: str
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationReference | None = None
    store: bool | None = None
    stream: bool | None = None
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Unit | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: int | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    background: Literal[False] | None = None
    context_management: None = None
    max_tool_calls: int | None = None
    moderation: None = None
    prompt: None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    stream_options: dict[str, Any] | None = None
    truncation: Literal["disabled"] | None = None
    user: str | None = None


class ConversationRequest(Body):
    """POST /v1/conversations."""

    items: list[InputItem] | None = None
    metadata: dict[str, str] | None = None
