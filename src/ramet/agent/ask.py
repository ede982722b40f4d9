"""Questions about a table: branches of one prompt call a SQL tool, and vote on the answer."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ramet.agent.cells import plain
from ramet.agent.doubts import doubts, mended
from ramet.agent.linking import Linked, Linker
from ramet.agent.replies import AskError, Reply, TableModel
from ramet.agent.sql import QueryError, Result, Table
from ramet.agent.table_prompt import (
    answer_text,
    expand,
    is_yes_no,
    show_cell,
    show_error,
    show_result,
    system_message,
    tool_message,
    user_message,
)
from ramet.agent.vote import Ballot, count, rows_key

SURE_SHARE = 0.9
"""The share of branches that must agree for an answer to be given without a warning: up to nine, all of them.

On generated questions that were held out, answers of all five branches are right about twice as often as those of four.
"""

_LISTED = 20
_SEED = 11


@dataclass(frozen=True)
class Attempt:
    """One call of the tool, or one reply without a call."""

    said: str
    """What the model wrote: a query over handles, or text."""
    sql: str | None
    """The query as it was run; None if there was none, or it named what does not exist."""
    result: Result | None
    error: str | None
    node: str | None
    """Id of the tree's node that ends with this reply."""

    @property
    def found(self) -> bool:
        """Whether the query gave anything but missing cells."""
        return self.result is not None and any(cell is not None for row in self.result.rows for cell in row)


@dataclass
class Branch:
    """One way in which the question was followed, up to an answer or to the last allowed try."""

    greedy: bool
    """Whether each token was the likeliest; otherwise it was sampled."""
    attempts: list[Attempt] = field(default_factory=list)
    logprob: float = 0.0
    """Log probability of everything that it wrote."""
    doubts: int = 0
    """How many things speak against its query, whatever the rows."""

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def queried(self) -> Attempt | None:
        """The last attempt that was run as a query."""
        return next((a for a in reversed(self.attempts) if a.result is not None), None)

    @property
    def answer(self) -> str | None:
        """What the rows say; where no query could be run, what the model said; None if it found nothing to say."""
        queried = self.queried
        if queried is not None and queried.result is not None and queried.sql is not None:
            return _words(queried.sql, queried.result)
        return (self.last.said or None) if self.last.error is None else None

    @property
    def telling(self) -> bool:
        """Whether the answer rests on cells, and not on a query that fits nothing: no rows, or a count of 0."""
        last = self.last
        if last.sql is None or last.result is None or not last.found:
            return False
        nothing = all(cell in (None, 0) for row in last.result.rows for cell in row)
        return not nothing or is_yes_no(last.sql)

    @property
    def key(self) -> Hashable | None:
        """What this branch votes for."""
        queried = self.queried
        if queried is not None and queried.result is not None:
            return rows_key(queried.result.rows)
        return None if self.answer is None else plain(self.answer)


@dataclass(frozen=True)
class Choice:
    """An answer that some of the branches came to."""

    text: str
    sql: str | None
    result: Result | None
    share: float
    """Of the branches, 0 to 1."""
    branch: Branch


@dataclass(frozen=True)
class Answer:
    """The answer to a question, with what it rests on."""

    question: str
    best: Choice | None
    """None if no branch came to an answer."""
    others: tuple[Choice, ...]
    """What the branches that disagree say, the most frequent first."""
    branches: tuple[Branch, ...]
    computed: int
    """Prompt tokens that were run for all branches together."""
    reused: int
    """Prompt tokens that were not run again: the tree had them, or another branch of the same fork ran them."""

    @property
    def sure(self) -> bool:
        """Whether enough branches agree, on a query that found something to count, list or compare."""
        best = self.best
        return best is not None and best.share >= SURE_SHARE and best.branch.telling and not best.branch.doubts


class TableAgent:
    """Answers questions about one table. All its questions share the tree's node of that table."""

    def __init__(
        self, model: TableModel, table: Table, *, branches: int = 5, tries: int = 3, temperature: float = 0.7
    ) -> None:
        """`branches` ways are followed for each question: the likeliest, and others sampled at `temperature`; each may
        call the tool `tries` times. Raises AskError for a table without rows."""
        if not table.rows:
            raise AskError(f"{table.name}: the table has a header and no rows, so there is nothing to ask it")
        self.model = model
        self.table = table
        self.branches = branches
        self.tries = tries
        self.temperature = temperature
        self._linker = Linker(table)

    def ask(self, question: str) -> Answer:
        """Follow the question along all branches and vote. The same question gives the same answer.

        Raises AskError if the question is empty or does not fit the model's context.
        """
        if not question.strip():
            raise AskError("the question is empty")
        linked = self._linker.link(question)
        start = [system_message(self.table), user_message(linked)]
        branches = [Branch(greedy=index == 0) for index in range(self.branches)]
        open_ = [(branch, start) for branch in branches]
        prompts = computed = 0
        for attempt in range(self.tries):
            replies, read, run = self._replies(open_, attempt)
            prompts, computed = prompts + read, computed + run
            going_on = []
            for (branch, messages), reply in zip(open_, replies, strict=True):
                more = self._follow(branch, messages, reply, linked)
                if more is not None:
                    going_on.append((branch, more))
            open_ = going_on
            if not open_:
                break
        ballots = [Ballot(branch, branch.key, branch.logprob, branch.telling, branch.doubts) for branch in branches]
        choices = [_choice(candidate.branches[0], candidate.share) for candidate in count(ballots)]
        best = choices[0] if choices else None
        return Answer(question, best, tuple(choices[1:]), tuple(branches), computed, prompts - computed)

    def _replies(
        self, open_: Sequence[tuple[Branch, list[dict[str, Any]]]], attempt: int
    ) -> tuple[list[Reply], int, int]:
        """The next reply of each open branch, in order; prompt tokens in all, and how many of them were run.

        Branches on the same messages are forks of one request.
        """
        asked = []
        for greedy in (True, False):
            groups: dict[str, list[int]] = {}
            for index, (branch, messages) in enumerate(open_):
                if branch.greedy is greedy:
                    groups.setdefault(json.dumps(messages), []).append(index)
            for members in groups.values():
                wait = self.model.ask(
                    open_[members[0]][1],
                    n=len(members),
                    temperature=0.0 if greedy else self.temperature,
                    seed=_SEED + 1000 * attempt + members[0],
                )
                asked.append((members, wait))
        replies: dict[int, Reply] = {}
        prompts = computed = 0
        for members, wait in asked:
            got = wait()
            replies.update(zip(members, got.replies, strict=True))
            prompts += got.prompt_tokens * len(members)
            computed += got.computed
        return [replies[index] for index in range(len(open_))], prompts, computed

    def _follow(
        self, branch: Branch, messages: list[dict[str, Any]], reply: Reply, linked: Linked
    ) -> list[dict[str, Any]] | None:
        """Run the query that a reply asks for. The messages to go on with, or None if the branch has ended."""
        branch.logprob += reply.logprob
        message, node = reply.message, reply.node
        calls = message.get("tool_calls") or []
        if not calls:
            branch.attempts.append(Attempt(str(message.get("content") or "").strip(), None, None, None, node))
            return None
        query, call_id = _query_of(calls[0]), str(calls[0].get("id", "call_1"))
        sql: str | None = None
        try:
            query = mended(query, self.table, linked)
            sql = expand(query, self.table, linked.values)
            result = self.table.query(sql)
        except QueryError as error:
            branch.attempts.append(Attempt(query, sql, None, str(error), node))
            said = show_error(error)
        else:
            branch.attempts.append(Attempt(query, sql, result, None, node))
            branch.doubts = doubts(query, self.table, linked)
            if branch.last.found:
                return None
            said = show_result(result)
        # One answer for each call: templates pair them.
        answers = [tool_message(said, str(call.get("id", call_id))) for call in calls]
        return [*messages, message, *answers]


def _words(sql: str, result: Result) -> str:
    """A result as an answer: the different values of one column, if they are few; what is longer is counted."""
    if len(result.columns) == 1 and len(result.rows) > 1:
        values = list(dict.fromkeys(show_cell(row[0]) for row in result.rows))
        if len(values) <= _LISTED and not result.more:
            return ", ".join(values)
    return answer_text(sql, result)


def _query_of(call: Mapping[str, Any]) -> str:
    """The query in a tool call; empty, and so an error that goes back to the model, where it has none."""
    arguments = call.get("function", {}).get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return ""
    return str(arguments.get("query", "")) if isinstance(arguments, Mapping) else ""


def _choice(branch: Branch, share: float) -> Choice:
    queried = branch.queried
    return Choice(
        branch.answer or "",
        queried.sql if queried else None,
        queried.result if queried else None,
        share,
        branch,
    )
