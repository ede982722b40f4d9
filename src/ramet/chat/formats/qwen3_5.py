"""Qwen3.5: `<tool_call> <function=NAME> (<parameter=KEY> VALUE </parameter>)* </function> </tool_call>`."""

from ramet.chat.calls import TagForm
from ramet.chat.format import Format, Layout

QWEN3_5 = Format(
    name="qwen3_5",
    model_types=("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"),
    marks=("<function=",),
    calls=TagForm(
        opening=("<tool_call>", "<function="),
        name_end=">",
        parameter="<parameter=",
        key_end=(">",),
        value_end="</parameter>",
        ending=("</function>", "</tool_call>"),
        padded=True,
    ),
    layout=Layout(
        call=("<tool_call>\n<function=", ">\n", "</function>\n</tool_call>"),
        parameter=("<parameter=", ">\n", "\n</parameter>\n"),
        between="\n",
        after_reasoning="\n\n",
    ),
    ends=("<|im_end|>", "<|endoftext|>"),
    cut=r"<\|im_end\|>",
    header=r"\s*<\|im_start\|>(?P<role>\w+)",
    control=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    tags=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)
