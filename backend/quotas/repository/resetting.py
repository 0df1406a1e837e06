"""SQL of the daily reset, and of reservations that nobody will settle any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from backend.core.db import Session
from backend.quotas.models import QuotaReset
from backend.quotas.repository.standings import TODAY

_ALONE = "select pg_advisory_xact_lock(hashtext('beatline.reset_daily_quotas'))"

# ruff: noqa: S608 - put together from constants
# A counter with open reservations stays for those who settle them, and goes a day later. Today's rows are none of its business:
# no upload waits for it.
_RESET = f"""
with gone as (
    delete from quota_counters
    where day < {TODAY} and reserved_ms = 0 and reserved_files = 0
        and not exists (select from quota_resets where day = {TODAY})
    returning user_id, used_ms, used_files
), held as (
    select count(*) as n from quota_counters where day < {TODAY} and (reserved_ms > 0 or reserved_files > 0)
)
insert into quota_resets (day, users, used_ms, used_files, kept)
select {TODAY}, count(distinct user_id), coalesce(sum(used_ms), 0), coalesce(sum(used_files), 0), (select n from held) from gone
on conflict (day) do nothing
returning day
"""

_TODAYS = f"""
select r.day, r.users, r.used_ms, r.used_files, r.kept,
    extract(epoch from ({TODAY} + 1)::timestamp at time zone 'UTC' - now())::float as until_next
from quota_resets r where r.day = {TODAY}
"""

# A recording that is ready was paid for, unless its worker died in between; one that failed, was cancelled or is gone was not.
_LEFT = """
select q.key, case when r.state = 'ready' then coalesce(r.duration_ms, q.ms) end as used_ms
from quota_reservations q left join recordings r on r.id = q.key
where q.state = 'open' and q.updated_at < now() - make_interval(secs => :seconds)
    and (r.id is null or r.state in ('ready','failed','cancelled'))
order by q.updated_at limit :limit
"""


@dataclass(frozen=True, slots=True)
class ResetRow:
    """The reset of today; `until_next` is seconds."""

    day: date
    users: int
    used_ms: int
    used_files: int
    kept: int
    until_next: float


@dataclass(frozen=True, slots=True)
class Left:
    """An open reservation whose recording has come to an end, or is gone; `used_ms` is None where nothing came of it."""

    key: UUID
    used_ms: int | None


class ResetRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def reset(self) -> bool:
        """Close the days before today, in one statement; False where that was done. Any number at once wait for one another."""
        connection = await self._session.connection()
        await connection.execute(text(_ALONE))
        return (await connection.execute(text(_RESET))).first() is not None

    async def today(self) -> ResetRow:
        connection = await self._session.connection()
        return ResetRow(**(await connection.execute(text(_TODAYS))).mappings().one())

    async def latest(self, limit: int) -> Sequence[QuotaReset]:
        query = select(QuotaReset).order_by(col(QuotaReset.day).desc()).limit(limit)
        return (await self._session.exec(query)).all()

    async def left_over(self, seconds: float, limit: int) -> list[Left]:
        """Oldest first; untouched for so many seconds."""
        connection = await self._session.connection()
        rows = await connection.execute(text(_LEFT), {"seconds": seconds, "limit": limit})
        return [Left(**row) for row in rows.mappings()]
