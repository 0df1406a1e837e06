"""Caches: which are refreshed, how often, and the ones that are due now."""

from backend.caches.kinds import CacheKind, every_kind, register
from backend.caches.models import CacheSchedule
from backend.caches.repository import CacheRepository
from backend.caches.schemas import CacheScheduleRead, CacheScheduleUpdate
from backend.core.db import Session
from backend.core.errors import NotFound
from backend.core.queue import enqueue

__all__ = ["CacheKind", "change", "every_schedule", "register", "start_due"]


async def start_due(session: Session) -> list[str]:
    """Send the refresh of each cache that is due, once per interval; their kinds. A second call at once sends nothing.

    A refresh that the broker does not take is made up for an interval later.
    """
    kinds = every_kind()
    repository = CacheRepository(session)
    await repository.add_missing(kinds.values())
    started = await repository.claim_due(kinds)
    for name in started:
        enqueue(session, kinds[name].task)
    return started


async def every_schedule(session: Session) -> list[CacheScheduleRead]:
    """Of every cache that a domain has registered, by name."""
    kinds = every_kind()
    repository = CacheRepository(session)
    await repository.add_missing(kinds.values())
    return [_read(row, kinds[row.kind]) for row in await repository.find(kinds)]


async def change(session: Session, name: str, wish: CacheScheduleUpdate, *, actor: str) -> CacheScheduleRead:
    """It takes effect at the next minute. A new interval counts from the last start. NotFound (404) names the caches there are."""
    kinds = every_kind()
    if name not in kinds:
        known = ", ".join(kinds) or "none yet"
        raise NotFound(f"no cache is called {name!r}; there are: {known}")
    given = wish.model_dump(exclude_unset=True)
    repository = CacheRepository(session)
    await repository.add_missing([kinds[name]])
    await repository.change(
        name, enabled=given.get("enabled"), interval_seconds=given.get("interval_seconds"), actor=actor
    )
    (row,) = await repository.find([name])
    return _read(row, kinds[name])


def _read(row: CacheSchedule, kind: CacheKind) -> CacheScheduleRead:
    return CacheScheduleRead(**row.model_dump(), description=kind.description, task=kind.task)
