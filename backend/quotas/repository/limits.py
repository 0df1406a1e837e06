"""SQL of plans and of limits of one's own."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.core.db import Session
from backend.quotas.models import QuotaPlan, UserQuota
from backend.quotas.repository.standings import TODAY

# ruff: noqa: S608 - put together from constants
_EXTRA = f"""
insert into quota_counters as c (user_id, day, extra_minutes, extra_files)
values (:user_id, {TODAY}, coalesce(cast(:minutes as integer), 0), coalesce(cast(:files as integer), 0))
on conflict (user_id, day) do update set extra_minutes = coalesce(cast(:minutes as integer), c.extra_minutes),
    extra_files = coalesce(cast(:files as integer), c.extra_files)
"""


class LimitRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def plans(self) -> Sequence[QuotaPlan]:
        return (await self._session.exec(select(QuotaPlan).order_by(col(QuotaPlan.name)))).all()

    async def users_by_plan(self) -> dict[str, int]:
        query = select(UserQuota.plan, func.count()).where(col(UserQuota.plan).is_not(None))
        return {str(plan): count for plan, count in (await self._session.exec(query.group_by(UserQuota.plan))).all()}

    async def keep_plan(self, name: str) -> bool:
        """Whether there is such a plan, which then stays to the end of the transaction."""
        query = select(QuotaPlan.name).where(QuotaPlan.name == name).with_for_update(read=True, key_share=True)
        return (await self._session.exec(query)).first() is not None

    async def set_plan(self, name: str, *, minutes: int | None, files: int | None, actor: str) -> None:
        values = {"minutes_per_day": minutes, "files_per_day": files, "updated_by": actor, "updated_at": func.now()}
        statement = insert(QuotaPlan).values(name=name, **values)
        connection = await self._session.connection()
        await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    async def lock_plan(self, name: str) -> bool:
        """Whether there is such a plan; nobody is given it until the end of the transaction."""
        query = select(QuotaPlan.name).where(QuotaPlan.name == name).with_for_update()
        return (await self._session.exec(query)).first() is not None

    async def delete_plan(self, name: str) -> None:
        await (await self._session.connection()).execute(delete(QuotaPlan).where(col(QuotaPlan.name) == name))

    async def set_own(self, user_id: UUID, given: Mapping[str, str | int | None], *, actor: str) -> None:
        """`given` are the columns to change: `plan`, `minutes_per_day`, `files_per_day`; the others stay."""
        values = {**given, "updated_by": actor, "updated_at": func.now()}
        statement = insert(UserQuota).values(user_id=user_id, **values)
        connection = await self._session.connection()
        await connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))

    async def set_extra(self, user_id: UUID, *, minutes: int | None, files: int | None) -> None:
        """Give something for today alone; None leaves it as it is."""
        given = {"user_id": user_id, "minutes": minutes, "files": files}
        await (await self._session.connection()).execute(text(_EXTRA), given)
