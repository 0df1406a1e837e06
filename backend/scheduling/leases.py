"""A worker's side of a run: claim it before working, renew the lease while working, finish fenced by the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from backend.scheduling.occurrences import Connection

# The message's own task must be the row's: a forged message cannot have a run executed as another task. A run whose lease has
# run out may be claimed straight away, as long as the reaper would try it again, too.
_CLAIM = """
update job_runs set state = 'running', epoch = epoch + 1, attempt = attempt + 1, lease_owner = $3,
    lease_until = now() + make_interval(secs => $4), started_at = coalesce(started_at, now()), attempt_started_at = now(),
    relay_until = null, reason = null
where id = $1 and task = $2 and cancel_requested_at is null
  and (expires_at is null or expires_at > now() or attempt > 0)
  and (state = 'queued' or (state = 'pending' and publish_after <= now())
       or (state = 'running' and lease_until < now() and attempt < coalesce(max_attempts, $5)))
returning epoch, attempt, arguments, max_attempts, retry_delay_seconds, timeout_seconds, name, schedule_id, scheduled_for
"""

_WHY_NOT = "select state, task, reason, lease_owner, attempt from job_runs where id = $1"

_RENEW = """
update job_runs r set lease_until = now() + make_interval(secs => $3)
from unnest($1::uuid[], $2::int[]) as v(id, epoch) where r.id = v.id and r.epoch = v.epoch and r.state = 'running'
returning r.id, r.cancel_requested_at is not null as cancelled
"""

_CHECK = """
select r.id, r.cancel_requested_at is not null as cancelled
from unnest($1::uuid[], $2::int[]) as v(id, epoch) join job_runs r on r.id = v.id and r.epoch = v.epoch and r.state = 'running'
"""

# The run, and what its schedule remembers of it. A success puts the alert's deadline after the next occurrence.
_FINISH = """
with done as (
    update job_runs set state = $3, reason = $4, result = $5::jsonb, error = $6, finished_at = now(), lease_until = null
    where id = $1 and epoch = $2 and state = 'running' returning schedule_id),
remembered as (
    update job_schedules s set last_state = $3, last_finished_at = now(),
        last_success_at = case when $3 = 'succeeded' then now() else last_success_at end,
        consecutive_failures = case when $3 = 'succeeded' then 0 when $3 = 'cancelled' then consecutive_failures
                                    else consecutive_failures + 1 end,
        alert_after = case when $3 = 'succeeded' and is_active
                           then next_run + make_interval(secs => alert_grace_seconds) else alert_after end
    from done where s.id = done.schedule_id)
select count(*) from done
"""

_RETRY = """
with done as (
    update job_runs set state = 'pending', reason = 'retry', error = $4, publish_after = now() + make_interval(secs => $3),
        lease_until = null, relay_until = null, publish_count = 0
    where id = $1 and epoch = $2 and state = 'running' and cancel_requested_at is null returning id, attempt)
insert into job_run_events (run_id, attempt, kind, message, detail)
select id, attempt, 'attempt_failed', $4, $5::jsonb from done
"""

_LOG = """
insert into job_run_events (run_id, attempt, kind, level, message, at)
select id, attempt, 'log', level, message, at
from unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::timestamptz[]) with ordinality
    as v(id, attempt, level, message, at, place)
where exists (select from job_runs where job_runs.id = v.id)
order by place
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that is ours until its lease runs out. `max_attempts` None: the task's own number."""

    id: UUID
    epoch: int
    attempt: int
    arguments: str
    max_attempts: int | None
    retry_delay_seconds: float | None
    timeout_seconds: int | None
    name: str
    scheduled_for: datetime


async def claim(
    connection: Connection, run: UUID, task: str, *, owner: str, lease_seconds: float, lost_attempts: int
) -> Claim | None:
    """Take a run for `lease_seconds`; None when it is not to be run (by anybody, by now, or as this task)."""
    row = await connection.fetchrow(_CLAIM, run, task, owner, lease_seconds, lost_attempts)
    if row is None:
        return None
    return Claim(
        run,
        row["epoch"],
        row["attempt"],
        row["arguments"],
        row["max_attempts"],
        row["retry_delay_seconds"],
        row["timeout_seconds"],
        row["name"],
        row["scheduled_for"],
    )


async def why_not(connection: Connection, run: UUID) -> str:
    """In words, why a run could not be claimed."""
    row = await connection.fetchrow(_WHY_NOT, run)
    if row is None:
        return "there is no such run"
    return f"it is {row['state']}" + (f" ({row['reason']})" if row["reason"] else "") + f", a run of {row['task']}"


async def renew(connection: Connection, claims: Sequence[Claim], lease_seconds: float) -> Mapping[UUID, bool]:
    """Extend leases. The answer holds the runs that are still ours, and whether they were asked to stop."""
    rows = await connection.fetch(_RENEW, *_keys(claims), lease_seconds)
    return {row["id"]: row["cancelled"] for row in rows}


async def check(connection: Connection, claims: Sequence[Claim]) -> Mapping[UUID, bool]:
    """As `renew`, without extending."""
    return {row["id"]: row["cancelled"] for row in await connection.fetch(_CHECK, *_keys(claims))}


def _keys(claims: Sequence[Claim]) -> tuple[list[UUID], list[int]]:
    return [claim.id for claim in claims], [claim.epoch for claim in claims]


async def finish(
    connection: Connection,
    claim: Claim,
    state: str,
    *,
    reason: str | None = None,
    result: str | None = None,
    error: str | None = None,
) -> bool:
    """Record how a run ended (`result` is JSON text). False: fenced, since another claim has been made; nothing was recorded."""
    return bool(await connection.fetchval(_FINISH, claim.id, claim.epoch, state, reason, result, error))


async def retry_later(connection: Connection, claim: Claim, delay: float, error: str, detail: str) -> bool:
    """Put a run back for another attempt in `delay` seconds. False: fenced, or asked to stop."""
    done: str = await connection.execute(_RETRY, claim.id, claim.epoch, delay, error, detail)
    return not done.endswith(" 0")


async def record_log(connection: Connection, lines: Sequence[tuple[UUID, int, str, str, datetime]]) -> None:
    """(run id, attempt, level, message, instant) each."""
    await connection.execute(_LOG, *(list(column) for column in zip(*lines, strict=True)))
