"""The logs take entries and give none back."""

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from backend.audit import service as audit
from backend.core.db import Database
from devstack.servers import PostgresServer

LOGS = ("operation_log", "login_log")
CHANGES = (
    "update {log} set address = 'forged'",
    "update {log} set address = 'forged' where false",
    "delete from {log}",
    "truncate {log}",
    "insert into {log} (select * from {log}) on conflict (id) do update set address = 'forged'",
    "merge into {log} l using {log} k on l.id = k.id when matched then delete",
    "with gone as (delete from {log} returning 1) select count(*) from gone",
)


async def add_entries(connection: Any) -> None:
    await connection.execute(
        "insert into operation_log (id, at, actor_kind, method, path, status, duration_ms)"
        " values ($1, now(), 'service', 'POST', '/api/x', 200, 1)",
        uuid4(),
    )
    await connection.execute(
        "insert into login_log (id, at, username, outcome) values ($1, now(), 'ana', 'success')", uuid4()
    )


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("change", CHANGES)
async def test_no_entry_is_changed_or_deleted(db: Database, postgres: PostgresServer, log: str, change: str) -> None:
    connection = await asyncpg.connect(postgres.url)
    try:
        await add_entries(connection)
        before = await connection.fetch(f"select * from {log}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"{log} is append-only"):
            await connection.execute(change.format(log=log))
        assert await connection.fetch(f"select * from {log}") == before
    finally:
        await connection.close()


@pytest.mark.parametrize("log", LOGS)
async def test_even_retention_changes_no_entry(db: Database, postgres: PostgresServer, log: str) -> None:
    connection = await asyncpg.connect(postgres.url)
    try:
        await add_entries(connection)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="UPDATE refused"):
            async with connection.transaction():
                await connection.execute("set local beatline.retention = 'on'")
                await connection.execute(f"update {log} set address = 'forged'")
    finally:
        await connection.close()


async def test_the_lock_is_lifted_for_one_transaction_alone(db: Database, postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres.url)
    try:
        await add_entries(connection)
        async with connection.transaction():
            await connection.execute("set local beatline.retention = 'on'")
            assert await connection.execute("delete from login_log") == "DELETE 1"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("delete from operation_log")
    finally:
        await connection.close()


async def test_what_lifts_the_lock_leaves_nothing_on_a_pooled_connection(
    postgres: PostgresServer, db: Database
) -> None:
    single = Database(postgres.url, pool_size=1)
    try:
        async with single.transaction() as session:
            await audit.allow_deletion(session)
        async with single.engine.connect() as connection:
            left = (await connection.exec_driver_sql("select current_setting('beatline.retention', true)")).scalar()
        assert left in {None, ""}
    finally:
        await single.close()
