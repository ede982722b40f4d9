"""`ramet ask`: questions about a table, answered by the small model with SQL."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ramet.cli.output import console, format_size, messages, plural, printable, shorten
from ramet.cli.places import find_model

if TYPE_CHECKING:
    from rich.console import Console

    from ramet.agent.ask import Answer, Choice
    from ramet.agent.replies import TableModel, TreeNode
    from ramet.agent.sql import Result, Table

_LARGEST_FILE = 64 << 20
"""The table is read into memory, at about 25 times the size of the file, in about a second per MiB."""
_SHOWN_ROWS = 20
_SHOWN_OTHERS = 3
_TABLE_SUFFIXES = {".csv", ".tsv", ".tab", ".xlsx", ".xlsm", ".db", ".sqlite", ".sqlite3"}


def ask(
    file: Annotated[Path, typer.Argument(help="A CSV, TSV, Excel (.xlsx) or SQLite file.", show_default=False)],
    questions: Annotated[
        list[str], typer.Argument(metavar="QUESTION", help="In English, each in quotes.", show_default=False)
    ],
    branches: Annotated[int, typer.Option(min=1, max=16, help="Ways to follow for each question.")] = 5,
    tree: Annotated[bool, typer.Option("--tree", help="Show the tree that the branches grew.")] = False,
    sheet: Annotated[
        str | None,
        typer.Option("--sheet", "--table", metavar="NAME", help="Which sheet or table to read. (default: the first)"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="DIR|ORG/NAME", help="Another table model. (default: the small one)"),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the model of a running [bold]ramet serve[/] instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each question.")] = False,
) -> None:
    """Ask a table. The model writes SQL, which is run read-only; most of several branches must agree.

    Prints the SQL, the rows and the answer, and says so when it is not sure.

    [bold]ramet ask orders.csv "How many orders were cancelled?"[/]

    [bold]ramet ask staff.xlsx --sheet 2026 "Who earns most?" "And in which city?" --tree[/]
    """
    table = open_table(file, sheet)
    for note in table.notes:
        messages.print(f"Note: {note}", style="yellow", markup=False)
    from ramet.agent.ask import TableAgent

    with _model(model, server) as table_model:
        agent = TableAgent(table_model, table, branches=branches)
        answers = []
        for question in questions:
            with messages.status("Thinking ..."):
                answers.append(agent.ask(question))
            if as_json:
                typer.echo(json.dumps(as_object(answers[-1]), ensure_ascii=False))
            else:
                show(answers[-1])
        if tree:
            show_tree(table_model.nodes(), answers, messages if as_json else console)


@contextmanager
def _model(name: str | None, server: str | None) -> Iterator[TableModel]:
    """The model to ask: a server's, or one that is loaded here."""
    from ramet.agent.replies import LocalModel, RemoteModel

    if server is not None:
        if name is not None:
            raise typer.BadParameter("--server has its own model: give either --model or --server")
        yield RemoteModel(server, api_key=os.environ.get("RAMET_API_KEY"))
        return
    path = find_model(name)
    with messages.status("Loading the model ..."):
        from ramet.engine.runtime import Runtime

        runtime = Runtime.load(path, ram_bytes=1 << 30)
    with runtime:
        yield LocalModel(runtime)


def open_table(path: Path, sheet: str | None) -> Table:
    """Read the file. Raises TableError, saying what is wrong with it, if it is not a table that can be asked."""
    from ramet.agent.sql import TableError, load_table

    if path.is_dir():
        raise TableError(f"{path} is a folder; name one CSV, TSV, Excel or SQLite file in it")
    if path.is_file() and path.stat().st_size > _LARGEST_FILE:
        raise TableError(
            f"{path} has {format_size(path.stat().st_size)}; at most {format_size(_LARGEST_FILE)} are read. "
            "Cut out the part that the question is about"
        )
    table = load_table(path, table=sheet)
    if len(table.columns) == 1 and path.suffix.lower() not in _TABLE_SUFFIXES:
        raise TableError(f"{path} does not look like a table: no separator cuts its lines into columns")
    return table


def show(answer: Answer) -> None:
    """Print a question's SQL, rows, answer, and how sure it is."""
    console.print()
    console.print(Text(printable(answer.question), "bold"))
    best = answer.best
    if best is None:
        console.print("[yellow]No answer:[/] no branch came to a query that runs. Try other words for the columns.")
        for branch in answer.branches[:1]:
            console.print(Text(f"  the last error: {branch.last.error or 'none'}", "dim"))
        return
    if best.sql is not None:
        console.print(Text(printable(best.sql), "cyan"), soft_wrap=True)
    if best.result is not None and best.result.rows:
        show_rows(best.result)
    rows = len(best.result.rows) if best.result is not None else 0
    text = "the rows above" if best.text == f"{rows} rows" and rows <= _SHOWN_ROWS else printable(best.text)
    console.print(Text.assemble(("Answer: ", "bold"), (text, "bold green" if answer.sure else "bold yellow")))
    if not answer.sure:
        console.print(Text(_doubt(answer), "yellow"))
        for other in answer.others[:_SHOWN_OTHERS]:
            console.print(
                Text(f"  {_votes(other, answer)}: {shorten(other.text, 80)} ", "yellow"),
                Text(shorten(other.sql or "", 120), "dim"),
            )


def show_rows(result: Result) -> None:
    """Print the rows of a result as a table."""
    from rich import box
    from rich.table import Table as RichTable

    from ramet.agent.table_prompt import show_cell

    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, name in enumerate(result.columns):
        numbers = all(isinstance(row[index], int | float | None) for row in result.rows)
        drawn.add_column(Text(printable(name)), justify="right" if numbers else "left")
    for row in result.rows[:_SHOWN_ROWS]:
        drawn.add_row(*(Text("" if cell is None else printable(show_cell(cell))) for cell in row))
    console.print(drawn)
    left = len(result.rows) - _SHOWN_ROWS
    if left > 0:
        console.print(f"... and {'more than ' if result.more else ''}{plural(left, 'more row')}", style="dim")


def show_tree(nodes: Sequence[TreeNode], answers: Sequence[Answer], out: Console) -> None:
    """Print the tree of all branches of all questions, and what it cost."""
    from ramet.cli.tree_view import draw, message_text, node_line

    attempts = {a.node: a for answer in answers for branch in answer.branches for a in branch.attempts if a.node}
    votes = Counter(a.node for answer in answers for branch in answer.branches for a in branch.attempts)
    winners = {answer.best.branch.last.node for answer in answers if answer.best is not None}
    wanted = set(attempts)
    below: dict[str | None, list[TreeNode]] = {}
    for node in reversed(nodes):  # children before parents; a server's tree has other sessions too
        if node.id in wanted:
            wanted.add(node.parent or "")
            below.setdefault(node.parent, []).insert(0, node)

    def line(node: TreeNode) -> Text:
        attempt = attempts.get(node.id)
        cost = f"{node.reused:,} reused" if node.reused else ""
        if attempt is None:
            return node_line(node.message, tokens=node.tokens, cost=cost)
        said = attempt.sql or attempt.said or message_text(node.message)
        outcome = attempt.error or (plural(len(attempt.result.rows), "row") if attempt.result is not None else "")
        drawn = node_line({"role": "assistant", "content": said}, tokens=node.tokens, cost=cost, width=160)
        drawn.append(f" → {outcome}" if outcome else "", "red" if attempt.error else "dim")
        drawn.append(f" ×{votes[node.id]}" if votes[node.id] > 1 else "", "bold")
        drawn.append(" ✔" if node.id in winners else "", "bold green")
        return drawn

    computed, reused = sum(answer.computed for answer in answers), sum(answer.reused for answer in answers)
    out.print()
    title = Text(f"prompt tokens: {computed:,} computed, {reused:,} reused", "bold")
    out.print(draw(title, below.get(None, []), lambda node: below.get(node.id, []), line))


def as_object(answer: Answer) -> dict[str, Any]:
    """An answer as `--json` prints it."""
    best = answer.best
    return {
        "question": answer.question,
        "answer": best.text if best else None,
        "sure": answer.sure,
        "agreement": best.share if best else 0.0,
        "sql": best.sql if best else None,
        "columns": list(best.result.columns) if best and best.result else [],
        "rows": [list(row) for row in best.result.rows] if best and best.result else [],
        "others": [{"answer": o.text, "sql": o.sql, "agreement": o.share} for o in answer.others],
        "tokens": {"computed": answer.computed, "reused": answer.reused},
    }


def _votes(choice: Choice, answer: Answer) -> str:
    return f"{round(choice.share * len(answer.branches))} of {len(answer.branches)}"


def _doubt(answer: Answer) -> str:
    from ramet.agent.ask import SURE_SHARE

    best = answer.best
    assert best is not None
    if best.sql is None:
        return "Not sure: this was answered without a query."
    if not best.branch.telling:
        return "Not sure: nothing in the table fits the question as it was understood."
    if best.share >= SURE_SHARE:
        return "Not sure: the query leaves out a part of the question, or compares what does not fit."
    return f"Not sure: only {_votes(best, answer)} branches say so." + (" Others say:" if answer.others else "")
