"""The system's schedules as the code has them, again."""

from dataclasses import dataclass
from typing import Literal

import asyncpg

from backend.celery_app import TASK_ROUTES, beat_schedule
from backend.config import Config
from backend.core.db import Database
from backend.jobs.naming import every_schedule
from backend.jobs.schemas import ScheduleRead
from backend.scheduling.engine import CHANNEL
from backend.scheduling.system import reset_entries

# What differs by itself, or is told by another field.
_ASIDE = {
    "explanation",
    "version",
    "updated_at",
    "next_run",
    "next_run_local",
    "alert_after",
    "last_error",
    "deferred_until",
    "last_run",
    "run_count",
    "last_state",
    "last_finished_at",
    "last_success_at",
    "consecutive_failures",
}


@dataclass(frozen=True, slots=True)
class Restored:
    """A system entry and what was done about it; `fields` are those that had been edited."""

    name: str
    done: Literal["restored", "made", "deleted", "unchanged"]
    fields: tuple[str, ...]


async def restore_system(db: Database, config: Config) -> list[Restored]:
    """Make every system entry as the code has it, active; delete those that the code has no more. By name."""
    before = await _system(db)
    connection = await asyncpg.connect(config.database_url, timeout=5, command_timeout=60)
    try:
        async with connection.transaction():
            await reset_entries(connection, beat_schedule(config), TASK_ROUTES)
            await connection.execute("select pg_notify($1, '')", CHANNEL)
    finally:
        await connection.close()
    after = await _system(db)
    return [_restored(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]


async def _system(db: Database) -> dict[str, ScheduleRead]:
    async with db.transaction() as session:
        return {schedule.name: schedule for schedule in await every_schedule(session, managed_by="system")}


def _restored(name: str, old: ScheduleRead | None, new: ScheduleRead | None) -> Restored:
    if new is None:
        return Restored(name, "deleted", ())
    if old is None:
        return Restored(name, "made", ())
    was, is_now = old.model_dump(exclude=_ASIDE), new.model_dump(exclude=_ASIDE)
    fields = tuple(field for field in was if was[field] != is_now[field])
    return Restored(name, "restored" if fields else "unchanged", fields)
