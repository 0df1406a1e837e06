"""SQL of attempts to sign in."""

from datetime import datetime, timedelta

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.accounts.models import LoginThrottle
from backend.accounts.words import Bucket
from backend.core.db import Session

_PURGE = """
with old as materialized (
    select bucket, key from login_throttles where last_attempt_at < now() - cast(:age as interval)
    order by last_attempt_at limit :limit for update skip locked)
delete from login_throttles t using old where t.bucket = old.bucket and t.key = old.key
"""


class ThrottleRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def lock(self, bucket: Bucket, key: str) -> LoginThrottle:
        """The row, made where there is none; others who try the same wait."""
        statement = insert(LoginThrottle).values(bucket=bucket, key=key)
        # Doing nothing would leave it to be deleted before it is read.
        statement = statement.on_conflict_do_update(index_elements=["bucket", "key"], set_={"key": key})
        await (await self._session.connection()).execute(statement)
        query = select(LoginThrottle).where(LoginThrottle.bucket == bucket, LoginThrottle.key == key)
        return (await self._session.exec(query.execution_options(populate_existing=True))).one()

    async def now(self) -> datetime:
        """Also after a wait: `now()` is when the transaction began."""
        found: datetime = (await self._session.exec(select(func.clock_timestamp()))).one()
        return found

    async def save(self, row: LoginThrottle) -> None:
        self._session.add(row)
        await self._session.flush()

    async def forget(self, bucket: Bucket, key: str) -> None:
        query = delete(LoginThrottle).where(col(LoginThrottle.bucket) == bucket, col(LoginThrottle.key) == key)
        await (await self._session.connection()).execute(query)

    async def purge(self, age: timedelta, limit: int) -> int:
        """Delete what nobody has tried for that long; how many."""
        connection = await self._session.connection()
        return (await connection.execute(text(_PURGE), {"age": age, "limit": limit})).rowcount
