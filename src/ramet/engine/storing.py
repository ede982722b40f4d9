"""Stored replies: their last event waits for the disk, the engine's thread does not."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ramet.engine.handle import Handle
from ramet.engine.request import FinishEvent
from ramet.errors import RametError
from ramet.tree import Node, Tree

_AT_ONCE = 8
"""Sessions waited for at a time: those that wait together are written together."""

_log = logging.getLogger("ramet.engine")


class Storing:
    """Brings finished sessions to disk beside the engine's thread, and then tells those who wait for it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ramet-store")

    def finish(self, handle: Handle, node: Node, event: FinishEvent) -> None:
        """Hand `event` to `handle` once `node` would survive a power cut; where that fails, with reason "error"."""
        self._threads.submit(self._store, handle, node, event)

    def close(self) -> None:
        """Return when everything that was finished is stored."""
        self._threads.shutdown()

    def _store(self, handle: Handle, node: Node, event: FinishEvent) -> None:
        try:
            self._tree.store(node)
        except RametError as error:
            event = replace(event, reason="error", error=str(error))
        except Exception as error:  # whoever waits must not wait for ever
            _log.exception("a session could not be stored")
            event = replace(event, reason="error", error=f"internal error: {type(error).__name__}: {error}")
        handle.put([event])
