"""GLM-5: `<tool_call>NAME (<arg_key>KEY</arg_key> <arg_value>VALUE</arg_value>)* </tool_call>`.

Turns have no end of their own: one ends where the next begins, and a reply with the token of whoever is to speak next.
"""

from ramet.chat.calls import TagForm
from ramet.chat.format import Format, Layout

GLM5 = Format(
    name="glm5",
    model_types=("glm_moe_dsa",),
    marks=("<arg_key>",),
    calls=TagForm(
        opening=("<tool_call>",),
        name_end="",
        parameter="<arg_key>",
        key_end=("</arg_key>", "<arg_value>"),
        value_end="</arg_value>",
        ending=("</tool_call>",),
    ),
    layout=Layout(
        call=("<tool_call>", "", "</tool_call>"),
        parameter=("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
    ),
    ends=("<|user|>", "<|observation|>", "<|endoftext|>"),
    cut=r"(?<=.)<\|(?:system|user|assistant|observation)\|>(?<!^\[gMASK\]<sop><\|system\|>)(?<!^\[gMASK\]<sop><\|user\|>)",
    header=r"(?!)",
    control=(
        "<|endoftext|>",
        "[gMASK]",
        "<sop>",
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
    ),
    tags=(
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<tool_response>",
        "</tool_response>",
    ),
)
