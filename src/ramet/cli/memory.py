"""`ramet memory`: store turns of conversations, and ask for them."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ramet.cli.output import as_option, console, messages, plural, printable, shorten, written
from ramet.cli.places import home, trees

if TYPE_CHECKING:
    from datetime import datetime

    from ramet.memory import Memory, Turn

app = typer.Typer(no_args_is_help=True, help="Remember what was said, and find it again. Needs no model.")

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", "-s", metavar="FILE|URL", envvar="RAMET_MEMORY", show_envvar=True,
        help="A file, or postgresql://... (default: a file in RAMET_HOME)",
    ),
]  # fmt: skip
LexicalOption = Annotated[bool, typer.Option("--lexical", help="Use no embedder, even if one is installed.")]
ConversationOption = Annotated[str | None, typer.Option("--conversation", "-c", help="Only this conversation.")]


def _time(text: str) -> datetime:
    from datetime import datetime

    return datetime.fromisoformat(text)


TimeOption = Annotated[
    Any,
    typer.Option(
        "--time", parser=as_option(_time), metavar="ISO", help="When, by the conversation's clock: 2023-05-08T13:56"
    ),
]


@contextmanager
def opened(store: str | None, *, lexical: bool = True, write: bool = False) -> Iterator[Memory]:
    """The memory to work on; without `write` it must be there."""
    from ramet.memory import Memory, MemoryStoreError, default_embedder

    place: str | Path = store if store is not None and "://" in store else Path(store or home() / "memory.db")
    if isinstance(place, Path) and not write and not place.expanduser().is_file():
        raise MemoryStoreError(f"there is no memory at {place}; ramet memory add, or import, makes one")
    with Memory.open(place, None if lexical else default_embedder()) as memory:
        yield memory


@app.command()
def add(
    text: Annotated[str, typer.Argument(help="What was said.", show_default=False)],
    conversation: Annotated[str, typer.Option("--conversation", "-c", help="Which conversation.")] = "notes",
    speaker: Annotated[str, typer.Option(help="Who said it.")] = "",
    session: Annotated[str, typer.Option(help="Which sitting of the conversation.")] = "",
    time: TimeOption = None,
    store: StoreOption = None,
    lexical: LexicalOption = False,
) -> None:
    """Store a turn. Prints its id.

    [bold]ramet memory add "I moved to Oslo" --speaker Ann --time 2023-05-08[/]
    """
    with opened(store, lexical=lexical, write=True) as memory:
        turn = memory.remember(text, conversation=conversation, speaker=speaker, session=session, time=time)
    typer.echo(turn.id)


@app.command()
def search(
    question: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    count: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many turns.")] = 10,
    conversation: ConversationOption = None,
    time: TimeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each turn.")] = False,
    store: StoreOption = None,
    lexical: LexicalOption = False,
) -> None:
    """Find the turns that say most about a question, best first.

    [bold]ramet memory search "Where does Ann live?"[/]
    """
    from ramet.memory.jsonl import as_object

    with opened(store, lexical=lexical) as memory:
        found = memory.recall(question, count, conversation=conversation, time=time)
    for recalled in found:
        if as_json:
            typer.echo(json.dumps(as_object(recalled.turn) | {"score": recalled.score}, ensure_ascii=False))
        else:
            show_turn(recalled.turn)
    if not found:
        messages.print("Nothing in the memory says anything about that.", style="yellow")


@app.command()
def learn(
    question: Annotated[str | None, typer.Argument(help="What was asked.", show_default=False)] = None,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="What answered it.", show_default=False)
    ] = None,
    conversation: ConversationOption = None,
    time: TimeOption = None,
    reset: Annotated[bool, typer.Option("--reset", help="Drop all that was learnt instead.")] = False,
    store: StoreOption = None,
    lexical: LexicalOption = False,
) -> None:
    """Tell the memory which turns answered a question, so that it weighs what it finds accordingly.

    [bold]ramet memory learn "Where does Ann live?" t_2f0c...[/]

    [bold]ramet memory learn --reset[/]   weighs it as at first
    """
    if reset == bool(question and ids) or bool(question) != bool(ids):
        raise typer.BadParameter("name a question and what answered it, or --reset alone")
    with opened(store, lexical=lexical or reset) as memory:
        if reset:
            messages.print(f"what was learnt from {plural(memory.unlearn(), 'question')} is dropped")
        else:
            known = memory.learn(question or "", ids or [], conversation=conversation, time=time)
            messages.print(f"learnt from {plural(known, 'question')}")


@app.command()
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", show_default=False)],
    around: Annotated[int, typer.Option(min=0, max=100, help="Also so many turns before and after.")] = 0,
    store: StoreOption = None,
) -> None:
    """Show turns by their ids."""
    with opened(store) as memory:
        _check(memory, None, ids)
        beside = memory.store.around(ids, around)
        for turn in memory.store.turns(list(dict.fromkeys(other for id in ids for other in beside.get(id, [id])))):
            show_turn(turn)


@app.command()
def forget(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", show_default=False)] = None,
    conversation: Annotated[str | None, typer.Option("--conversation", "-c", help="All of a conversation.")] = None,
    store: StoreOption = None,
) -> None:
    """Remove turns, and all that was derived from them. There is no way back.

    Prints the nodes of the stored sessions that still have what they say.

    [bold]ramet memory forget t_2f0c... | xargs -r ramet tree prune[/]   removes it there, too
    """
    if bool(ids) == (conversation is not None):
        raise typer.BadParameter("name either ids or a --conversation")
    with opened(store) as memory:
        _check(memory, conversation, ids or ())
        if conversation is not None:
            nodes = [turn.node for turn in memory.store.turns(memory.store.ids(conversation))]
            with messages.status(f"Removing {plural(len(nodes), 'turn')} ..."):
                gone = memory.forget_conversation(conversation)
        else:
            nodes = [turn.node for turn in memory.with_derived(ids or [])]
            gone = memory.forget(ids or [])
    messages.print(f"{plural(len(gone), 'turn')} removed")
    held, elsewhere = _holding([node for node in nodes if node is not None], gone)
    if held:
        messages.print(
            "The session tree still has what they say, in these nodes. ramet tree prune NODE... removes them there, "
            "with all that was said after them.",
            style="yellow",
        )
        typer.echo("\n".join(held))
    if elsewhere:
        command = shlex.join(["ramet", "tree", "prune", *elsewhere])
        messages.print(
            f"They were said in {plural(len(elsewhere), 'node')} not in {trees()}. If these sessions are kept "
            f"elsewhere: {command} --directory FOLDER",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


def _check(memory: Memory, conversation: str | None, ids: Collection[str] = ()) -> None:
    """Raises MemoryStoreError for a conversation that is not stored, or turns that are not."""
    from ramet.memory import MemoryStoreError

    if conversation is not None and not memory.store.count(conversation):
        raise MemoryStoreError(f"the memory has no conversation {conversation!r}")
    stored = {turn.id for turn in memory.store.turns(list(ids))}
    for id in ids:
        if id not in stored:
            raise MemoryStoreError(f"the memory has no turn {id!r}")


def _holding(nodes: list[str], removed: list[str]) -> tuple[list[str], list[str]]:
    """The nodes of stored sessions that still have turns which were removed, and those of `nodes` that are not there.

    See `remembering.holding`.
    """
    if not removed or not any(trees().glob("*.sqlite")):
        return [], list(dict.fromkeys(nodes))  # without what reads them, which takes seconds to load
    from ramet.agent.remembering import holding
    from ramet.tree.stored import stored_nodes, stored_trees

    stored = [node for file in stored_trees(trees()) for node in stored_nodes(file)]
    there = {node.id for node in stored}
    found = holding(stored, nodes, removed)
    return [id for id in found if id in there], [id for id in found if id not in there]


@app.command("export")
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", dir_okay=False, help="(default: stdout)")] = None,
    conversation: ConversationOption = None,
    store: StoreOption = None,
) -> None:
    """Write all turns as JSON, one a line, with their vectors; before them what was learnt, unless it is of one
    conversation."""
    from rich.progress import track

    with opened(store) as memory:
        _check(memory, conversation)
        if output is None:
            for line in memory.export(conversation):
                typer.echo(line)
            return
        count = memory.store.count(conversation) + 1  # the first line is about all of it
        with written(output) as file:
            for line in track(memory.export(conversation), "Writing", count, console=messages, transient=True):
                file.write(line + "\n")


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="What export wrote, or '-' for standard input.", show_default=False)],
    store: StoreOption = None,
    lexical: LexicalOption = False,
) -> None:
    """Store the turns of a JSONL file, and take over what was learnt. Those that are stored already are left alone."""
    import rich.progress

    with opened(store, lexical=lexical, write=True) as memory:
        if file == "-":
            new = memory.import_(sys.stdin)
        else:
            with rich.progress.open(
                file, "r", encoding="utf-8", description="Reading", console=messages, transient=True
            ) as lines:
                new = memory.import_(lines)
    messages.print(f"{plural(new, 'turn')} stored")


@app.command()
def derive(
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="The model, as the endpoint calls it.")],
    url: Annotated[str, typer.Option(help="An OpenAI-compatible endpoint; /v1 may be left out.")],
    conversation: ConversationOption = None,
    store: StoreOption = None,
    lexical: LexicalOption = False,
) -> None:
    """Have a model write summaries and facts of what was said, each linked to its turns.

    Only what has none yet is asked about: stopped at any moment, the same command goes on. The endpoint's key is
    taken from RAMET_API_KEY.

    [bold]ramet memory derive --model Qwen/Qwen3.5-0.8B --url http://127.0.0.1:8000[/]
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ramet.memory import ModelError
    from ramet.memory.derive.endpoint import Endpoint

    def note(text: str) -> None:
        messages.print(Text(printable(text), "yellow"), soft_wrap=True)

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with (
        opened(store, lexical=lexical) as memory,
        Endpoint(url, model, api_key=os.environ.get("RAMET_API_KEY"), notice=note) as endpoint,
    ):
        try:
            with Progress(*columns, console=messages) as bar:
                task = bar.add_task("", total=None)
                found = memory.derive(
                    endpoint,
                    conversation,
                    progress=lambda done, total, where: bar.update(
                        task, completed=done, total=total, description=shorten(where, 60)
                    ),
                )
        except (KeyboardInterrupt, ModelError):
            note("Stopped; what was written is kept. The same command goes on from there.")
            raise
    console.print(f"{_derived(found.summaries, found.facts)} written", end="")
    counts = {
        "in place of an older one": found.superseded,
        "that repeat known ones": found.repeated,
        "left out that name no source": found.unsourced,
    }
    console.print("".join(f"; {count:,} {what}" for what, count in counts.items() if count))
    for reason in found.failed:
        note(f"Left out: {reason}")
    if found.failed:
        raise typer.Exit(1)


@app.command()
def stats(store: StoreOption = None) -> None:
    """What the memory holds."""
    with opened(store) as memory:
        found = memory.stats()
    derived = _derived(found.summaries, found.facts)
    again = f"; {plural(found.repeated, 'fact')} said again" if found.repeated else ""
    console.print(f"{plural(found.turns, 'turn')} of {plural(found.conversations, 'conversation')}, {derived}{again}")
    console.print(f"embedder: {found.embedder or 'none'}")


@app.command()
def mcp(store: StoreOption = None, lexical: LexicalOption = False) -> None:
    """Offer the memory to an agent over MCP, on standard input and output.

    In the agent's settings: command [bold]ramet[/], arguments [bold]memory mcp --store FILE[/].
    """
    with opened(store, lexical=lexical, write=True) as memory:
        from ramet.memory.mcp import serve

        serve(memory)


def _derived(summaries: int, facts: int) -> str:
    return f"{plural(facts, 'fact')}, {summaries:,} {'summary' if summaries == 1 else 'summaries'}"


def show_turn(turn: Turn) -> None:
    """Print a turn: where and when, who, what."""
    about = " · ".join(part for part in (turn.conversation, turn.session, turn.kind if turn.sources else "") if part)
    when = f"{turn.time:%Y-%m-%d %H:%M} · " if turn.time is not None else ""
    console.print(Text(printable(f"{turn.id} · {when}{about}"), "dim"), soft_wrap=True)
    speaker = f"{turn.speaker}: " if turn.speaker else ""
    console.print(Text.assemble((printable(speaker), "bold"), printable(turn.text)), soft_wrap=True)
    if turn.superseded_by is not None:
        console.print(Text(printable(f"no longer so: see {turn.superseded_by}"), "yellow"), soft_wrap=True)
    elif turn.repeats is not None:
        console.print(Text(printable(f"said before: see {turn.repeats}"), "dim"), soft_wrap=True)
