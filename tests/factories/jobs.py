"""Templates, schedules, runs and alerts for tests; without an engine, their states are set here."""

from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from backend.core.clock import utc_now
from backend.core.db import Database
from backend.jobs.models import JobAlert, JobRun, JobRunEvent, JobSchedule, JobTemplate

_numbers = count(1)


async def add_template(db: Database, kind: str = "noop", **fields: Any) -> int:
    """A template; its id."""
    template = JobTemplate(**({"name": f"Template {next(_numbers)}", "kind": kind} | fields))
    async with db.transaction() as session:
        session.add(template)
        await session.flush()
    assert template.id is not None
    return template.id


async def add_schedule(db: Database, template_id: int | None = None, **fields: Any) -> int:
    """An active schedule every hour of whatever `fields` say; its id. Without a template it is the system's."""
    soon = utc_now() + timedelta(hours=1)
    defaults: dict[str, Any] = {
        "name": f"Schedule {next(_numbers)}",
        "job_template_id": template_id,
        "task": "noop",
        "queue": "default",
        "schedule_type": "cron",
        "cron_expression": "0 * * * *",
        "timezone": "UTC",
        "next_run": soon.replace(minute=0, second=0, microsecond=0),
        "alert_grace_seconds": 600,
        "alert_after": soon,
        "managed_by": "user" if template_id else "system",
    }
    schedule = JobSchedule(**(defaults | fields))
    async with db.transaction() as session:
        session.add(schedule)
        await session.flush()
    assert schedule.id is not None
    return schedule.id


async def add_run(db: Database, schedule_id: int | None = None, state: str = "succeeded", **fields: Any) -> UUID:
    """A run in that state; its id."""
    now = utc_now()
    defaults: dict[str, Any] = {
        "id": uuid4(),
        "schedule_id": schedule_id,
        "name": "Run",
        "scheduled_for": now - timedelta(microseconds=next(_numbers)),
        "task": "noop",
        "queue": "default",
        "state": state,
        "created_at": now,
    }
    if state not in {"waiting", "pending", "queued", "running"}:
        defaults["finished_at"] = now
    run = JobRun(**(defaults | fields))
    async with db.transaction() as session:
        session.add(run)
    return run.id


async def add_event(db: Database, run_id: UUID, kind: str, message: str = "", **fields: Any) -> None:
    async with db.transaction() as session:
        session.add(JobRunEvent(run_id=run_id, kind=kind, message=message, **fields))


async def add_alert(db: Database, schedule_id: int, *, resolved_at: datetime | None = None) -> int:
    """An incident, open unless `resolved_at` is given; its id."""
    alert = JobAlert(
        schedule_id=schedule_id,
        kind="late",
        expected_at=datetime.fromisoformat("2026-11-21T20:30:00+00:00"),
        message="no run has started yet",
        resolved_at=resolved_at,
    )
    async with db.transaction() as session:
        session.add(alert)
        await session.flush()
    assert alert.id is not None
    return alert.id


async def run_row(db: Database, run_id: UUID | str) -> JobRun:
    async with db.transaction() as session:
        run = await session.get(JobRun, UUID(str(run_id)))
    assert run is not None
    return run


async def schedule_row(db: Database, schedule_id: int) -> JobSchedule:
    async with db.transaction() as session:
        schedule = await session.get(JobSchedule, schedule_id)
    assert schedule is not None
    return schedule
