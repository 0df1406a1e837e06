"""SQL of runs and their events."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.core.db import Session
from backend.core.paging import Position
from backend.jobs.models import JobRun, JobRunEvent
from backend.jobs.states import ACTIVE, RunState, RunTrigger
from backend.scheduling.occurrences import Connection, NewRun, insert_runs
from backend.scheduling.policies import ActiveRun

# SKIP LOCKED: what somebody else changes this very moment (sent, expired, let in) is no longer what it was; and the sweeps lock
# runs before schedules.
_END_UNSTARTED = """
with chosen as (
    select id from job_runs where schedule_id = :schedule_id and state in ('waiting','pending','queued') {which}
    order by id for no key update skip locked),
ended as (
    update job_runs r set state = 'cancelled', reason = :reason, cancel_requested_at = now(), finished_at = now()
    from chosen where r.id = chosen.id returning r.id, r.attempt)
insert into job_run_events (run_id, attempt, kind, message) select id, attempt, 'cancelled', :message from ended
"""

# The runs of the schedule that are not sent yet: an edit calls them back, a retry that waits for its next attempt goes on.
_UNSENT = "and state <> 'queued' and trigger = 'schedule' and attempt = 0"

# A run that is being finished this very moment is locked by its worker, and needs no cancelling.
_CANCEL_ACTIVE = """
with chosen as (
    select id from job_runs where schedule_id = :schedule_id and state in ('waiting','pending','queued','running')
      and not (state = 'waiting' and trigger = 'backfill')
    order by id for no key update skip locked),
told as (
    update job_runs r set cancel_requested_at = coalesce(cancel_requested_at, now()), reason = 'cancelled_by_next',
        finished_at = case when state = 'running' then null else now() end,
        state = case when state = 'running' then state else 'cancelled' end
    from chosen where r.id = chosen.id returning r.id, r.attempt, r.state)
insert into job_run_events (run_id, attempt, kind, message)
select id, attempt, case when state = 'running' then 'cancel_requested' else 'cancelled' end, :message from told
"""


class RunRepository:
    """Runs, and what happened to them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, run_id: UUID) -> JobRun | None:
        return await self._session.get(JobRun, run_id, populate_existing=True)

    async def find_by_key(self, idempotency_key: str) -> JobRun | None:
        return (await self._session.exec(select(JobRun).where(JobRun.idempotency_key == idempotency_key))).first()

    async def lock(self, run_id: UUID) -> JobRun | None:
        return await self._session.get(JobRun, run_id, with_for_update={"key_share": True}, populate_existing=True)

    async def save(self, run: JobRun) -> None:
        self._session.add(run)
        await self._session.flush()

    async def active(self, schedule_id: int) -> list[ActiveRun]:
        """What a new run of the schedule has to look at: as in the dispatcher, a backfill's waiting runs do not count."""
        query = (
            select(JobRun.id, JobRun.state)
            .where(JobRun.schedule_id == schedule_id, col(JobRun.state).in_(ACTIVE))
            .where((col(JobRun.state) != RunState.WAITING) | (col(JobRun.trigger) != RunTrigger.BACKFILL))
            .order_by(col(JobRun.scheduled_for))
        )
        return [ActiveRun(row[0], row[1]) for row in (await self._session.exec(query)).all()]

    async def insert_of_schedule(
        self, runs: Sequence[NewRun], *, trigger: str, actor: str, idempotency_key: str | None = None
    ) -> list[UUID]:
        """Insert runs made from their schedule's row; the ids of those that were not there before."""
        rows = await insert_runs(
            await self._engine_connection(),
            runs,
            trigger=trigger,
            triggered_by=actor,
            idempotency_key=idempotency_key,
        )
        return [row["id"] for row in rows]

    async def insert_new(self, run: JobRun) -> bool:
        """Insert a run; False when its idempotency key is taken."""
        values = {
            name: value for name, value in run.model_dump().items() if name not in {"publish_after", "created_at"}
        }
        connection = await self._session.connection()
        done = await connection.execute(insert(JobRun).values(**values).on_conflict_do_nothing())
        return done.rowcount == 1

    async def fulfilled(self, schedule_id: int, first: datetime, last: datetime) -> set[datetime]:
        """Instants in [first, last] with a run that has succeeded or is under way."""
        query = select(JobRun.scheduled_for).where(
            JobRun.schedule_id == schedule_id,
            JobRun.scheduled_for >= first,
            JobRun.scheduled_for <= last,
            col(JobRun.trigger).in_((RunTrigger.SCHEDULE, RunTrigger.BACKFILL, RunTrigger.REPLAY)),
            col(JobRun.state).in_((RunState.SUCCEEDED, *ACTIVE)),
        )
        return set((await self._session.exec(query)).all())

    async def withdraw(self, schedule_id: int, *, message: str) -> int:
        """Cancel the schedule's own runs that are not sent yet; how many."""
        return await self._end(_END_UNSTARTED.format(which=_UNSENT), schedule_id, "schedule_edited", message)

    async def end_unstarted(self, schedule_id: int, *, reason: str, message: str) -> int:
        """Cancel every run of the schedule that no worker has; how many."""
        return await self._end(_END_UNSTARTED.format(which=""), schedule_id, reason, message)

    async def cancel_active(self, schedule_id: int, *, message: str) -> int:
        """Cancel what a new run has to look at, runs under way by asking their workers; how many."""
        await self._session.flush()
        connection = await self._session.connection()
        values = {"schedule_id": schedule_id, "message": message}
        return (await connection.execute(text(_CANCEL_ACTIVE), values)).rowcount

    async def lock_active(self, schedule_id: int) -> None:
        """In the order in which a worker finishes a run (the run, then its schedule), so that the two cannot block each other."""
        query = select(JobRun.id).where(JobRun.schedule_id == schedule_id, col(JobRun.state).in_(ACTIVE))
        await self._session.exec(query.order_by(col(JobRun.id)).with_for_update())

    async def page(
        self,
        *,
        states: Sequence[str] | None,
        schedule_id: int | None,
        template_id: int | None,
        managed_by: str | None,
        trigger: str | None,
        since: datetime | None,
        until: datetime | None,
        before: Position | None,
        limit: int,
    ) -> list[JobRun]:
        """Runs by when they were made, newest first."""
        query = select(JobRun).order_by(col(JobRun.created_at).desc(), col(JobRun.id).desc()).limit(limit)
        if states:
            query = query.where(col(JobRun.state).in_(states))
        if schedule_id is not None:
            query = query.where(JobRun.schedule_id == schedule_id)
        if template_id is not None:
            query = query.where(JobRun.job_template_id == template_id)
        if managed_by is not None:
            # What people schedule has a template; the system's tasks and notifications have none.
            of_system = col(JobRun.job_template_id).is_(None)
            query = query.where(of_system if managed_by == "system" else ~of_system)
        if trigger is not None:
            query = query.where(JobRun.trigger == trigger)
        if since is not None:
            query = query.where(JobRun.created_at >= since)
        if until is not None:
            query = query.where(JobRun.created_at < until)
        if before is not None:
            query = query.where(tuple_(col(JobRun.created_at), col(JobRun.id)) < before)
        return list((await self._session.exec(query)).all())

    async def occurrences(self, schedule_id: int, *, before: Position | None, limit: int) -> list[JobRun]:
        """The schedule's own occurrences, newest first."""
        query = (
            select(JobRun)
            .where(JobRun.schedule_id == schedule_id, JobRun.trigger == RunTrigger.SCHEDULE)
            .order_by(col(JobRun.scheduled_for).desc(), col(JobRun.id).desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(tuple_(col(JobRun.scheduled_for), col(JobRun.id)) < before)
        return list((await self._session.exec(query)).all())

    async def add_event(self, run: JobRun, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        self._session.add(JobRunEvent(run_id=run.id, attempt=run.attempt, kind=kind, message=message, detail=detail))
        await self._session.flush()

    async def events(self, run_id: UUID, limit: int) -> list[JobRunEvent]:
        """What happened to a run, without its log; in order."""
        query = select(JobRunEvent).where(JobRunEvent.run_id == run_id, JobRunEvent.kind != "log")
        return list((await self._session.exec(query.order_by(col(JobRunEvent.id)).limit(limit))).all())

    async def log(self, run_id: UUID, limit: int) -> list[JobRunEvent]:
        """The newest lines that its handler logged, newest first."""
        query = select(JobRunEvent).where(JobRunEvent.run_id == run_id, JobRunEvent.kind == "log")
        return list((await self._session.exec(query.order_by(col(JobRunEvent.id).desc()).limit(limit))).all())

    async def counts(self, since: datetime) -> dict[str, int]:
        """Runs made since then, by state."""
        query = select(JobRun.state, func.count()).where(JobRun.created_at >= since).group_by(JobRun.state)
        return {row[0]: row[1] for row in (await self._session.exec(query)).all()}

    async def _end(self, statement: str, schedule_id: int, reason: str, message: str) -> int:
        await self._session.flush()
        connection = await self._session.connection()
        values = {"schedule_id": schedule_id, "reason": reason, "message": message}
        return (await connection.execute(text(statement), values)).rowcount

    async def _engine_connection(self) -> Connection:
        """The driver's own connection, inside this session's transaction, for the engine's SQL."""
        await self._session.flush()
        raw = await (await self._session.connection()).get_raw_connection()
        driver: Any = raw.driver_connection
        connection: Connection = driver
        return connection
