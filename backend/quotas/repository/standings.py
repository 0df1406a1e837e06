"""SQL of how people stand: their limits and the day's counters, read together."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text

from backend.core.db import Session
from backend.core.paging import Position
from backend.quotas.allowance import STANDARD, STANDARD_FILES, STANDARD_MINUTES, Standing

# The database's clock says which day it is, for every process alike.
TODAY = "(now() at time zone 'UTC')::date"

_MINUTES = """case when q.minutes_per_day is not null then q.minutes_per_day
    when p.name is null then :standard_minutes else p.minutes_per_day end"""
_FILES = """case when q.files_per_day is not null then q.files_per_day
    when p.name is null then :standard_files else p.files_per_day end"""

# ruff: noqa: S608 - put together from constants
_SELECT = f"""
select u.id as user_id, u.username, coalesce(q.plan, '{STANDARD}') as plan, d.day,
    ({TODAY} + 1)::timestamp at time zone 'UTC' as reset_at,
    extract(epoch from ({TODAY} + 1)::timestamp at time zone 'UTC' - now())::float as reset_in,
    ({_MINUTES} + coalesce(c.extra_minutes, 0))::bigint * 60000 as limit_ms,
    ({_FILES} + coalesce(c.extra_files, 0)) as limit_files,
    coalesce(c.used_ms, 0) as used_ms, coalesce(c.used_files, 0) as used_files,
    coalesce(c.reserved_ms, 0) as reserved_ms, coalesce(c.reserved_files, 0) as reserved_files,
    coalesce(c.extra_minutes, 0) as extra_minutes, coalesce(c.extra_files, 0) as extra_files,
    q.minutes_per_day as own_minutes, q.files_per_day as own_files,
    u.created_at, u.is_active, coalesce(q.updated_by, '') as updated_by, q.updated_at
from users u
cross join (select coalesce(cast(:day as date), {TODAY}) as day) d
left join user_quotas q on q.user_id = u.id
left join quota_plans p on p.name = coalesce(q.plan, '{STANDARD}')
{{kept}} join quota_counters c on c.user_id = u.id and c.day = d.day
"""
# Everybody; those whose counter of the day holds more than what they were given, or was given back.
_ALL = _SELECT.format(kept="left")
_WITH_USE = (
    _SELECT.format(kept="inner") + " and (c.used_ms + c.reserved_ms > 0 or c.used_files + c.reserved_files > 0)\n"
)

_NEWEST_FIRST = """
where {plan}
    and (cast(:at as timestamptz) is null or (u.created_at, u.id) < (cast(:at as timestamptz), cast(:key as uuid)))
order by u.created_at desc, u.id desc limit :limit
"""


@dataclass(frozen=True, slots=True)
class Account:
    """How somebody stands, and what an admin has set for them."""

    standing: Standing
    own_minutes: int | None
    own_files: int | None
    is_active: bool
    created_at: datetime
    updated_by: str
    updated_at: datetime | None


_STANDARD = {"standard_minutes": STANDARD_MINUTES, "standard_files": STANDARD_FILES}


class StandingRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, user_id: UUID, day: date | None = None) -> Account | None:
        """Of `day`, else of today."""
        given = {"user_id": user_id, "day": day}
        rows = await self._rows(f"{_ALL} where u.id = :user_id", given)
        return _account(rows[0]) if rows else None

    async def page(self, *, plan: str | None, used: bool, after: Position | None, limit: int) -> list[Account]:
        """Everybody, newest account first; those who have used something today alone, where `used`."""
        at, key = after or (None, None)
        kept = "true" if plan is None else "q.plan is null" if plan == STANDARD else "q.plan = :plan"
        given = {"plan": plan, "at": at, "key": key, "limit": limit, "day": None}
        return [
            _account(row)
            for row in await self._rows((_WITH_USE if used else _ALL) + _NEWEST_FIRST.format(plan=kept), given)
        ]

    async def _rows(self, statement: str, given: Mapping[str, Any]) -> list[RowMapping]:
        connection = await self._session.connection()
        return list((await connection.execute(text(statement), {**_STANDARD, **given})).mappings())


def _account(row: RowMapping) -> Account:
    standing = Standing(**{name: row[name] for name in Standing.__slots__})
    return Account(
        standing,
        own_minutes=row["own_minutes"],
        own_files=row["own_files"],
        is_active=row["is_active"],
        created_at=row["created_at"],
        updated_by=row["updated_by"],
        updated_at=row["updated_at"],
    )
