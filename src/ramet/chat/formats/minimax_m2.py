"""MiniMax M2, M2.5: a section of `<invoke name="NAME"> (<parameter name="KEY">VALUE</parameter>)* </invoke>`."""

from ramet.chat.calls import TagForm
from ramet.chat.format import Format, Layout

MINIMAX_M2 = Format(
    name="minimax_m2",
    model_types=("minimax_m2",),
    marks=("<minimax:tool_call>",),
    calls=TagForm(
        section=("<minimax:tool_call>", "</minimax:tool_call>"),
        opening=('<invoke name="',),
        name_end='">',
        parameter='<parameter name="',
        key_end=('">',),
        value_end="</parameter>",
        ending=("</invoke>",),
    ),
    layout=Layout(
        section=("\n<minimax:tool_call>\n", "</minimax:tool_call>"),
        call=('<invoke name="', '">\n', "</invoke>\n"),
        parameter=('<parameter name="', '">', "</parameter>\n"),
        after_reasoning="\n\n",
    ),
    ends=("[e~[",),
    cut=r"\[e~\[",
    header=r"\s*(?:\]~!b\[)?\]~b\](?P<role>\w+)",
    roles={"ai": "assistant"},
    control=("]~!b[", "]~b]", "[e~["),
    tags=("<minimax:tool_call>", "</minimax:tool_call>"),
    named={"bos_token": "]~!b["},
)
