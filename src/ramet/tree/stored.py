"""Trees on disk, opened without the model that grew them: to look at, to export and to prune."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from ramet.models.states import Recurrent, Rows, StateLayout
from ramet.tree.disk import PAGE, STATE
from ramet.tree.errors import DiskError
from ramet.tree.node import Node
from ramet.tree.tree import Tree

_RAM_BYTES = 64 << 20


def stored_trees(directory: Path) -> list[Path]:
    """The databases in `directory`, one for each model whose sessions it holds."""
    return sorted(directory.glob("*.sqlite"))


def open_stored(file: Path) -> Tree:
    """The tree in a database of `stored_trees`. Raises DiskError if it is not one, or another process has it open.

    Its fingerprint and the sizes of its pages and states are read from the file; what the states mean, nothing that is
    done to a tree at rest needs to know.
    """
    meta = dict(_select(file, "SELECT name, value FROM meta"))
    try:
        page, state = int(meta["page_bytes"]) // 4, int(meta["state_bytes"]) // 4
        fingerprint = str(meta["fingerprint"])
    except (KeyError, ValueError):
        raise DiskError(f"{file} holds no sessions: it was not written by Ramet") from None
    layout = StateLayout((Rows("rows", (page,)),), (Recurrent("state", (state,)),))
    return Tree(layout, fingerprint, ram_bytes=_RAM_BYTES, directory=file.parent)


def stored_nodes(file: Path) -> list[Node]:
    """The nodes in a database with their messages, parents first, as they are there now: whoever else has it open."""
    found: dict[bytes, Node] = {}
    for id, parent, tokens, told in _select(file, "SELECT id, parent, tokens, told FROM node ORDER BY sequence"):
        above = found.get(parent)
        numbers = np.frombuffer(tokens, "<i4")
        found[id] = Node(
            id.hex(), above, numbers, above.end if above is not None else 0, json.loads(told).get("message")
        )
    return list(found.values())


def bytes_by_node(file: Path) -> dict[str, int]:
    """Bytes of rows and states on disk, by the id of the node that they are kept with."""
    meta = dict(_select(file, "SELECT name, value FROM meta"))
    sizes = {PAGE: int(meta["page_bytes"]), STATE: int(meta["state_bytes"])}
    found: dict[str, int] = {}
    for node, kind, parts in _select(file, "SELECT node, kind, COUNT(*) FROM part GROUP BY node, kind"):
        found[node.hex()] = found.get(node.hex(), 0) + parts * sizes[kind]
    return found


def _select(file: Path, query: str) -> list[tuple[Any, ...]]:
    try:
        database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise DiskError(f"cannot read the sessions in {file}: {error}") from None
