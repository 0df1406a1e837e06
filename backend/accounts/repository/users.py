"""SQL of users and of what they have done."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, or_, select

from backend.accounts.models import User, UserStats
from backend.core.db import Session
from backend.core.paging import Position, newest_first
from backend.core.principal import Role

# Held to the end of the transaction by whoever makes the first user, or makes one admin fewer.
_LOCK = "select pg_advisory_xact_lock(hashtext('beatline.' || :name))"

# Rows name people, and names stay: see User. What ran by itself names nobody.
_SYNC = """
insert into user_stats (user_id, schedules_created, runs_started, tasks_sent, logins, synced_at)
select u.id, coalesce(s.n, 0), coalesce(r.n, 0), coalesce(t.n, 0), u.login_count, now()
from users u
left join (select created_by as name, count(*) as n from job_schedules group by 1) s on s.name = u.username
left join (select triggered_by as name, count(*) as n from job_runs where trigger <> 'schedule' group by 1) r on r.name = u.username
left join (select sent_by as name, count(*) as n from sent_tasks group by 1) t on t.name = u.username
on conflict (user_id) do update set
    schedules_created = excluded.schedules_created, runs_started = excluded.runs_started,
    tasks_sent = excluded.tasks_sent, logins = excluded.logins, synced_at = excluded.synced_at
"""


class UserRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, user_id: UUID) -> User | None:
        return await self._session.get(User, user_id, populate_existing=True)

    async def lock(self, user_id: UUID) -> User | None:
        """Waits for whoever changes the same user at this moment."""
        return await self._session.get(User, user_id, with_for_update=True, populate_existing=True)

    async def find_by_name(self, name: str) -> User | None:
        """By user name or e-mail address, whatever their case."""
        wanted = name.strip().lower()
        query = select(User).where(or_(func.lower(User.username) == wanted, func.lower(User.email) == wanted))
        return (await self._session.exec(query)).first()

    async def exists(self) -> bool:
        return (await self._session.exec(select(User.id).limit(1))).first() is not None

    async def add(self, user: User) -> bool:
        """False where name or address are taken."""
        statement = insert(User).values(user.model_dump()).on_conflict_do_nothing().returning(col(User.id))
        connection = await self._session.connection()
        return (await connection.execute(statement)).first() is not None

    async def save(self, user: User) -> None:
        self._session.add(user)
        await self._session.flush()

    async def rename_email(self, user: User, email: str | None) -> bool:
        """False where somebody else has the address."""
        try:
            async with self._session.begin_nested():
                user.email = email
                await self.save(user)
        except IntegrityError:
            return False
        return True

    async def page(
        self, *, role: Role | None, is_active: bool | None, after: Position | None, limit: int
    ) -> Sequence[User]:
        """Newest first."""
        query = newest_first(select(User).limit(limit), col(User.created_at), col(User.id), after)
        if role is not None:
            query = query.where(User.role == role)
        if is_active is not None:
            query = query.where(User.is_active == is_active)
        return (await self._session.exec(query)).all()

    async def note_login(self, user_id: UUID, password_hash: str | None) -> None:
        """Count a login; with a hash made anew, where there is one."""
        new: dict[str, Any] = {"last_login_at": func.now(), "login_count": col(User.login_count) + 1}
        if password_hash is not None:
            new["password_hash"] = password_hash
        connection = await self._session.connection()
        await connection.execute(update(User).where(col(User.id) == user_id).values(**new))

    async def alone(self, name: str) -> None:
        """Wait until nobody else is in this stretch of work, and keep others out to the end of the transaction."""
        await (await self._session.connection()).execute(text(_LOCK), {"name": name})

    async def other_admins(self, user_id: UUID) -> int:
        query = select(func.count()).select_from(User)
        query = query.where(User.role == Role.ADMIN, col(User.is_active), User.id != user_id)
        return (await self._session.exec(query)).one()

    async def stats(self, user_id: UUID) -> UserStats | None:
        return await self._session.get(UserStats, user_id, populate_existing=True)

    async def sync_stats(self) -> int:
        """Count anew what everybody has done; how many users there are."""
        return (await (await self._session.connection()).execute(text(_SYNC))).rowcount
