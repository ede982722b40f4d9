"""Generated conversations about tables: questions, calls of the SQL tool, its real answers, corrections, replies."""

from __future__ import annotations

import random
from typing import Any

from ramet.agent.linking import Linker
from ramet.agent.sql import QueryError, Table
from ramet.agent.table_prompt import (
    answer_text,
    call_message,
    expand,
    show_error,
    show_result,
    system_message,
    tool_message,
    user_message,
)  # fmt: skip
from ramet.train.questions import Question, make_question
from ramet.train.tables import Split, make_table

Message = dict[str, Any]
Conversation = list[Message]
"""Messages in OpenAI's form; an assistant message with `"loss": False` is read but not learnt."""

_SMALL_TALK = [
    ("hello", "hello. ask me about your table"),
    ("hi", "hello. ask me about your table"),
    ("hey there", "hello. ask me about your table"),
    ("thanks", "you are welcome"),
    ("thank you", "you are welcome"),
    ("who are you", "a small model that answers questions about tables with sql"),
    ("what can you do", "i answer questions about a table with sql"),
    ("help", "ask me about the rows and columns of your table"),
    ("what are you", "a small model that answers questions about tables with sql"),
]


def make_conversations(rng: random.Random, split: Split = "train", *, stage: int = 0) -> list[Conversation]:
    """Conversations over one new table: three times a first question up to its call, and once a longer talk."""
    data = make_table(rng, split, wide=stage >= 2)
    linker = Linker(data.table)
    system = system_message(data.table)
    try:
        made = [[system, *_call_only(make_question(rng, data, linker, stage=stage))] for _ in range(2)]
        made.append([system, *_recovery(rng, data.table, make_question(rng, data, linker, stage=stage))])
        talk = [system]
        for _ in range(rng.choice([1, 1, 2, 3])):
            talk += _with_answer(data.table, make_question(rng, data, linker, stage=stage))
        made.append(talk)
        if rng.random() < 0.03:
            said, answer = rng.choice(_SMALL_TALK)
            made.append([{"role": "user", "content": said}, {"role": "assistant", "content": answer}])
        return made
    finally:
        data.table.close()


def _call_only(question: Question) -> list[Message]:
    return [user_message(question.linked), call_message(question.query)]


def run_query(table: Table, question: Question, query: str) -> tuple[str, str | None]:
    """What the tool says to `query`, and the answer it gives (None after an error)."""
    try:
        result = table.query(expand(query, table, question.linked.values))
    except QueryError as error:
        return show_error(error), None
    return show_result(result), answer_text(query, result)


def _with_answer(table: Table, question: Question) -> list[Message]:
    said, answer = run_query(table, question, question.query)
    messages = [*_call_only(question), tool_message(said)]
    return [*messages, {"role": "assistant", "content": answer or "none"}]


def _recovery(rng: random.Random, table: Table, question: Question) -> list[Message]:
    """A first call that fails or finds nothing, what the tool really said, and the right call. Only that is learnt."""
    wrong = _broken(rng, table, question)
    if wrong is not None and wrong != question.query and rng.random() < 0.35:
        said, _ = run_query(table, question, wrong)
        if said == "no rows" or said.startswith("error"):
            first = call_message(wrong) | {"loss": False}
            return [user_message(question.linked), first, tool_message(said), call_message(question.query, "call_2")]
    return _call_only(question)


def _broken(rng: random.Random, table: Table, question: Question) -> str | None:
    query = question.query
    style = rng.random()
    if style < 0.25:
        return query.replace(" FROM", " FORM", 1)
    columns = sorted(
        {
            w
            for w in query.replace(")", " ").replace("(", " ").replace(",", " ").split()
            if w[0] == "c" and w[1:].isdigit()
        }
    )
    if not columns:
        return None
    column = rng.choice(columns)
    if style < 0.5:
        return query.replace(column, f"c{len(table.columns) + rng.randint(1, 3)}", 1)
    if style < 0.7 and "v1" in query:
        return query.replace("v1", f"v{len(question.linked.values) + 1}", 1)
    if " = v" in query:
        other = f"c{rng.randint(1, len(table.columns))}"
        place = query.rindex(" = v")
        start = query.rindex(" ", 0, place) + 1
        return query[:start] + other + query[place:]
    return None
