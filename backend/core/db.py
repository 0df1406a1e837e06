"""PostgreSQL: the one place that commits."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# SQLAlchemy would import it with the first engine: a worker that forks at that moment has children with half of it.
import sqlalchemy.dialects.postgresql  # noqa: F401
from sqlalchemy import MetaData, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.queue import Sender, flush, send_task

Session = AsyncSession

# How long a connection that was used may rest and still be trusted.
_TRUSTED_SECONDS = 1.0

# Constraint names that migrations can rely on.
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(SQLModel):
    """Base of every table."""

    metadata = MetaData(naming_convention=_NAMING)


def async_url(url: str) -> URL:
    """The SQLAlchemy URL for asyncpg of a `postgresql://` URL."""
    return make_url(url).set(drivername="postgresql+asyncpg")


# SQLSTATE classes and codes: no connection, no resources (too many connections), stopped or starting, a standby by now.
_AWAY = ("08", "53", "57P0", "25006")


def is_outage(fault: BaseException) -> bool:
    """Whether an error means that the database is away (and the same work may succeed later)."""
    if isinstance(fault, DBAPIError):
        state = str(getattr(fault.orig, "sqlstate", None) or "")
        return (
            fault.connection_invalidated
            or isinstance(fault, OperationalError | InterfaceError)
            or state.startswith(_AWAY)
        )
    # asyncpg's connect phase lets operating-system errors through unwrapped; a pool that is used up is free again soon.
    return isinstance(fault, ConnectionError | OSError | TimeoutError | PoolTimeoutError)


def _watch_connections(engine: AsyncEngine) -> None:
    """Hand out no dead connection: one that is closed is replaced, one that has rested is asked first."""

    # SQLAlchemy's pool_pre_ping asks at every checkout, three round trips each, which is a tenth of the API's time under load.
    def rest(_connection: Any, record: Any) -> None:
        record.info["resting_since"] = time.monotonic()

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        if time.monotonic() - record.info.get("resting_since", math.inf) < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as fault:
            raise InvalidatePoolError from fault

    event.listen(engine.sync_engine, "checkin", rest)
    event.listen(engine.sync_engine, "checkout", check)


class Database:
    """A connection pool. A function given a `session` never commits; one given a `db` opens its own short transactions."""

    def __init__(self, url: str, *, send: Sender = send_task, pool_size: int = 10) -> None:
        self.engine: AsyncEngine = create_async_engine(
            async_url(url),
            # What people said or wrote has no place in an error's text, which is logged and kept.
            hide_parameters=True,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            connect_args={"timeout": 5, "command_timeout": 60, "server_settings": {"application_name": "beatline"}},
        )
        _watch_connections(self.engine)
        self._sessions = async_sessionmaker(self.engine, class_=AsyncSession, expire_on_commit=False)
        self._send = send

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Begin, commit (or roll back on any error), then send what was enqueued."""
        async with self._sessions() as session:
            async with session.begin():
                yield session
            await flush(session, self._send)

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def close(self) -> None:
        await self.engine.dispose()
