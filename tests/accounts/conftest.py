"""What tests of accounts ask of the database."""

import os
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from backend.config import load
from backend.core.db import Database
from backend.core.keyspace import opened_redis
from devstack.servers import ValkeyServer


@pytest.fixture(autouse=True)
async def _unspent(valkey: ValkeyServer) -> None:
    """No test is turned away for the requests of another."""
    async with opened_redis(load(os.environ)) as redis:
        await redis.flushdb()


async def rows(db: Database, sql: str, **values: Any) -> list[Any]:
    async with db.transaction() as session:
        return list((await (await session.connection()).execute(text(sql), values)).all())


async def change(db: Database, sql: str, **values: Any) -> int:
    """How many rows a statement changed."""
    async with db.transaction() as session:
        return (await (await session.connection()).execute(text(sql), values)).rowcount


async def outcomes(db: Database) -> list[str]:
    """Of the logins that were noted, oldest first."""
    found = await rows(db, "select body->>'outcome' from audit_outbox where kind = 'login' order by at")
    return [row[0] for row in found]


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["code"]
