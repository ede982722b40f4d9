"""DeepSeek: JSON in fences in V3, bare in V3.1; in V3.2 and V4 DSML, tags that say of each value if it is text."""

import re

from ramet.chat.calls import TagForm
from ramet.chat.format import Format, Layout
from ramet.chat.json_calls import JsonForm

_BEGIN, _END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
_USER, _ASSISTANT = "<｜User｜>", "<｜Assistant｜>"


_V3_CONTROL = (
    _BEGIN,
    _END,
    _USER,
    _ASSISTANT,
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
)
_V3_TAGS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
)


def _dsml(section: str) -> TagForm:
    return TagForm(
        section=(f"<｜DSML｜{section}>", f"</｜DSML｜{section}>"),
        opening=('<｜DSML｜invoke name="',),
        name_end='">',
        parameter='<｜DSML｜parameter name="',
        key_end=('" string="',),
        kinds=('true">', 'false">'),
        value_end="</｜DSML｜parameter>",
        ending=("</｜DSML｜invoke>",),
    )


def _dsml_layout(section: str) -> Layout:
    return Layout(
        section=(f"\n\n<｜DSML｜{section}>\n", f"</｜DSML｜{section}>"),
        call=('<｜DSML｜invoke name="', '">\n', "</｜DSML｜invoke>\n"),
        parameter=('<｜DSML｜parameter name="', '" string="{}">', "</｜DSML｜parameter>\n"),
    )


DEEPSEEK_V32 = Format(
    name="deepseek_v32",
    model_types=("deepseek_v32",),
    marks=("DSML", "function_calls"),
    calls=_dsml("function_calls"),
    layout=_dsml_layout("function_calls"),
    ends=(_END,),
    cut=f"{_END}|{_ASSISTANT}|</function_results>\n\n(?=</?think>)",
    header=r"(?P<role><｜User｜>|\n\n<function_results>|</?think>)",
    roles={_USER: "user", "\n\n<function_results>": "tool", "<think>": "assistant", "</think>": "assistant"},
    control=(_BEGIN, _END, _USER, _ASSISTANT),
    tags=("｜DSML｜",),
    named={"bos_token": _BEGIN},
)
DEEPSEEK_V4 = Format(
    name="deepseek_v4",
    model_types=("deepseek_v4",),
    marks=("DSML", "tool_calls"),
    calls=_dsml("tool_calls"),
    layout=_dsml_layout("tool_calls"),
    ends=(_END,),
    cut=f"{_END}|{_ASSISTANT}",
    header=r"(?P<role><｜User｜>|</?think>)",
    roles={_USER: "user", "<think>": "assistant", "</think>": "assistant"},
    control=(_BEGIN, _END, _USER, _ASSISTANT),
    tags=("｜DSML｜",),
    named={"bos_token": _BEGIN},
)
DEEPSEEK_V3 = Format(
    name="deepseek_v3",
    model_types=("deepseek_v3",),
    marks=("<｜tool▁sep｜>", "```json"),
    calls=JsonForm(
        section=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        opening=("<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>"),
        separator="\n```json\n",
        ending=("```", "<｜tool▁call▁end｜>"),
        name=re.compile(r"(?P<name>.+)"),
    ),
    layout=Layout(
        section=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        call=("<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n", "\n```<｜tool▁call▁end｜>"),
        between="\n",
    ),
    ends=(_END,),
    cut=f"{_END}|{_ASSISTANT}|<｜tool▁outputs▁end｜>",
    header=r"(?P<role><｜User｜>|<｜tool▁outputs▁begin｜>)",
    roles={_USER: "user", "<｜tool▁outputs▁begin｜>": "tool"},
    control=_V3_CONTROL,
    tags=_V3_TAGS,
    named={"bos_token": _BEGIN},
)
DEEPSEEK_V31 = Format(
    name="deepseek_v31",
    model_types=(),
    marks=("<｜tool▁sep｜>",),
    calls=JsonForm(
        section=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        opening=("<｜tool▁call▁begin｜>",),
        separator="<｜tool▁sep｜>",
        ending=("<｜tool▁call▁end｜>",),
        name=re.compile(r"(?P<name>.+)"),
    ),
    layout=Layout(
        section=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        call=("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    ),
    ends=(_END,),
    cut=f"{_END}|{_ASSISTANT}|<｜tool▁output▁end｜>(?!<｜tool▁output▁begin｜>)",
    header=r"(?P<role><｜User｜>|<｜tool▁output▁begin｜>)",
    roles={_USER: "user", "<｜tool▁output▁begin｜>": "tool"},
    control=_V3_CONTROL,
    tags=_V3_TAGS,
    named={"bos_token": _BEGIN},
)
