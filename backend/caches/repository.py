"""SQL of caches' settings."""

from collections.abc import Iterable

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.caches.kinds import CacheKind
from backend.caches.models import CacheSchedule
from backend.core.db import Session

# The next one stands on the grid of the last: a minute's delay of one does not delay all that follow. What was left out is
# not made up for. Two at once wait for each other's rows, and the second finds nothing due.
_CLAIM = """
update cache_schedules set started_at = now(), next_at = next_at + make_interval(secs => interval_seconds)
    * (1 + floor(extract(epoch from now() - next_at) / interval_seconds))
where kind = any(:kinds) and enabled and next_at <= now()
returning kind
"""

_SET = """
update cache_schedules set enabled = coalesce(cast(:enabled as boolean), enabled),
    interval_seconds = coalesce(cast(:interval as integer), interval_seconds),
    next_at = case when cast(:interval as integer) is null then next_at
        else coalesce(started_at + make_interval(secs => cast(:interval as integer)), now()) end,
    updated_by = :actor, updated_at = now()
where kind = :kind
"""


class CacheRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add_missing(self, kinds: Iterable[CacheKind]) -> None:
        """Rows of kinds that have none yet, due at once."""
        rows = [{"kind": kind.name, "enabled": True, "interval_seconds": kind.interval_seconds} for kind in kinds]
        if rows:
            connection = await self._session.connection()
            await connection.execute(insert(CacheSchedule).values(rows).on_conflict_do_nothing())

    async def claim_due(self, kinds: Iterable[str]) -> list[str]:
        """The kinds that are due now; from now on they are not, for an interval."""
        connection = await self._session.connection()
        return sorted((await connection.execute(text(_CLAIM), {"kinds": list(kinds)})).scalars())

    async def find(self, kinds: Iterable[str]) -> list[CacheSchedule]:
        query = select(CacheSchedule).where(col(CacheSchedule.kind).in_(list(kinds))).order_by(col(CacheSchedule.kind))
        return list((await self._session.exec(query.execution_options(populate_existing=True))).all())

    async def change(self, kind: str, *, enabled: bool | None, interval_seconds: int | None, actor: str) -> None:
        connection = await self._session.connection()
        given = {"kind": kind, "enabled": enabled, "interval": interval_seconds, "actor": actor}
        await connection.execute(text(_SET), given)
