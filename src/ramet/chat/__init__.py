"""Messages <-> tokens: the tokenizer, the chat template, and the parser of replies."""

from ramet.chat.events import (
    Event,
    Note,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    assistant_message,
)
from ramet.chat.format import Format
from ramet.chat.messages import MessageError
from ramet.chat.parser import Parser
from ramet.chat.prompt import Chat, Prompt
from ramet.chat.template import QWEN3_5, TemplateError
from ramet.chat.tokenizer import StreamDecoder, Tokenizer

__all__ = [
    "QWEN3_5",
    "Chat",
    "Event",
    "Format",
    "MessageError",
    "Note",
    "Parser",
    "Prompt",
    "ReasoningDelta",
    "StreamDecoder",
    "TemplateError",
    "TextDelta",
    "Tokenizer",
    "ToolCallArguments",
    "ToolCallEnd",
    "ToolCallStart",
    "assistant_message",
]
