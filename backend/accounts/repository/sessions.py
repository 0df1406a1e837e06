"""SQL of sessions and API keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, text, update
from sqlmodel import col, or_, select

from backend.accounts.models import ApiKey, User, UserSession
from backend.accounts.words import Ended
from backend.core.clock import utc_now
from backend.core.db import Session

# How exactly it is known when something was used last: it would cost a write for each request otherwise.
_USE_NOTED = timedelta(minutes=1)

_PURGE = {
    table: f"delete from {table} where id = any (array(select id from {table}"  # noqa: S608 - two names of our own
    " where least(expires_at, revoked_at) < now() - cast(:age as interval)"
    " order by least(expires_at, revoked_at) limit :limit for update skip locked))"
    for table in ("user_sessions", "api_keys")
}


class SessionRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, row: UserSession) -> None:
        self._session.add(row)
        await self._session.flush()

    async def alive(self, session_id: UUID) -> tuple[UserSession, User] | None:
        """A session that is not over, of a user who may sign in."""
        query = (
            select(UserSession, User)
            .join(User, col(User.id) == UserSession.user_id)
            .where(UserSession.id == session_id, col(User.is_active), *_alive())
        )
        return (await self._session.exec(query)).first()

    async def lock(self, session_id: UUID) -> UserSession | None:
        return await self._session.get(UserSession, session_id, with_for_update=True, populate_existing=True)

    async def now(self) -> datetime:
        """By the one clock that all processes share, also after a wait."""
        found: datetime = (await self._session.exec(select(func.clock_timestamp()))).one()
        return found

    async def save(self, row: UserSession) -> None:
        self._session.add(row)
        await self._session.flush()

    async def of_user(self, user_id: UUID, *, limit: int) -> Sequence[UserSession]:
        """Those that are not over, the newest first."""
        query = select(UserSession).where(UserSession.user_id == user_id, *_alive())
        query = query.order_by(col(UserSession.created_at).desc(), col(UserSession.id).desc()).limit(limit)
        return (await self._session.exec(query)).all()

    async def note_use(self, row: UserSession) -> None:
        if utc_now() - row.last_used_at < _USE_NOTED:
            return
        query = update(UserSession).where(col(UserSession.id) == row.id)
        query = query.where(col(UserSession.last_used_at) < func.now() - _USE_NOTED).values(last_used_at=func.now())
        await (await self._session.connection()).execute(query)

    async def revoke(
        self, user_id: UUID, why: Ended, *, session_id: UUID | None = None, keep: UUID | None = None
    ) -> int:
        """End one session of a user, or all but one; how many were not over yet."""
        query = update(UserSession).where(col(UserSession.user_id) == user_id, *_alive())
        if session_id is not None:
            query = query.where(col(UserSession.id) == session_id)
        if keep is not None:
            query = query.where(col(UserSession.id) != keep)
        return await self._changed(query.values(revoked_at=func.now(), revoked_why=why))

    async def purge(self, table: str, age: timedelta, limit: int) -> int:
        """Delete what has been over for that long; how many."""
        connection = await self._session.connection()
        return (await connection.execute(text(_PURGE[table]), {"age": age, "limit": limit})).rowcount

    async def _changed(self, query: Any) -> int:
        return int((await (await self._session.connection()).execute(query)).rowcount)


class ApiKeyRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, row: ApiKey) -> None:
        self._session.add(row)
        await self._session.flush()

    async def alive(self, prefix: str) -> tuple[ApiKey, User] | None:
        """A key that is neither expired nor revoked, of a user who may sign in."""
        query = (
            select(ApiKey, User)
            .join(User, col(User.id) == ApiKey.user_id)
            .where(ApiKey.prefix == prefix, col(User.is_active), *_key_alive())
        )
        return (await self._session.exec(query)).first()

    async def of_user(self, user_id: UUID) -> Sequence[ApiKey]:
        """Those that were not revoked, the newest first; expired ones among them."""
        query = select(ApiKey).where(ApiKey.user_id == user_id, col(ApiKey.revoked_at).is_(None))
        return (await self._session.exec(query.order_by(col(ApiKey.created_at).desc(), col(ApiKey.id).desc()))).all()

    async def note_use(self, row: ApiKey) -> None:
        if row.last_used_at is not None and utc_now() - row.last_used_at < _USE_NOTED:
            return
        last = col(ApiKey.last_used_at)
        query = update(ApiKey).where(col(ApiKey.id) == row.id)
        query = query.where(or_(last.is_(None), last < func.now() - _USE_NOTED)).values(last_used_at=func.now())
        await (await self._session.connection()).execute(query)

    async def revoke(self, user_id: UUID, key_id: UUID) -> bool:
        """False where the user has no such key that was not revoked."""
        query = update(ApiKey).where(col(ApiKey.id) == key_id, col(ApiKey.user_id) == user_id)
        query = query.where(col(ApiKey.revoked_at).is_(None)).values(revoked_at=func.now())
        return (await (await self._session.connection()).execute(query)).rowcount > 0


def _alive() -> tuple[Any, ...]:
    return col(UserSession.revoked_at).is_(None), col(UserSession.expires_at) > func.now()


def _key_alive() -> tuple[Any, ...]:
    expires = col(ApiKey.expires_at)
    return col(ApiKey.revoked_at).is_(None), or_(expires.is_(None), expires > func.now())
