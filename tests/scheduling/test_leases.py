"""Claiming, renewing and finishing a run on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from backend.scheduling import leases
from backend.scheduling.leases import Claim
from backend.scheduling.occurrences import Connection
from tests.factories.schedules import add_run, add_schedule, seconds_ago
from tests.scheduling.conftest import Desk


async def claim(connection: Connection, run: UUID, task: str = "noop", owner: str = "w1") -> Claim | None:
    return await leases.claim(connection, run, task, owner=owner, lease_seconds=60, lost_attempts=3)


async def claimed(connection: Connection, run: UUID, owner: str = "w1") -> Claim:
    found = await claim(connection, run, owner=owner)
    assert found is not None
    return found


async def lapse(desk: Desk, run: UUID) -> None:
    await desk.update("job_runs", run, "lease_until = now() - interval '1 ms'")


async def test_a_claim_hands_over_what_the_row_says(connection: Connection, desk: Desk) -> None:
    at = seconds_ago(5)
    run = await add_run(
        connection,
        name="nightly",
        arguments={"seconds": 3},
        max_attempts=4,
        retry_delay_seconds=2.5,
        timeout_seconds=90,
        scheduled_for=at,
        reason="republished",
        relay_until=seconds_ago(-5),
    )
    got = await claimed(connection, run)
    assert (got.id, got.epoch, got.attempt, json.loads(got.arguments)) == (run, 1, 1, {"seconds": 3})
    assert (got.max_attempts, got.retry_delay_seconds, got.timeout_seconds) == (4, 2.5, 90)
    assert (got.name, got.scheduled_for) == ("nightly", at)
    row = await desk.run(run)
    assert (row["state"], row["lease_owner"], row["reason"], row["relay_until"]) == ("running", "w1", None, None)
    assert row["lease_until"] - row["started_at"] == timedelta(seconds=60)
    assert row["attempt_started_at"] == row["started_at"]


async def test_a_second_delivery_gets_nothing_while_the_first_one_works(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection)
    await claimed(connection, run)
    assert await claim(connection, run, owner="w2") is None
    assert (await desk.run(run))["lease_owner"] == "w1"
    assert await leases.why_not(connection, run) == "it is running, a run of noop"


async def test_two_deliveries_at_once_become_one_claim(connection: Connection, other: Connection) -> None:
    run = await add_run(connection)
    both = await asyncio.gather(claim(connection, run, owner="w1"), claim(other, run, owner="w2"))
    assert sum(one is not None for one in both) == 1


async def test_a_message_that_arrives_before_its_run_is_marked_as_queued_is_served(connection: Connection) -> None:
    assert (await claimed(connection, await add_run(connection, None, "pending"))).epoch == 1


async def test_a_message_of_an_earlier_attempt_does_not_start_the_next_one_before_its_time(
    connection: Connection,
) -> None:
    run = await add_run(connection, None, "pending", attempt=1, publish_after=seconds_ago(-30))
    assert await claim(connection, run) is None


async def test_after_the_lease_has_run_out_another_takes_over_and_the_first_is_fenced(
    connection: Connection, desk: Desk
) -> None:
    run = await add_run(connection)
    first = await claimed(connection, run)
    await lapse(desk, run)
    second = await claimed(connection, run, owner="w2")
    assert (second.epoch, second.attempt) == (2, 2)
    assert not await leases.finish(connection, first, "failed", error="stale")
    assert not await leases.retry_later(connection, first, 1.0, "stale", "{}")
    row = await desk.run(run)
    assert (row["state"], row["error"], row["lease_owner"]) == ("running", None, "w2")
    assert await leases.finish(connection, second, "succeeded", result='{"n": 1}')
    row = await desk.run(run)
    assert (row["state"], json.loads(row["result"]), row["lease_until"]) == ("succeeded", {"n": 1}, None)


async def test_a_run_that_the_reaper_would_bury_is_not_claimed_after_its_lease(
    connection: Connection, desk: Desk
) -> None:
    run = await add_run(connection, attempt=2)
    await claimed(connection, run)
    await lapse(desk, run)
    assert await claim(connection, run, owner="w2") is None
    single = await add_run(connection, max_attempts=1)
    await claimed(connection, single)
    await lapse(desk, single)
    assert await claim(connection, single, owner="w2") is None


async def test_a_message_for_another_task_than_the_rows_is_refused(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection)
    assert await claim(connection, run, task="transcribe_recording") is None
    assert (await desk.run(run))["state"] == "queued"
    assert await leases.why_not(connection, run) == "it is queued, a run of noop"


async def test_a_run_that_has_expired_is_not_started(connection: Connection) -> None:
    assert await claim(connection, await add_run(connection, expires_at=seconds_ago(1))) is None
    assert await claim(connection, await add_run(connection, expires_at=seconds_ago(-60))) is not None


async def test_a_run_that_was_started_in_time_may_be_tried_again_after_its_expiry(connection: Connection) -> None:
    again = await add_run(connection, None, "pending", expires_at=seconds_ago(1), attempt=1)
    assert (await claimed(connection, again)).attempt == 2


async def test_a_run_that_is_to_be_cancelled_is_not_started(connection: Connection) -> None:
    assert await claim(connection, await add_run(connection, cancel_requested_at=seconds_ago(1))) is None


@pytest.mark.parametrize(
    "state", ["waiting", "succeeded", "failed", "dead", "cancelled", "missed", "skipped", "coalesced"]
)
async def test_a_run_in_any_other_state_is_not_started(state: str, connection: Connection) -> None:
    run = await add_run(connection, None, state, reason="said")
    assert await claim(connection, run) is None
    assert await leases.why_not(connection, run) == f"it is {state} (said), a run of noop"


async def test_a_message_of_no_run_is_explained(connection: Connection) -> None:
    unknown = uuid4()
    assert await claim(connection, unknown) is None
    assert await leases.why_not(connection, unknown) == "there is no such run"


async def test_renewing_extends_the_lease_of_what_is_still_ours_and_tells_what_is_to_stop(
    connection: Connection, desk: Desk
) -> None:
    ours, lost, stopping, done = [await claimed(connection, await add_run(connection)) for _ in range(4)]
    await lapse(desk, ours.id)
    await lapse(desk, lost.id)
    await claimed(connection, lost.id, owner="w2")
    await desk.update("job_runs", stopping.id, "cancel_requested_at = now()")
    await leases.finish(connection, done, "succeeded")
    claims = [ours, lost, stopping, done]
    assert await leases.check(connection, claims) == {ours.id: False, stopping.id: True}
    assert (await desk.run(ours.id))["lease_until"] < seconds_ago(0)
    assert await leases.renew(connection, claims, 120) == {ours.id: False, stopping.id: True}
    assert seconds_ago(-110) < (await desk.run(ours.id))["lease_until"] < seconds_ago(-121)


async def remembered(desk: Desk, connection: Connection, state: str, **columns: Any) -> Any:
    schedule = await add_schedule(connection, due_since=-300, alert_grace_seconds=60, **columns)
    got = await claimed(connection, await add_run(connection, schedule))
    assert await leases.finish(connection, got, state, reason="why", error="what")
    row = await desk.run(got.id)
    assert (row["state"], row["reason"], row["error"]) == (state, "why", "what")
    assert row["finished_at"] is not None
    return await desk.schedule(schedule)


async def test_a_success_is_remembered_and_moves_the_alert_behind_the_next_run(
    connection: Connection, desk: Desk
) -> None:
    schedule = await remembered(desk, connection, "succeeded", consecutive_failures=3, alert_after=seconds_ago(1))
    assert (schedule["last_state"], schedule["consecutive_failures"]) == ("succeeded", 0)
    assert schedule["last_success_at"] == schedule["last_finished_at"] is not None
    assert schedule["alert_after"] == schedule["next_run"] + timedelta(seconds=60)


@pytest.mark.parametrize("state", ["failed", "dead"])
async def test_a_failure_is_counted_and_leaves_the_alert_where_it_is(
    state: str, connection: Connection, desk: Desk
) -> None:
    alert, success = seconds_ago(-30), seconds_ago(900)
    schedule = await remembered(
        desk, connection, state, consecutive_failures=3, alert_after=alert, last_success_at=success
    )
    assert (schedule["last_state"], schedule["consecutive_failures"]) == (state, 4)
    assert (schedule["alert_after"], schedule["last_success_at"]) == (alert, success)
    assert schedule["last_finished_at"] > success


async def test_a_cancelled_run_is_no_failure(connection: Connection, desk: Desk) -> None:
    schedule = await remembered(desk, connection, "cancelled", consecutive_failures=3)
    assert (schedule["last_state"], schedule["consecutive_failures"]) == ("cancelled", 3)


async def test_a_success_of_a_paused_schedule_announces_nothing(connection: Connection, desk: Desk) -> None:
    assert (await remembered(desk, connection, "succeeded", is_active=False))["alert_after"] is None


async def test_a_failed_attempt_goes_back_for_later_with_its_story(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection)
    got = await claimed(connection, run)
    assert await leases.retry_later(connection, got, 30.0, "the API is away", '{"worker": "w1"}')
    row = await desk.one("select *, publish_after - now() as wait from job_runs where id = $1", run)
    assert (row["state"], row["reason"], row["error"]) == ("pending", "retry", "the API is away")
    assert (row["lease_until"], row["attempt"], row["finished_at"]) == (None, 1, None)
    assert timedelta(seconds=27) < row["wait"] <= timedelta(seconds=30)
    event = await desk.one("select * from job_run_events where run_id = $1", run)
    assert (event["kind"], event["attempt"], event["message"]) == ("attempt_failed", 1, "the API is away")
    assert json.loads(event["detail"]) == {"worker": "w1"}


async def test_a_run_that_is_to_be_cancelled_is_not_put_back(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection)
    got = await claimed(connection, run)
    await desk.update("job_runs", run, "cancel_requested_at = now()")
    assert not await leases.retry_later(connection, got, 30.0, "away", "{}")
    assert (await desk.run(run))["state"] == "running"
    assert await desk.events(run) == []


async def test_lines_are_kept_with_their_instant_and_those_of_a_deleted_run_are_dropped(
    connection: Connection, desk: Desk
) -> None:
    run, gone, at = await add_run(connection), uuid4(), seconds_ago(60)
    await leases.record_log(connection, [(run, 2, "WARNING", "slow", at), (gone, 1, "INFO", "lost", at)])
    (line,) = await connection.fetch("select * from job_run_events")
    assert (line["run_id"], line["attempt"], line["kind"]) == (run, 2, "log")
    assert (line["level"], line["message"], line["at"]) == ("WARNING", "slow", at)
