"""SQL of heartbeats and health checks, and of what other domains' rows say about the queues."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.core.db import Session
from backend.queues.models import HealthCheck, WorkerHeartbeat

_WAITING = """
select queue, count(*), min(publish_after) from job_runs
where state in ('pending', 'queued') and publish_after <= now() group by queue
"""

# The system's own entries are dispatched every minute at the latest.
_LAST_TICK = "select extract(epoch from now() - max(last_run)) from job_schedules where managed_by = 'system'"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tracked runs of a queue that are due and not begun."""

    runs: int
    oldest: datetime


class WorkerRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def beat(self, rows: Sequence[dict[str, Any]]) -> None:
        """Note that these workers have answered now."""
        if not rows:
            return
        statement = insert(WorkerHeartbeat).values(
            [{**row, "first_seen": func.now(), "last_seen": func.now()} for row in rows]
        )
        new = {name: getattr(statement.excluded, name) for name in rows[0] if name != "worker"}
        connection = await self._session.connection()
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["worker"], set_={**new, "last_seen": func.now()})
        )

    async def every(self) -> list[WorkerHeartbeat]:
        query = select(WorkerHeartbeat).order_by(col(WorkerHeartbeat.last_seen).desc(), col(WorkerHeartbeat.worker))
        return list((await self._session.exec(query)).all())

    async def now(self) -> datetime:
        return (await self._session.exec(select(func.now()))).one()

    async def add_check(self, check: HealthCheck) -> None:
        self._session.add(check)
        await self._session.flush()

    async def last_check(self) -> HealthCheck | None:
        query = select(HealthCheck).order_by(col(HealthCheck.at).desc(), col(HealthCheck.id).desc()).limit(1)
        return (await self._session.exec(query)).first()

    async def waiting_runs(self) -> dict[str, Waiting]:
        """By queue."""
        connection = await self._session.connection()
        return {row[0]: Waiting(row[1], row[2]) for row in (await connection.execute(text(_WAITING))).all()}

    async def seconds_since_tick(self) -> float | None:
        """Since the engine last made a run of a system schedule; None where it never has."""
        connection = await self._session.connection()
        seconds = (await connection.execute(text(_LAST_TICK))).scalar()
        return None if seconds is None else float(seconds)
