"""Kimi K2 and K2.5: a section of calls, each an id, `functions.NAME:COUNT`, and one JSON object."""

import re

from ramet.chat.format import Format, Layout
from ramet.chat.json_calls import JsonForm

KIMI_K25 = Format(
    name="kimi_k25",
    model_types=("kimi_k25", "kimi_k2"),
    marks=("<|tool_call_argument_begin|>",),
    calls=JsonForm(
        section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        opening=("<|tool_call_begin|>",),
        separator="<|tool_call_argument_begin|>",
        ending=("<|tool_call_end|>",),
        name=re.compile(r"(?:functions\.)?(?P<name>.+?)(?::\d+)?"),
        has_ids=True,
    ),
    layout=Layout(
        section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        call=("<|tool_call_begin|>functions.", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        counts=True,
    ),
    ends=("<|im_end|>",),
    cut=r"<\|im_end\|>",
    header=r"\s*<\|im_(?P<role>\w+)\|>",
    control=("<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),
    tags=(
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
    calls_end_reasoning=True,
)
