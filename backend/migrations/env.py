"""Alembic's entry: migrates over asyncpg, one migrator at a time."""

import asyncio
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.sql.sqltypes import UTCDateTime

from backend import models
from backend.config import load_or_exit
from backend.core.db import Base, async_url

__all__ = ["models"]

# Any number that nothing else in the database locks: the letters "beatline".
_LOCK = 0x626561746C696E65


def _render(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Revisions name the types of SQLAlchemy alone: they must run for ever."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UTCDateTime) else False


def _migrate(connection: Connection) -> None:
    # Held until the connection closes; whoever waits here finds the work done.
    connection.execute(text("select pg_advisory_lock(:key)"), {"key": _LOCK})
    connection.commit()
    context.configure(
        connection=connection, target_metadata=Base.metadata, transaction_per_migration=True, render_item=_render
    )
    with context.begin_transaction():
        context.run_migrations()


async def _run() -> None:
    url = context.config.attributes.get("url") or load_or_exit().database_url
    engine = create_async_engine(
        async_url(url), poolclass=NullPool, connect_args={"server_settings": {"application_name": "beatline-migrate"}}
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


def _print_sql() -> None:
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _print_sql()
else:
    asyncio.run(_run())
