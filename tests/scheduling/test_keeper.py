"""The sweeps, each on rows as a crash, a lost message or a busy worker leaves them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from backend.scheduling import keeper
from backend.scheduling.dispatcher import claim_due
from backend.scheduling.keeper import admit_waiting, expire_unclaimed, prune_runs, reap_leases, republish_lost
from backend.scheduling.occurrences import Connection
from tests.factories.schedules import add_run, add_schedule, seconds_ago
from tests.scheduling.conftest import Desk

QUEUE_TIMEOUT = 600.0


async def add_lost(connection: Connection, schedule: int | None = None, **columns: Any) -> UUID:
    """A run whose worker has stopped renewing."""
    crashed = {"attempt": 1, "epoch": 1, "lease_owner": "w1", "lease_until": seconds_ago(1)}
    return await add_run(connection, schedule, "running", **(crashed | columns))


async def waits(connection: Connection, run: UUID) -> float:
    """Seconds until it may be published."""
    left: float = await connection.fetchval(
        "select extract(epoch from publish_after - now())::float8 from job_runs where id = $1", run
    )
    return left


# ------------------------------------------------------------------------------------------------------- expired leases


async def test_a_run_whose_worker_died_is_tried_again_and_says_so(connection: Connection, desk: Desk) -> None:
    run = await add_lost(connection)
    alive = await add_lost(connection, lease_until=seconds_ago(-30))
    assert await reap_leases(connection, 60) == 1
    row = await desk.run(run)
    assert (row["state"], row["reason"], row["lease_until"], row["epoch"]) == ("pending", "worker_lost", None, 1)
    assert row["error"] == "worker w1 stopped renewing its lease"
    assert await desk.events(run) == [("worker_lost", "w1 stopped renewing its lease")]
    assert (await desk.run(alive))["state"] == "running"
    assert await reap_leases(connection, 60) == 0


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 5), (2, 10), (3, 20), (8, 300), (30, 300)])
async def test_each_further_loss_waits_longer(attempt: int, seconds: int, connection: Connection) -> None:
    run = await add_lost(connection, attempt=attempt, max_attempts=99)
    await reap_leases(connection, 60)
    assert seconds - 2 < await waits(connection, run) <= seconds


async def test_a_short_lease_waits_a_short_time(connection: Connection) -> None:
    run = await add_lost(connection)
    await reap_leases(connection, 6)
    assert await waits(connection, run) <= 0.5


async def test_a_run_that_loses_its_last_worker_is_dead_and_its_schedule_knows(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, due_since=-60, consecutive_failures=1)
    third = await add_lost(connection, schedule, attempt=keeper.LOST_ATTEMPTS)
    single = await add_lost(connection, attempt=1, max_attempts=1)
    assert await reap_leases(connection, 60) == 2
    for run in (third, single):
        row = await desk.run(run)
        assert (row["state"], row["reason"]) == ("dead", "worker_lost")
        assert row["finished_at"] is not None
    row = await desk.schedule(schedule)
    assert (row["last_state"], row["consecutive_failures"]) == ("dead", 2)


async def test_a_run_that_was_to_be_cancelled_is_cancelled_when_its_worker_died(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, due_since=-60, consecutive_failures=1)
    run = await add_lost(connection, schedule, cancel_requested_at=seconds_ago(5))
    await reap_leases(connection, 60)
    assert (await desk.run(run))["state"] == "cancelled"
    assert (await desk.run(run))["finished_at"] is not None
    row = await desk.schedule(schedule)
    assert (row["last_state"], row["consecutive_failures"]) == ("cancelled", 1)


async def test_two_reapers_at_once_take_different_runs(connection: Connection, other: Connection, desk: Desk) -> None:
    for _ in range(20):
        await add_lost(connection)
    assert sum(await asyncio.gather(reap_leases(connection, 60), reap_leases(other, 60))) == 20
    assert await desk.states() == {"pending": 20}
    assert await connection.fetchval("select count(*) from job_run_events") == 20


# -------------------------------------------------------------------------------------------------------- lost messages


async def add_sent(connection: Connection, ago: float, **columns: Any) -> UUID:
    """A run that was sent `ago` seconds ago and that no worker has taken."""
    sent: dict[str, Any] = {"published_at": seconds_ago(ago), "publish_count": 1}
    return await add_run(connection, **(sent | columns))


async def add_taken(connection: Connection, ago: float, **columns: Any) -> UUID:
    """A run that was sent `ago` seconds ago and is being worked on."""
    at = seconds_ago(ago)
    return await add_lost(connection, published_at=at, attempt_started_at=at, lease_until=seconds_ago(-30), **columns)


async def test_a_message_that_later_ones_have_overtaken_is_sent_again(connection: Connection, desk: Desk) -> None:
    run = await add_sent(connection, 200)
    await add_taken(connection, 100)
    assert await republish_lost(connection, QUEUE_TIMEOUT) == Counter(republished=1, lost=0)
    row = await desk.run(run)
    assert (row["state"], row["reason"], row["relay_until"]) == ("pending", "republished", None)
    assert await waits(connection, run) <= 0
    assert await desk.events(run) == [("republished", "no worker had taken it")]


async def test_a_run_that_has_ended_since_is_evidence_as_good_as_one_under_way(
    connection: Connection, desk: Desk
) -> None:
    run = await add_sent(connection, 200)
    taken = await add_taken(connection, 100)
    await desk.update("job_runs", taken, "state = 'succeeded', finished_at = now(), lease_until = null")
    await republish_lost(connection, QUEUE_TIMEOUT)
    assert (await desk.run(run))["state"] == "pending"


async def test_a_message_that_is_merely_waiting_is_left_alone(connection: Connection, desk: Desk) -> None:
    waiting = await add_sent(connection, QUEUE_TIMEOUT - 20)
    await add_taken(connection, QUEUE_TIMEOUT)  # sent before
    await add_taken(connection, 10, queue="audio")  # of another queue
    assert await republish_lost(connection, QUEUE_TIMEOUT) == Counter()
    assert (await desk.run(waiting))["state"] == "queued"


async def test_runs_that_end_without_a_worker_do_not_show_that_a_queue_moves(
    connection: Connection, desk: Desk
) -> None:
    waiting = await add_sent(connection, 200, publish_count=keeper.REPUBLISH_LIMIT)
    for state in ("missed", "cancelled", "dead"):
        await add_sent(connection, 100, state=state, finished_at=seconds_ago(1))
    assert await republish_lost(connection, QUEUE_TIMEOUT) == Counter()
    assert (await desk.run(waiting))["state"] == "queued"


async def test_a_message_that_was_overtaken_too_often_is_dead_and_its_schedule_knows(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, due_since=-60)
    run = await add_sent(connection, 200, schedule_id=schedule, publish_count=keeper.REPUBLISH_LIMIT)
    await add_taken(connection, 100)
    assert await republish_lost(connection, QUEUE_TIMEOUT) == Counter(republished=0, lost=1)
    row = await desk.run(run)
    assert (row["state"], row["reason"]) == ("dead", "lost_in_broker")
    assert row["error"] == "published 5 times, and no worker ever got it"
    assert row["finished_at"] is not None
    assert await desk.events(run) == [("lost_in_broker", "published, and never taken")]
    remembered = await desk.schedule(schedule)
    assert (remembered["last_state"], remembered["consecutive_failures"]) == ("dead", 1)


@pytest.mark.parametrize(("count", "patience"), [(1, 600), (2, 1200), (3, 2400), (4, 3600), (50, 3600)])
async def test_a_message_without_a_sign_of_a_worker_is_sent_again_ever_more_rarely_and_never_dead(
    count: int, patience: int, connection: Connection, desk: Desk
) -> None:
    patient = await add_sent(connection, patience - 30, publish_count=count)
    assert not (await republish_lost(connection, QUEUE_TIMEOUT))["republished"]
    tried = await add_sent(connection, patience + 1, publish_count=count)
    assert (await republish_lost(connection, QUEUE_TIMEOUT))["republished"] == 1
    assert (await desk.run(patient))["state"] == "queued"
    assert (await desk.run(tried))["state"] == "pending"


# ----------------------------------------------------------------------------------------------------- nobody took them


async def test_a_run_that_nobody_took_in_time_is_missed(connection: Connection, desk: Desk) -> None:
    late = [
        await add_run(connection, None, state, expires_at=seconds_ago(1)) for state in ("waiting", "pending", "queued")
    ]
    kept = [
        await add_run(connection, expires_at=seconds_ago(-60)),
        await add_run(connection, None, "running", expires_at=seconds_ago(1)),
        await add_run(connection, None, "pending", expires_at=seconds_ago(1), attempt=1),
        await add_run(connection),
    ]
    before = [await desk.run(run) for run in kept]
    assert await expire_unclaimed(connection) == 3
    for run in late:
        row = await desk.run(run)
        assert (row["state"], row["reason"]) == ("missed", "expired")
        assert row["finished_at"] is not None
    assert [await desk.run(run) for run in kept] == before


async def test_an_expired_run_of_a_rare_schedule_is_an_incident_at_once(connection: Connection) -> None:
    rare = await add_schedule(connection, due_since=-86_000, every=86_400, alert_grace_seconds=900)
    frequent = await add_schedule(connection, due_since=-30, alert_grace_seconds=900)
    for schedule in (rare, frequent):
        await add_run(connection, schedule, expires_at=seconds_ago(1))
    await expire_unclaimed(connection)
    alerts = await connection.fetch("select schedule_id, kind from job_alerts")
    assert [tuple(alert) for alert in alerts] == [(rare, "missed")]


# ----------------------------------------------------------------------------------------------------------- admission


async def test_runs_that_share_a_key_are_let_in_up_to_its_limit(connection: Connection, desk: Desk) -> None:
    keyed: dict[str, Any] = {
        "overlap_policy": "allow",
        "misfire_policy": "run_all",
        "concurrency_key": "core-1",
        "concurrency_limit": 2,
    }
    first = await add_schedule(connection, due_since=130, **keyed)
    second = await add_schedule(connection, due_since=130, **keyed)
    assert (await claim_due(connection)).states == {"waiting": 6}
    assert {run["reason"] for run in await desk.runs()} == {"concurrency_key"}
    assert await admit_waiting(connection) == 2
    assert await desk.states() == {"pending": 2, "waiting": 4}
    assert await admit_waiting(connection) == 0
    # The oldest occurrence of each, since both came due together.
    assert [(await desk.states(schedule))["pending"] for schedule in (first, second)] == [1, 1]
    for state, admitted in (("queued", 0), ("running", 0), ("succeeded", 2)):
        await connection.execute("update job_runs set state = $1 where state in ('pending','queued','running')", state)
        assert await admit_waiting(connection) == admitted
    assert await desk.states() == {"succeeded": 2, "pending": 2, "waiting": 2}


async def test_a_key_without_a_run_under_way_lets_one_in_whatever_else_waits(connection: Connection) -> None:
    busy = {"concurrency_key": "core-1", "concurrency_limit": 1}
    await add_run(connection, None, "running", **busy)
    await add_run(connection, None, "waiting", **busy)
    await add_run(connection, None, "waiting", concurrency_key="core-2", concurrency_limit=1)
    assert await admit_waiting(connection) == 1


async def test_runs_of_one_schedule_that_wait_for_each_other_are_released_in_order(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, due_since=130, overlap_policy="queue_all", misfire_policy="run_all")
    assert (await claim_due(connection)).states == {"pending": 1, "waiting": 2}
    order = [run["id"] for run in await desk.runs(schedule)]
    assert await admit_waiting(connection) == 0
    for done, following in itertools.pairwise(order):
        await desk.update("job_runs", done, "state = 'succeeded', finished_at = now()")
        assert await admit_waiting(connection) == 1
        assert (await desk.run(following))["state"] == "pending"
        assert await waits(connection, following) <= 0
        assert await admit_waiting(connection) == 0


async def test_a_run_that_is_let_in_keeps_its_jitter(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection, None, "waiting", publish_after=seconds_ago(-60))
    assert await admit_waiting(connection) == 1
    assert 50 < await waits(connection, run) <= 60


async def test_a_run_that_waits_for_its_schedule_and_for_a_key_needs_both(connection: Connection, desk: Desk) -> None:
    schedule = await add_schedule(connection, due_since=-60)
    keyed = {"serial": True, "concurrency_key": "core-1", "concurrency_limit": 2}
    running = await add_run(connection, schedule, "running", **keyed)
    waiting = await add_run(connection, schedule, "waiting", **keyed)
    assert await admit_waiting(connection) == 0
    await desk.update("job_runs", running, "state = 'succeeded'")
    others = [await add_run(connection, None, "running", **keyed) for _ in range(2)]
    assert await admit_waiting(connection) == 0
    await desk.update("job_runs", others[0], "state = 'succeeded'")
    assert await admit_waiting(connection) == 1
    assert (await desk.run(waiting))["state"] == "pending"


async def test_two_that_let_in_at_once_do_not_count_the_same_room_twice(
    connection: Connection, other: Connection, desk: Desk
) -> None:
    for _ in range(5):
        await add_run(connection, None, "waiting", concurrency_key="core-1", concurrency_limit=2)
    async with connection.transaction():
        assert await admit_waiting(connection) == 2
        assert await asyncio.wait_for(admit_waiting(other), 5) == 0
    assert await admit_waiting(other) == 0
    assert await desk.states() == {"pending": 2, "waiting": 3}


# --------------------------------------------------------------------------------------------------------- old records


async def test_runs_that_ended_long_ago_are_deleted_with_their_events(connection: Connection, desk: Desk) -> None:
    old = await add_run(connection, None, "succeeded", finished_at=seconds_ago(91 * 86_400))
    recent = await add_run(connection, None, "dead", finished_at=seconds_ago(89 * 86_400))
    await keeper.record_events(connection, [(old, 1, "log", "a line"), (recent, 1, "log", "another")])
    assert await prune_runs(connection, 0) == 0
    assert await prune_runs(connection, 90) == 1
    assert [run["id"] for run in await desk.runs()] == [recent]
    assert await connection.fetchval("select count(*) from job_run_events") == 1


async def test_incidents_that_were_resolved_long_ago_are_deleted_and_open_ones_kept(connection: Connection) -> None:
    schedule = await add_schedule(connection, due_since=-60)
    long_ago = seconds_ago(91 * 86_400)
    for resolved in (long_ago, seconds_ago(60), None):
        await connection.execute(
            "insert into job_alerts (schedule_id, kind, expected_at, message, opened_at, resolved_at)"
            " values ($1, 'late', $2, '', $2, $3)",
            schedule,
            long_ago,
            resolved,
        )
    await prune_runs(connection, 90)
    left = await connection.fetch("select resolved_at from job_alerts order by id")
    assert [row["resolved_at"] is None for row in left] == [False, True]


async def test_a_run_that_has_not_ended_is_never_deleted(connection: Connection, desk: Desk) -> None:
    await add_run(connection, scheduled_for=seconds_ago(400 * 86_400), created_at=seconds_ago(400 * 86_400))
    assert await prune_runs(connection, 1) == 0
    assert timedelta(days=399) < seconds_ago(0) - (await desk.runs())[0]["created_at"]
