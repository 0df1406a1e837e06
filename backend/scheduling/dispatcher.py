"""Claims due schedules: one short transaction a batch, a row for each occurrence, nothing published inside it.

Any number of dispatchers may work at once: rows are claimed with SKIP LOCKED, and an occurrence is unique by (schedule, instant).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from backend.scheduling.alerts import open_missed
from backend.scheduling.occurrences import Connection, NewRun, insert_runs
from backend.scheduling.policies import ActiveRun, Decision, decide
from backend.scheduling.publisher import Message
from backend.scheduling.rows import recurrence_of

log = logging.getLogger(__name__)

BATCH = 500
DEFER_SECONDS = 60
_CLOCK_READINGS = 5

# NO KEY UPDATE: an insert of a run takes a key-share lock through the foreign key and must not wait.
_CLAIM = """
select now() as now, id, schedule_type, cron_expression, interval_seconds, anchor, run_at, timezone, end_at, max_runs, run_count,
    jitter_seconds, misfire_policy, misfire_grace_seconds, max_catchup, overlap_policy, concurrency_key, next_run, name
from job_schedules
where is_active and next_run <= now() and (deferred_until is null or deferred_until <= now())
order by next_run limit $1 for no key update skip locked
"""

# A backfill's waiting runs do not hold up the schedule itself.
_ACTIVE = """
select schedule_id, id, state from job_runs
where schedule_id = any($1::bigint[]) and state in ('waiting','pending','queued','running')
  and not (state = 'waiting' and trigger = 'backfill')
order by scheduled_for
"""

_ADVANCE = """
update job_schedules s set next_run = v.next_run, last_run = coalesce(v.last_run, s.last_run), run_count = s.run_count + v.started,
    last_error = v.error, deferred_until = case when v.error is not null then now() + make_interval(secs => $6) end
from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::int[], $5::text[]) as v(id, next_run, last_run, started, error)
where s.id = v.id
"""

# A run that is being finished this very moment is locked by its worker, and needs no cancelling.
_CANCEL = """
update job_runs set cancel_requested_at = now(), reason = 'cancelled_by_next',
    state = case when state = 'running' then state else 'cancelled' end,
    finished_at = case when state = 'running' then null else now() end
where id in (select id from job_runs where id = any($1::uuid[]) and state in ('waiting','pending','queued','running')
             order by id for no key update skip locked)
"""

_PEEK = """
select extract(epoch from next_run - clock_timestamp())::float8 as wait, clock_timestamp() as now
from job_schedules
where is_active and next_run is not null and (deferred_until is null or deferred_until <= now())
order by next_run limit 1
"""


@dataclass(slots=True)
class Claimed:
    """What one batch did: schedules claimed, rows inserted by state, messages to publish, (name, task) of the new runs."""

    schedules: int = 0
    states: dict[str, int] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    started: list[tuple[str, str]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return self.schedules >= BATCH


async def seconds_until_due(connection: Connection) -> float | None:
    """Until the earliest schedule is due, by the database's clock; negative when it is; None when there is none."""
    row = await connection.fetchrow(_PEEK)
    return None if row is None else row["wait"]


async def claim_due(connection: Connection, *, relay_seconds: float = 0, limit: int = BATCH) -> Claimed:
    """Account for every occurrence of up to `limit` due schedules, in one transaction.

    With `relay_seconds` the caller publishes the returned messages within that time; otherwise the relay finds them.
    A schedule that cannot be computed is put off by a minute and says why; the others go on.
    """
    async with connection.transaction():
        rows = await connection.fetch(_CLAIM, limit)
        if not rows:
            return Claimed()
        active = await _active_runs(connection, rows)
        decisions = [_decide(row, active[row["id"]]) for row in rows]
        inserted = await _store(connection, decisions, relay_seconds)
        await _alert(connection, decisions)
    claimed = Claimed(schedules=len(rows))
    for run in inserted:
        claimed.states[run["state"]] = claimed.states.get(run["state"], 0) + 1
        if run["state"] in {"pending", "waiting"}:
            claimed.started.append((run["name"], run["task"]))
        if run["relay_until"] is not None:
            claimed.messages.append(Message(run["id"], run["task"], run["queue"]))
    return claimed


async def _active_runs(connection: Connection, rows: Sequence[asyncpg.Record]) -> dict[int, list[ActiveRun]]:
    active: dict[int, list[ActiveRun]] = defaultdict(list)
    asking = [row["id"] for row in rows if row["overlap_policy"] != "allow"]
    if asking:
        for run in await connection.fetch(_ACTIVE, asking):
            active[run["schedule_id"]].append(ActiveRun(run["id"], run["state"]))
    return active


def _decide(row: Mapping[str, Any], active: Sequence[ActiveRun]) -> Decision:
    try:
        return decide(row, recurrence_of(row), row["now"], active)
    except Exception as fault:  # noqa: BLE001 - whatever is wrong with one row must not stop the others
        return _deferred(row["id"], row["name"], row["next_run"], fault)


def _deferred(schedule_id: int, name: str, next_run: datetime | None, fault: Exception) -> Decision:
    log.error("schedule %d (%s) deferred for %d s: %s", schedule_id, name, DEFER_SECONDS, fault or type(fault).__name__)
    return Decision(schedule_id, next_run=next_run, error=str(fault) or type(fault).__name__)


async def _store(connection: Connection, decisions: Sequence[Decision], relay_seconds: float) -> list[asyncpg.Record]:
    """Write all decisions at once; where the database refuses, one by one, so that the bad one alone is deferred."""
    try:
        async with connection.transaction():
            return await _write(connection, decisions, relay_seconds)
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as fault:
        if len(decisions) == 1:
            only = decisions[0]
            next_run = await connection.fetchval("select next_run from job_schedules where id = $1", only.schedule_id)
            await _write(connection, [_deferred(only.schedule_id, "refused by the database", next_run, fault)], 0)
            return []
    inserted = []
    for decision in decisions:
        inserted += await _store(connection, [decision], relay_seconds)
    return inserted


async def _write(connection: Connection, decisions: Sequence[Decision], relay_seconds: float) -> list[asyncpg.Record]:
    cancelled = [run for decision in decisions for run in decision.cancel]
    if cancelled:
        await connection.execute(_CANCEL, cancelled)
    runs: list[NewRun] = [run for decision in decisions for run in decision.runs]
    inserted = await insert_runs(connection, runs, relay_seconds=relay_seconds) if runs else []
    await connection.execute(
        _ADVANCE,
        [decision.schedule_id for decision in decisions],
        [decision.next_run for decision in decisions],
        [decision.last_run for decision in decisions],
        [decision.started for decision in decisions],
        [decision.error for decision in decisions],
        float(DEFER_SECONDS),
    )
    return inserted


async def _alert(connection: Connection, decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        if decision.missed_at is not None:
            missed = sum(run.occurrences or 1 for run in decision.runs if run.state == "missed")
            await open_missed(connection, decision.schedule_id, decision.missed_at, missed)


async def clock_offset(connection: Connection) -> timedelta:
    """How far this machine's clock is ahead of the database's; the database's is the one that decides.

    Compared with the middle of a round trip; of a few, the quickest is wrong by half of itself at most.
    """
    measured = [await _measured_offset(connection) for _ in range(_CLOCK_READINGS)]
    return min(measured)[1]


async def _measured_offset(connection: Connection) -> tuple[timedelta, timedelta]:
    """How long the answer took, and the offset that it says."""
    asked, before = time.monotonic(), datetime.now(UTC)
    now: datetime = await connection.fetchval("select clock_timestamp()")
    took = timedelta(seconds=time.monotonic() - asked)
    return took, before + took / 2 - now
