"""A connection to the empty, migrated database, and what tests ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from backend.core.db import Database
from devstack.servers import PostgresServer


@dataclass(frozen=True)
class Desk:
    """Reads rows, each in a statement of its own."""

    connection: asyncpg.Connection[Any]

    async def one(self, query: str, *values: object) -> asyncpg.Record:
        row: asyncpg.Record | None = await self.connection.fetchrow(query, *values)
        assert row is not None
        return row

    async def schedule(self, schedule: int) -> asyncpg.Record:
        return await self.one("select * from job_schedules where id = $1", schedule)

    async def run(self, run: UUID) -> asyncpg.Record:
        return await self.one("select * from job_runs where id = $1", run)

    async def runs(self, schedule: int | None = None) -> list[asyncpg.Record]:
        """In the order of their instants; of every schedule when none is given."""
        return await self.connection.fetch(
            "select * from job_runs where $1::bigint is null or schedule_id = $1 order by scheduled_for, created_at",
            schedule,
        )

    async def states(self, schedule: int | None = None) -> dict[str, int]:
        return dict(Counter(run["state"] for run in await self.runs(schedule)))

    async def update(self, table: str, key: object, change: str) -> None:
        await self.connection.execute(f"update {table} set {change} where id = $1", key)

    async def events(self, run: UUID) -> list[tuple[str, str]]:
        """(kind, message) of each, in order."""
        rows = await self.connection.fetch(
            "select kind, message from job_run_events where run_id = $1 order by id", run
        )
        return [(row["kind"], row["message"]) for row in rows]


@pytest.fixture
async def connection(db: Database, postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection[Any]]:
    opened = await asyncpg.connect(postgres.url, timeout=5)
    yield opened
    await opened.close()


@pytest.fixture
async def other(
    connection: asyncpg.Connection[Any], postgres: PostgresServer
) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A second connection, for two at once."""
    opened = await asyncpg.connect(postgres.url, timeout=5)
    yield opened
    opened.terminate()


@pytest.fixture
def desk(connection: asyncpg.Connection[Any]) -> Desk:
    return Desk(connection)
