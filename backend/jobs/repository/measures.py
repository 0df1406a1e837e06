"""SQL of what Prometheus is told about schedules and runs: a few aggregates, each over an index and a short span of time."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from backend.core.db import Session

# Live states by their partial indices; ends of the last five minutes by finished_at.
_RUNS = """
select state, count(*) from job_runs where state in ('waiting','pending','queued','running') group by state
union all
select state, count(*) from job_runs where finished_at > now() - interval '5 minutes' group by state
"""
_LAGS = """
select percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from published_at - scheduled_for)) filter
    (where published_at is not null and attempt <= 1 and publish_count <= 1),
  percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from started_at - scheduled_for)) filter
    (where started_at is not null)
from job_runs where trigger = 'schedule' and finished_at > now() - interval '5 minutes'
"""
_ALERTS = "select kind, count(*) from job_alerts where resolved_at is null group by kind"
_SCHEDULES = "select is_active, count(*) from job_schedules group by is_active"
_OVERDUE = "select coalesce(extract(epoch from now() - min(next_run)), 0) from job_schedules where is_active and next_run < now()"


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds after the scheduled time, of the last five minutes' runs; None where there were none."""

    median: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Measures:
    """Runs by state (ended ones: within the last five minutes), lags, open alerts by kind, schedules by whether active.

    `overdue_seconds`: how long the most overdue schedule has waited for Beat; 0 when none does.
    """

    runs: dict[str, int]
    sent: Lag
    started: Lag
    alerts: dict[str, int]
    schedules: dict[bool, int]
    overdue_seconds: float


async def measure(session: Session) -> Measures:
    """All of it, in one transaction."""
    connection = await session.connection()

    async def pairs(query: str) -> dict[Any, int]:
        return {row[0]: int(row[1]) for row in (await connection.execute(text(query))).all()}

    sent, started = (await connection.execute(text(_LAGS))).one()
    return Measures(
        runs=await pairs(_RUNS),
        sent=Lag(*(sent or (None, None))),
        started=Lag(*(started or (None, None))),
        alerts=await pairs(_ALERTS),
        schedules=await pairs(_SCHEDULES),
        overdue_seconds=float((await connection.execute(text(_OVERDUE))).scalar_one()),
    )
