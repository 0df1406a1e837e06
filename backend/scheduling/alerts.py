"""Incidents of schedules: one row and one notification when a schedule is late, misses or fails, one when it recovers.

A notification is a run of the task `send_job_alert`, inserted with the incident in one transaction, so that it is retried and
recorded like every other run.
"""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from backend.scheduling.occurrences import Connection

# An unresolved incident of the same schedule is the same incident.
_OPEN = """
with opened as (
    insert into job_alerts (schedule_id, kind, expected_at, message) values ($1, $2, $3, $4)
    on conflict do nothing returning id),
silenced as (update job_schedules set alert_after = null where id = $1)
insert into job_runs (id, name, scheduled_for, trigger, triggered_by, task, queue, arguments, state)
select $5, $6, now(), 'alert', 'alert', 'send_job_alert', 'default',
    jsonb_build_object('alert_id', id, 'event', 'opened'), 'pending'
from opened
"""

_NEXT_IS_FAR = """
select alert_grace_seconds is not null
    and (next_run is null or next_run > now() + make_interval(secs => alert_grace_seconds))
from job_schedules where id = $1
"""

# The earliest one that is overdue, flipped by whoever comes first.
_OVERDUE = """
update job_schedules set alert_after = null
where id = (select id from job_schedules
            where is_active and alert_after <= now() order by alert_after limit 1 for no key update skip locked)
returning id, name, next_run, last_run, last_state, last_error, last_success_at, consecutive_failures, alert_grace_seconds
"""

_LATEST = """
select id, state, reason, scheduled_for from job_runs
where schedule_id = $1 and state not in ('skipped','coalesced') order by created_at desc limit 1
"""

_RECOVERED = """
with resolved as (
    update job_alerts a set resolved_at = now() from job_schedules s
    where s.id = a.schedule_id and a.resolved_at is null and s.last_success_at > a.opened_at
    returning a.id, s.name)
insert into job_runs (id, name, scheduled_for, trigger, triggered_by, task, queue, arguments, state)
select gen_random_uuid(), 'alert: ' || name, now(), 'alert', 'alert', 'send_job_alert', 'default',
    jsonb_build_object('alert_id', id, 'event', 'resolved'), 'pending'
from resolved
"""


async def open_alert(connection: Connection, schedule_id: int, kind: str, expected_at: datetime, message: str) -> None:
    """Open an incident, unless one is open; `kind` is late, missed or failing."""
    await connection.execute(_OPEN, schedule_id, kind, expected_at, message, uuid4(), f"alert: {kind}")


async def open_missed(connection: Connection, schedule_id: int, at: datetime, count: int) -> None:
    """Occurrences of a schedule were missed, the last of them at `at`: an incident at once only when the next one is far.

    Else the next one decides, by the schedule's `alert_after`.
    """
    if not await connection.fetchval(_NEXT_IS_FAR, schedule_id):
        return
    what = "1 occurrence was" if count == 1 else f"{count} occurrences were"
    await open_alert(
        connection, schedule_id, "missed", at, f"{what} missed, the last due at {at:%Y-%m-%d %H:%M:%S} UTC"
    )


async def watch_deadlines(connection: Connection) -> int:
    """Open an incident for each schedule that has not succeeded by its `alert_after`, resolve those that have recovered.

    Returns how many were opened.
    """
    opened = 0
    while True:
        async with connection.transaction():
            row = await connection.fetchrow(_OVERDUE)
            if row is None:
                break
            latest = await connection.fetchrow(_LATEST, row["id"])
            expected = latest["scheduled_for"] if latest else row["next_run"] or row["last_run"]
            kind, message = _story(row["last_error"], latest["state"] if latest else None, row["consecutive_failures"])
            if expected is not None:
                await open_alert(connection, row["id"], kind, expected, message)
                opened += 1
    await connection.execute(_RECOVERED)
    return opened


def _story(error: str | None, state: str | None, failures: int) -> tuple[str, str]:
    if error is not None:
        return "late", f"its next run cannot be computed: {error}"
    if state in {"failed", "dead"}:
        return "failing", f"the last run {state}" + (f", {failures} in a row" if failures > 1 else "")
    if state == "missed":
        return "missed", "the last occurrence was missed"
    if state is None:
        return "late", "no run has started yet"
    words = {
        "pending": "is not sent yet",
        "queued": "is sent and no worker has taken it",
        "waiting": "waits for another",
    }
    return "late", f"the last run {words.get(state, f'is {state}')}"
