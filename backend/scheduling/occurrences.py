"""Rows of `job_runs`: one per expected occurrence, and one per run that somebody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid5

import asyncpg
import asyncpg.pool

# Any fixed namespace; changing it would let every occurrence run a second time.
_NAMESPACE = UUID("6f5c1f0e-6c1b-5b1e-9a44-6265a7c1e000")

# Generic for the type checker alone.
Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"


def run_id(schedule_id: int, scheduled_for: datetime, trigger: str = "schedule") -> UUID:
    """The id of an occurrence's run, which is also its Celery task id: the same on every machine and after every crash."""
    return uuid5(_NAMESPACE, f"{trigger}:{schedule_id}:{scheduled_for.astimezone(UTC).isoformat()}")


@dataclass(frozen=True, slots=True)
class NewRun:
    """One row to insert. `publish_after` None: now. Everything else a run needs is copied from its schedule."""

    id: UUID
    schedule_id: int
    scheduled_for: datetime
    state: str
    reason: str | None = None
    blocked_by: UUID | None = None
    covers_from: datetime | None = None
    occurrences: int | None = 1
    publish_after: datetime | None = None


_INSERT = """
insert into job_runs (
    id, schedule_id, job_template_id, name, scheduled_for, trigger, triggered_by, task, queue, arguments,
    max_attempts, retry_delay_seconds, timeout_seconds, expires_at, serial, concurrency_key, concurrency_limit,
    state, reason, blocked_by, covers_from, occurrences, publish_after, relay_until, relay_pid, finished_at,
    idempotency_key)
select v.id, s.id, s.job_template_id, s.name, v.scheduled_for, $10, $11, s.task, s.queue, s.arguments,
    s.max_attempts, s.retry_delay_seconds, s.timeout_seconds,
    coalesce(v.publish_after, now()) + make_interval(secs => s.expires_seconds),
    s.overlap_policy <> 'allow', s.concurrency_key, s.concurrency_limit,
    v.state, v.reason, v.blocked_by, v.covers_from, v.occurrences, coalesce(v.publish_after, now()),
    case when v.state = 'pending' and coalesce(v.publish_after, now()) <= now() and $12::float8 > 0
         then clock_timestamp() + make_interval(secs => $12) end,
    case when $12::float8 > 0 then pg_backend_pid() end,
    case when v.state in ('missed','skipped','coalesced') then now() end, $13
from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::uuid[], $7::timestamptz[], $8::int[],
            $9::timestamptz[])
    as v(id, schedule_id, scheduled_for, state, reason, blocked_by, covers_from, occurrences, publish_after)
join job_schedules s on s.id = v.schedule_id
on conflict do nothing
returning id, name, task, queue, state, relay_until
"""


async def insert_runs(
    connection: Connection,
    runs: Sequence[NewRun],
    *,
    trigger: str = "schedule",
    triggered_by: str = "schedule",
    relay_seconds: float = 0,
    idempotency_key: str | None = None,
) -> list[asyncpg.Record]:
    """Insert rows; those that exist already stay as they are. Returns what _INSERT says of the inserted ones.

    With `relay_seconds` the caller takes it upon itself to publish the pending ones within that time.
    """
    columns = (
        [run.id for run in runs],
        [run.schedule_id for run in runs],
        [run.scheduled_for for run in runs],
        [run.state for run in runs],
        [run.reason for run in runs],
        [run.blocked_by for run in runs],
        [run.covers_from for run in runs],
        [run.occurrences for run in runs],
        [run.publish_after for run in runs],
    )
    return await connection.fetch(_INSERT, *columns, trigger, triggered_by, float(relay_seconds), idempotency_key)
