"""Trackers of runs on the empty, migrated database, and what became of the runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from backend.core.db import Database
from backend.core.runs import Tracker
from backend.scheduling.occurrences import Connection
from devstack.servers import PostgresServer


@pytest.fixture
async def connection(db: Database, postgres: PostgresServer) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(postgres.url, timeout=5)
    yield opened
    await opened.close()


@pytest.fixture
async def tracker(db: Database, postgres: PostgresServer) -> AsyncIterator[Tracker]:
    made = Tracker(postgres.url, 60)
    yield made
    await made.close()


@pytest.fixture
async def hasty(db: Database, postgres: PostgresServer) -> AsyncIterator[Tracker]:
    """A tracker that looks after its runs four times a second."""
    made = Tracker(postgres.url, 1)
    yield made
    await made.close()


async def row(connection: Connection, run: UUID) -> Any:
    """The run; `wait` is seconds until it may be published."""
    return await connection.fetchrow(
        "select *, extract(epoch from publish_after - now())::float8 as wait from job_runs where id = $1", run
    )


async def events(connection: Connection, run: UUID) -> list[Any]:
    """In the order in which they were written."""
    return await connection.fetch("select * from job_run_events where run_id = $1 order by id", run)
