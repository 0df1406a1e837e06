"""Read models of schedules, runs and alerts."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from backend.core.db import Session
from backend.core.errors import NotFound
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.jobs.cursors import decode_number, encode_number
from backend.jobs.finding import found_run, found_schedule
from backend.jobs.kinds import KINDS, kind_of_task, priority_of
from backend.jobs.models import JobAlert, JobRun, JobSchedule, JobTemplate
from backend.jobs.repository.alerts import AlertRepository
from backend.jobs.repository.runs import RunRepository
from backend.jobs.repository.schedules import ScheduleRepository
from backend.jobs.run_schemas import AlertRead, RunRead, RunSummary
from backend.jobs.schemas import JobsSummary, ScheduleRead
from backend.jobs.story import EVENTS_SHOWN, LOG_SHOWN, attempts, log_lines, timeline
from backend.jobs.timing import TIME_FIELDS, explanation, local
from backend.jobs.words import reason_in_words
from backend.scheduling.recurrence import RecurrenceError

_DAY = timedelta(days=1)


def schedule_read(schedule: JobSchedule, template: JobTemplate | None) -> ScheduleRead:
    """A row as the API shows it; a time that cannot be understood has no explanation."""
    kind = KINDS.get(template.kind) if template else kind_of_task(schedule.task)
    try:
        words = explanation({field: getattr(schedule, field) for field in TIME_FIELDS})
    except RecurrenceError:
        words = None
    return ScheduleRead.model_validate(
        schedule.model_dump()
        | {
            "template_id": schedule.job_template_id,
            "template_name": template.name if template else None,
            "kind": kind.name if kind else None,
            "priority": priority_of(kind, schedule.queue),
            "explanation": words,
            "next_run_local": local(schedule.next_run, schedule.timezone) if schedule.next_run else None,
        }
    )


async def list_schedules(
    session: Session,
    *,
    kind: str | None = None,
    managed_by: str | None = None,
    is_active: bool | None = None,
    template_id: int | None = None,
    q: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ScheduleRead]:
    """Schedules, newest first; `q` is part of the name."""
    rows = await ScheduleRepository(session).page(
        kind=kind,
        task=KINDS[kind].task if kind in KINDS else None,
        managed_by=managed_by,
        is_active=is_active,
        template_id=template_id,
        q=q,
        before=decode_number(cursor),
        limit=limit + 1,
    )
    page = rows[:limit]
    more = encode_number(page[-1][0].id) if len(rows) > limit else None
    return Page(items=[schedule_read(*row) for row in page], next_cursor=more)


async def read_schedule(session: Session, schedule_id: int) -> ScheduleRead:
    """NotFound (404) for an unknown id."""
    return schedule_read(*await found_schedule(session, schedule_id))


async def read_summary(session: Session) -> JobsSummary:
    """Schedules by whether they are active, and the runs of the last 24 hours by state."""
    schedules = ScheduleRepository(session)
    counts = await schedules.counts()
    runs = await RunRepository(session).counts(await schedules.now() - _DAY)
    return JobsSummary(active=counts.get(True, 0), paused=counts.get(False, 0), runs=runs)


def run_summary(run: JobRun) -> RunSummary:
    return RunSummary.model_validate(_summary(run))


def _summary(run: JobRun) -> dict[str, Any]:
    kind = kind_of_task(run.task)
    finished = run.finished_at if run.started_at else None
    return run.model_dump() | {
        "template_id": run.job_template_id,
        "kind": kind.name if kind else None,
        "reason": reason_in_words(run.reason, run.state, run.blocked_by),
        "reason_code": run.reason,
        "duration_seconds": (finished - run.started_at).total_seconds() if finished and run.started_at else None,
    }


async def list_runs(
    session: Session,
    *,
    states: Sequence[str] | None = None,
    schedule_id: int | None = None,
    template_id: int | None = None,
    managed_by: str | None = None,
    trigger: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[RunSummary]:
    """Runs by when they were made, newest first, from `since` until before `until`."""
    rows = await RunRepository(session).page(
        states=states,
        schedule_id=schedule_id,
        template_id=template_id,
        managed_by=managed_by,
        trigger=trigger,
        since=since,
        until=until,
        before=decode_cursor(cursor),
        limit=limit + 1,
    )
    page = rows[:limit]
    more = encode_cursor((page[-1].created_at, page[-1].id)) if len(rows) > limit else None
    return Page(items=[run_summary(row) for row in page], next_cursor=more)


async def read_run(session: Session, run_id: UUID) -> RunRead:
    """A run with its timeline, attempts and log lines. NotFound (404) for an unknown id."""
    run = await found_run(session, run_id)
    runs = RunRepository(session)
    events = await runs.events(run_id, EVENTS_SHOWN)
    newest = await runs.log(run_id, LOG_SHOWN + 1)
    return RunRead.model_validate(
        _summary(run)
        | {
            "timeline": timeline(run, events),
            "attempts": attempts(run, events),
            "log": log_lines(newest[:LOG_SHOWN]),
            "log_truncated": len(newest) > LOG_SHOWN,
        }
    )


async def list_alerts(
    session: Session,
    *,
    is_open: bool | None = None,
    schedule_id: int | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[AlertRead]:
    """Incidents, newest first."""
    rows = await AlertRepository(session).page(
        is_open=is_open, schedule_id=schedule_id, before=decode_number(cursor), limit=limit + 1
    )
    page = rows[:limit]
    more = encode_number(page[-1][0].id) if len(rows) > limit else None
    return Page(items=[_alert(*row) for row in page], next_cursor=more)


async def read_alert(session: Session, alert_id: int) -> AlertRead:
    """NotFound (404) for an unknown id, also once its schedule has been deleted."""
    row = await AlertRepository(session).find(alert_id)
    if row is None:
        raise NotFound(f"alert {alert_id} does not exist")
    return _alert(*row)


def _alert(alert: JobAlert, schedule_name: str, zone_name: str) -> AlertRead:
    return AlertRead.model_validate(
        alert.model_dump()
        | {"schedule_name": schedule_name, "expected_local": local(alert.expected_at, zone_name), "timezone": zone_name}
    )
