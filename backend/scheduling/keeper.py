"""Every waiting state has a sweep: expired leases, lost messages, runs that wait for others, runs nobody took in time.

All of it may run in any number of processes at once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import asyncpg

from backend.scheduling.alerts import open_missed
from backend.scheduling.occurrences import Connection

# Tries of a run whose worker was lost, where neither schedule nor template names a number.
LOST_ATTEMPTS = 3
# Messages that a busy queue has overtaken this often never arrive.
REPUBLISH_LIMIT = 5
_LIMIT = 500
_PRUNE_BATCH, _PRUNE_BATCHES = 1_000, 50

# A lease that has run out: again with backoff while tries are left (5 s, 10 s, 20 s … at most 5 min), else dead. The epoch stays:
# the next claim raises it, and what the old holder still writes matches nothing.
_REAP = """
with lost as materialized (
    select id from job_runs where state = 'running' and lease_until < now()
    order by lease_until limit $1 for no key update skip locked)
update job_runs r set
    state = case when r.cancel_requested_at is not null then 'cancelled'
                 when r.attempt >= coalesce(r.max_attempts, $2) then 'dead' else 'pending' end,
    reason = 'worker_lost', error = 'worker ' || r.lease_owner || ' stopped renewing its lease',
    publish_after = now() + make_interval(secs => least(300, $3 * power(2, r.attempt - 1))),
    finished_at = case when r.cancel_requested_at is not null or r.attempt >= coalesce(r.max_attempts, $2) then now() end,
    lease_until = null, relay_until = null, publish_count = 0
from lost where r.id = lost.id
returning r.id, r.schedule_id, r.attempt, r.state, r.lease_owner, r.scheduled_for
"""

_EVENTS = """
insert into job_run_events (run_id, attempt, kind, message)
select * from unnest($1::uuid[], $2::int[], $3::text[], $4::text[])
"""

_FAILED_SCHEDULES = """
update job_schedules s set last_state = v.state, last_finished_at = now(),
    consecutive_failures = consecutive_failures + case when v.state = 'cancelled' then 0 else 1 end
from unnest($1::bigint[], $2::text[]) as v(id, state) where s.id = v.id
"""

# What the queue has handed out lately, as evidence that it moves: a message that was sent before these and not taken is lost.
# A run that ended without a worker (expired, cancelled) is none, nor is one that was sent twice: an older message than the last may
# have been the one taken. A worker may be faster than the mark of its message.
# $1: the margin by which a later message must have gone ahead; $2: what one that nothing has overtaken is given; seconds.
_STALE = """
with evidence as (
    select queue, max(published_at) as published_at from job_runs
    where ((state = 'running' and lease_until is not null) or finished_at > now() - interval '2 minutes')
      and attempt_started_at > published_at - interval '15 seconds' and attempt = 1 and publish_count <= 1
    group by queue),
judged as (
    select r.id, coalesce(e.published_at > r.published_at + make_interval(secs => $1), false) as overtaken
    from job_runs r left join evidence e on e.queue = r.queue
    where r.state = 'queued' and r.published_at < now() - make_interval(secs => $1))
select r.id, r.publish_count, r.attempt, j.overtaken from job_runs r join judged j on j.id = r.id
where r.state = 'queued' and (j.overtaken
    or r.published_at < now() - make_interval(secs => least(3600, $2 * power(2, least(r.publish_count, 12) - 1))))
order by r.published_at limit $3 for no key update of r skip locked
"""

_ANY_STALE = """
select exists (select from job_runs where state = 'queued' and published_at < now() - make_interval(secs => $1))
"""

_AGAIN = """
update job_runs set state = 'pending', publish_after = now(), relay_until = null, reason = 'republished' where id = any($1::uuid[])
"""

_LOST = """
update job_runs set state = 'dead', reason = 'lost_in_broker', finished_at = now(),
    error = 'published ' || publish_count || ' times, and no worker ever got it'
where id = any($1::uuid[]) returning schedule_id, state
"""

_EXPIRE = """
with late as materialized (
    select id from job_runs where expires_at < now() and state in ('waiting','pending','queued') and attempt = 0
    order by expires_at limit $1 for no key update skip locked)
update job_runs r set state = 'missed', reason = 'expired', finished_at = now()
from late where r.id = late.id
returning r.id, r.schedule_id, r.scheduled_for
"""

# Any number that nothing else locks: admission counts what runs, and two at once would count the same room twice.
_ADMISSION = 0x62656174_61646D

# Those alone for which there was room a moment ago; what is let in now uses it up.
_WAITING = """
with waiting as (
    select id, schedule_id, serial, concurrency_key, concurrency_limit, scheduled_for,
        row_number() over (partition by coalesce(concurrency_key, schedule_id::text) order by scheduled_for, id) as place
    from job_runs where state = 'waiting'),
under_way as (
    select schedule_id, concurrency_key, count(*) as n from job_runs
    where state in ('pending','queued','running')
      and (schedule_id in (select schedule_id from waiting) or concurrency_key in (select concurrency_key from waiting))
    group by 1, 2),
counted as (
    select w.*,
        case when serial then (select coalesce(sum(n), 0) from under_way u where u.schedule_id = w.schedule_id) else 0 end as mine,
        case when concurrency_key is null then 0
             else (select coalesce(sum(n), 0) from under_way u where u.concurrency_key = w.concurrency_key) end as of_key
    from waiting w where place <= 50)
select id, schedule_id, serial, concurrency_key, concurrency_limit, of_key::int as of_key from counted
where mine = 0 and (concurrency_key is null or of_key < concurrency_limit)
order by place, scheduled_for limit 1000
"""

_RELEASE = """
update job_runs set state = 'pending', relay_until = null, publish_after = greatest(publish_after, now())
where id = any($1::uuid[]) and state = 'waiting'
"""


async def record_events(connection: Connection, rows: list[tuple[Any, int, str, str]]) -> None:
    """(run id, attempt, kind, message) each."""
    if rows:
        await connection.execute(_EVENTS, *(list(column) for column in zip(*rows, strict=True)))


async def reap_leases(connection: Connection, lease_seconds: float) -> int:
    """Take runs back from workers that have stopped renewing; how many."""
    async with connection.transaction():
        lost = await connection.fetch(_REAP, _LIMIT, LOST_ATTEMPTS, min(5.0, lease_seconds / 12))
        await record_events(
            connection,
            [
                (run["id"], run["attempt"], "worker_lost", f"{run['lease_owner']} stopped renewing its lease")
                for run in lost
            ],
        )
        await _close(connection, [run for run in lost if run["state"] in {"dead", "cancelled"}])
    return len(lost)


async def _close(connection: Connection, runs: list[asyncpg.Record]) -> None:
    """The schedules of runs that ended without a worker to say so."""
    ended = {run["schedule_id"]: run["state"] for run in runs if run["schedule_id"] is not None}
    if ended:
        await connection.execute(_FAILED_SCHEDULES, list(ended), list(ended.values()))


async def republish_lost(connection: Connection, queue_timeout: float) -> Counter[str]:
    """Send again what no worker has taken, counted by what was done.

    A run that later ones of its queue have overtaken is sent again after a tenth of `queue_timeout` seconds, and is dead after
    REPUBLISH_LIMIT times; one that merely waits (busy or absent workers) after `queue_timeout`, twice that, … an hour, for ever.
    """
    done: Counter[str] = Counter()
    margin = queue_timeout / 10
    if not await connection.fetchval(_ANY_STALE, margin):
        return done
    async with connection.transaction():
        stale = await connection.fetch(_STALE, margin, queue_timeout, _LIMIT)
        lost = [run for run in stale if run["overtaken"] and run["publish_count"] >= REPUBLISH_LIMIT]
        again = [run for run in stale if run not in lost]
        await connection.execute(_AGAIN, [run["id"] for run in again])
        await _close(connection, await connection.fetch(_LOST, [run["id"] for run in lost]))
        await record_events(
            connection,
            [(run["id"], run["attempt"], "republished", "no worker had taken it") for run in again]
            + [(run["id"], run["attempt"], "lost_in_broker", "published, and never taken") for run in lost],
        )
        done.update(republished=len(again), lost=len(lost))
    return done


async def expire_unclaimed(connection: Connection) -> int:
    """Runs that nobody took before they expired are missed; how many."""
    async with connection.transaction():
        late = await connection.fetch(_EXPIRE, _LIMIT)
        latest = {run["schedule_id"]: run["scheduled_for"] for run in late if run["schedule_id"] is not None}
        for schedule, at in latest.items():
            await open_missed(connection, schedule, at, 1)
    return len(late)


async def admit_waiting(connection: Connection) -> int:
    """Let in the runs that wait for others, as far as there is room; how many."""
    async with connection.transaction():
        if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", _ADMISSION):
            return 0
        waiting = await connection.fetch(_WAITING)
        if not waiting:
            return 0
        admitted, busy = [], set()
        by_key: Counter[str] = Counter()
        for run in waiting:
            schedule, key = run["schedule_id"], run["concurrency_key"]
            if run["serial"] and schedule is not None and schedule in busy:
                continue
            if key is not None and run["of_key"] + by_key[key] >= run["concurrency_limit"]:
                continue
            admitted.append(run["id"])
            busy.add(schedule)
            by_key[key] += 1
        await connection.execute(_RELEASE, admitted)
    return len(admitted)


async def prune_runs(connection: Connection, days: int) -> int:
    """Delete runs, and incidents, that ended more than `days` ago (0: keep for ever), in short transactions; how many runs.

    At most _PRUNE_BATCHES batches at a time, so that the sweeps come round: 50,000 a minute for each engine.
    """
    if not days:
        return 0
    await connection.execute("delete from job_alerts where resolved_at < now() - make_interval(days => $1)", days)
    pruned = 0
    for _ in range(_PRUNE_BATCHES):
        batch = await _prune_batch(connection, days)
        pruned += batch
        if batch < _PRUNE_BATCH:
            break
    return pruned


async def _prune_batch(connection: Connection, days: int) -> int:
    done: str = await connection.execute(
        "delete from job_runs where id = any (array(select id from job_runs where finished_at < now() - make_interval(days => $1)"
        " order by finished_at limit $2 for update skip locked))",
        days,
        _PRUNE_BATCH,
    )
    return int(done.rpartition(" ")[2])
