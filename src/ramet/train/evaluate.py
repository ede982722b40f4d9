"""How often a table model is right: on generated questions that training held out, and on WikiTableQuestions."""

from __future__ import annotations

import csv
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ramet.agent.ask import TableAgent
from ramet.agent.cells import Cell, plain, read_date, read_number
from ramet.agent.doubts import mended
from ramet.agent.linking import Linked, Linker
from ramet.agent.replies import TableModel
from ramet.agent.sql import QueryError, Result, Table, load_table
from ramet.agent.table_prompt import (
    call_message,
    expand,
    is_yes_no,
    show_cell,
    show_error,
    show_result,
    system_message,
    tool_message,
    user_message,
)  # fmt: skip
from ramet.models.base import Model
from ramet.models.states import PAGE_TOKENS, Span
from ramet.train.conversations import Message
from ramet.train.packing import Encoder
from ramet.train.questions import Question, make_question
from ramet.train.tables import Split, make_table
from ramet.train.tokenizer import CALL

BATCH = 24
MAX_REPLY = 96
SURE = 0.6
"""A first query at least this probable, under the model that is shipped, is one that it is sure of."""


@dataclass
class Reply:
    tokens: list[int]
    logprob: float
    """Of all its tokens together."""


@dataclass
class Case:
    """A question to be answered, and how it went."""

    table: Table
    linked: Linked
    text: str
    gold: str = ""
    """The right query over names; or, where there is none, `values`."""
    values: Sequence[str] = ()
    """The values of the right answer."""
    intent: str = ""
    query: str = ""
    result: Result | None = None
    probability: float = 0.0
    """Of the first query, under the model."""
    sure: bool = False
    """Whether the answer was given without a warning."""
    right: bool = False


@torch.inference_mode()
def greedy(model: Model, prompts: Sequence[Sequence[int]], stop: int, limit: int = MAX_REPLY) -> list[Reply]:
    """The likeliest continuation of each prompt, token by token, up to `stop`, all prompts in one batch."""
    sessions = []
    for prompt in prompts:
        pages = [model.layout.new_page() for _ in range(-(-(len(prompt) + limit) // PAGE_TOKENS))]
        sessions.append(Span(torch.tensor(prompt), 0, pages, model.layout.new_state()))
    replies = [Reply([], 0.0) for _ in prompts]
    live = list(range(len(prompts)))
    while live:
        logits = model.forward([sessions[i] for i in live]).log_softmax(-1)
        best = logits.max(-1)
        going_on = []
        for i, value, token in zip(live, best.values.tolist(), best.indices.tolist(), strict=True):
            replies[i].logprob += value
            span = sessions[i]
            if token != stop and len(replies[i].tokens) < limit - 1:
                replies[i].tokens.append(token)
                position = span.position + len(span.tokens)
                sessions[i] = Span(torch.tensor([token]), position, span.pages, span.state)
                going_on.append(i)
        live = going_on
    return replies


def answer_greedily(model: Model, encoder: Encoder, cases: Sequence[Case], tries: int = 2) -> None:
    """Let the model call the tool for each case; after an error or no rows, once more. Fills in the cases."""
    stop = encoder.end
    talks: list[list[Message]] = [[system_message(c.table), user_message(c.linked)] for c in cases]
    open_ = list(range(len(cases)))
    for attempt in range(tries):
        again = []
        for start in range(0, len(open_), BATCH):
            part = open_[start : start + BATCH]
            texts = [encoder.render(talks[i], reply=True) for i in part]
            prompts = [e.ids for e in encoder.tokenizer.encode_batch(texts, add_special_tokens=False)]
            for i, reply in zip(part, greedy(model, prompts, stop), strict=True):
                case = cases[i]
                said = encoder.tokenizer.decode(reply.tokens, skip_special_tokens=False)
                query = said.removeprefix(CALL[0]).removesuffix(CALL[1])
                if attempt == 0:
                    case.probability = math.exp(reply.logprob)
                    case.sure = case.probability >= SURE
                elif query == said:
                    continue
                try:
                    query = mended(query, case.table, case.linked)
                    result = case.table.query(expand(query, case.table, case.linked.values))
                    case.query, case.result, heard = query, result, show_result(result)
                except QueryError as error:
                    if attempt == 0:
                        case.query = query
                    heard = show_error(error)
                if heard == "no rows" or heard.startswith("error"):
                    talks[i] += [call_message(query), tool_message(heard)]
                    again.append(i)
        open_ = again


def ask(model: TableModel, cases: Sequence[Case], branches: int = 5) -> None:
    """Answer each case as `ramet ask` does, by a vote of branches. Fills in the cases."""
    for case in cases:
        if not case.table.rows:
            continue
        said = TableAgent(model, case.table, branches=branches).ask(case.text)
        if said.best is not None:
            case.query, case.result, case.sure = said.best.sql or "", said.best.result, said.sure


def generated_cases(count: int, seed: int, split: Split = "test") -> list[Case]:
    """Questions over tables of the split's own domains, values and phrasings, with the rows of the right answer."""
    rng = random.Random(f"evaluate/{split}/{seed}")
    cases: list[Case] = []
    while len(cases) < count:
        data = make_table(rng, split)
        linker = Linker(data.table)
        for _ in range(2):
            question: Question = make_question(rng, data, linker)
            cases.append(Case(data.table, question.linked, question.text, question.sql, intent=question.intent))
    return cases[:count]


def same_rows(query: str, result: Result, gold: Result) -> bool:
    """Whether two results say the same: cells equal, rows in order where the question asked for one."""
    rows, wanted = ([tuple(show_cell(c) for c in row) for row in r.rows] for r in (result, gold))
    ordered = "ORDER BY" in query
    return rows == wanted if ordered else sorted(rows) == sorted(wanted)


def mark_generated(cases: Sequence[Case]) -> float:
    """Compare the rows of answered cases with the right ones'. Returns the share that is right."""
    for case in cases:
        gold = case.table.query(case.gold)
        case.right = case.result is not None and same_rows(case.gold, case.result, gold)
    return sum(c.right for c in cases) / len(cases)


def wikitable_cases(folder: Path, limit: int | None = None) -> list[Case]:
    """The questions of WikiTableQuestions' `dev.tsv`, with the values of the right answer."""
    with (folder / "dev.tsv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    linkers: dict[str, Linker] = {}
    cases = []
    for line in lines[:limit]:
        place = line["context"]
        if place not in linkers:
            linkers[place] = Linker(load_table(folder / place, escape="\\"))
        linker = linkers[place]
        gold = [part.replace("\\p", "|").replace("\\n", "\n") for part in line["targetValue"].split("|")]
        cases.append(Case(linker.table, linker.link(line["utterance"]), line["utterance"], values=gold))
    return cases


def mark_wikitable(cases: Sequence[Case]) -> float:
    """Compare the values of answered cases with the right ones. Returns the share that is right."""
    for case in cases:
        case.right = case.result is not None and same_values(values_of(case.query, case.result), case.values)
    return sum(c.right for c in cases) / len(cases)


def values_of(query: str, result: Result) -> list[str]:
    cells = [cell for row in result.rows for cell in row]
    if is_yes_no(query) and len(cells) == 1:
        return ["yes" if cells[0] else "no"]
    return [show_cell(cell) for cell in cells]


def same_values(said: Sequence[str], gold: Sequence[str]) -> bool:
    """WikiTableQuestions' measure: the same set of values, compared as numbers, dates or text."""
    wanted = {_value(v) for v in gold}
    return {_value(v) for v in said} == wanted


def _value(text: str) -> str:
    number = read_number(text)
    if number is not None:
        return f"{float(number):.6g}"
    date = read_date(text)
    return date or plain(re.sub(r"\([^)]*\)|\[[^\]]*\]", "", text)) or plain(text)


def do_nothing(cases: Sequence[Case], pick: Callable[[Table], Cell]) -> float:
    """How often the same cell for every question of a table is right."""
    return sum(same_values([show_cell(pick(c.table))], c.values) for c in cases) / len(cases)


def first_cell(table: Table) -> Cell:
    return table.rows[0][0] if table.rows else None


def commonest_cell(table: Table) -> Cell:
    counts = Counter(cell for row in table.rows for cell in row if cell is not None)
    return counts.most_common(1)[0][0] if counts else None


def calibration(cases: Sequence[Case]) -> tuple[float, float, float]:
    """Share of cases said to be sure, how often those are right, and how often the others are."""
    sure = [c.right for c in cases if c.sure]
    unsure = [c.right for c in cases if not c.sure]
    return len(sure) / len(cases), sum(sure) / max(1, len(sure)), sum(unsure) / max(1, len(unsure))
