"""`ramet tree`: look at stored sessions, export them, prune them. The model is not loaded."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ramet.cli.output import as_option, console, format_size, messages, plural, written
from ramet.cli.places import trees
from ramet.errors import RametError

if TYPE_CHECKING:
    from ramet.tree import Node, Tree

app = typer.Typer(no_args_is_help=True, help="Stored sessions: show, export, prune. Needs no model.")

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_age(text: str) -> float:
    """Seconds of an age as people write it: `30m`, `12h`, `7d`, `2w`. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not an age; write for example 30m, 12h, 7d or 2w")
    return float(match[1]) * _UNITS[match[2]]


Directory = Annotated[
    Path | None,
    typer.Option("--directory", "-d", file_okay=False, help="Where the sessions are. (default: chat's, in RAMET_HOME)"),
]


@app.command("show")
def show(
    node: Annotated[str | None, typer.Argument(help="Only this node and what follows it.", show_default=False)] = None,
    directory: Directory = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Show at most so many messages deep.")] = None,
) -> None:
    """Draw the tree: each message with its role, tokens, bytes on disk, and what it cost.

    [bold]ramet tree show[/]

    [bold]ramet tree show 3f9a --directory ~/sessions[/]
    """
    from ramet.cli.tree_view import draw, node_line
    from ramet.tree.stored import bytes_by_node

    shown = 0
    for file, tree in _opened(directory):
        sizes = bytes_by_node(file)
        if node is not None and not any(_beginning(tree, node)):
            continue
        roots = [_one(tree, node)] if node is not None else tree.children(tree.root)
        first = len(tree.path(roots[0])) if roots else 0

        def children(of: Node, tree: Tree = tree, first: int = first) -> list[Node]:  # depth counts from what is shown
            deep = depth is not None and len(tree.path(of)) - first + 1 >= depth
            return [] if deep else tree.children(of)

        def line(of: Node, sizes: dict[str, int] = sizes) -> Text:
            return node_line(of.message, tokens=len(of.tokens), cost=_cost(of, sizes), name=of.id[:8])

        count = sum(1 for _ in tree.nodes())
        title = Text(f"{plural(count, 'node')}, {format_size(file.stat().st_size)} in {file}", "bold")
        console.print(draw(title, roots, children, line))
        shown += 1
    if not shown:
        raise RametError(f"no stored node begins with {node!r}" if node is not None else _nothing(directory))


@app.command("export")
def export(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Write to this file. (default: standard output)"),
    ] = None,
    directory: Directory = None,
) -> None:
    """Write every node as JSON, one a line, parents before children: message, token ids, bill, bytes.

    [bold]ramet tree export -o sessions.jsonl[/]

    [bold]ramet tree export | jq -r 'select(.message.role == "user").message.content'[/]
    """
    count = 0
    with written(output) if output is not None else nullcontext(sys.stdout) as out:
        for record in _records(directory):
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    messages.print(f"{plural(count, 'node')} exported" + (f" to {output}" if output else ""), style="dim", markup=False)


@app.command("prune")
def prune(
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="NODE", help="Nodes to remove, with all that follows them.")
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(parser=as_option(parse_age), metavar="AGE", help="Remove what has nothing newer: 12h, 30d, 4w."),
    ] = None,
    directory: Directory = None,
) -> None:
    """Remove nodes and all that follows them, with their rows and states, and the server's responses that are there.

    There is no way back.

    [bold]ramet tree prune 3f9a[/]

    [bold]ramet tree prune --older-than 30d[/]
    """
    if not nodes and older_than is None:
        raise typer.BadParameter("say what to remove: a NODE, or --older-than AGE")
    from ramet.server.store import forget_nodes
    from ramet.tree.stored import bytes_by_node

    removed, before, after = 0, 0, 0
    wanted = set(nodes or ())
    for file, tree in _opened(directory):
        before += sum(bytes_by_node(file).values())
        here = {name for name in wanted if any(_beginning(tree, name))}
        wanted -= here
        doomed = [_one(tree, name) for name in here]
        if older_than is not None:
            doomed += _stale(tree, time.time() - older_than)
        names = {node.id for node in doomed}
        known = {node.id for node in tree.nodes()}
        for node in doomed:
            if not names.intersection(above.id for above in tree.path(node)[:-1]):
                removed += tree.prune(node)
        forget_nodes(file.parent, known - {node.id for node in tree.nodes()})
        tree.close()
        after += sum(bytes_by_node(file).values())
    if wanted:
        raise RametError(f"no stored node begins with {', '.join(sorted(wanted))}; see ramet tree show")
    console.print(f"{plural(removed, 'node')} removed, with {format_size(max(before - after, 0))} of rows and states")


def _opened(directory: Path | None) -> Iterator[tuple[Path, Tree]]:
    """Each tree in the directory with its file, closed again afterwards."""
    from ramet.tree.stored import open_stored, stored_trees

    files = stored_trees(directory or trees())
    if not files:
        raise RametError(_nothing(directory))
    for file in files:
        tree = open_stored(file)
        try:
            yield file, tree
        finally:
            tree.close()


def _nothing(directory: Path | None) -> str:
    return f"no sessions are stored in {directory or trees()}; name another folder with --directory"


def _beginning(tree: Tree, name: str) -> Iterator[Node]:
    return (node for node in tree.nodes() if node.id.startswith(name.lower()))


def _one(tree: Tree, name: str) -> Node:
    found = list(_beginning(tree, name))
    if len(found) != 1:
        raise RametError(f"{len(found)} nodes begin with {name!r}; give more of the id")
    return found[0]


def _stale(tree: Tree, before: float) -> list[Node]:
    """The topmost nodes that were made before the time `before` (Unix), as was everything that follows them."""
    nodes = list(tree.nodes())
    newest: dict[str, float] = {}
    for node in reversed(nodes):  # children come after their parents
        newest[node.id] = max(newest.get(node.id, 0.0), node.bill.made if node.bill is not None else 0.0)
        if node.parent is not None:
            newest[node.parent.id] = max(newest.get(node.parent.id, 0.0), newest[node.id])
    return [
        node
        for node in nodes
        if newest[node.id] < before and (node.parent in (None, tree.root) or newest[node.parent.id] >= before)
    ]


def _records(directory: Path | None) -> Iterator[dict[str, Any]]:
    from ramet.tree.stored import bytes_by_node

    for file, tree in _opened(directory):
        sizes = bytes_by_node(file)
        for node in tree.nodes():
            yield {
                "id": node.id,
                "parent": node.parent.id if node.parent not in (None, tree.root) else None,
                "start": node.start,
                "message": node.message,
                "tokens": node.tokens.tolist(),
                "bill": asdict(node.bill) if node.bill is not None else None,
                "bytes": sizes.get(node.id, 0),
            }


def _cost(node: Node, sizes: dict[str, int]) -> str:
    parts = [format_size(sizes[node.id])] if sizes.get(node.id) else []
    if node.bill is not None:
        parts += [f"{node.bill.reused:,} reused"] if node.bill.reused else []
        parts.append(f"{node.bill.seconds:.2f} s")
    return " · ".join(parts)
