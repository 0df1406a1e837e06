"""Claiming due schedules on a real PostgreSQL: what is written, what never twice, and what a bad row does to the others."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from backend.scheduling.dispatcher import BATCH, DEFER_SECONDS, claim_due, clock_offset, seconds_until_due
from backend.scheduling.occurrences import Connection, run_id
from backend.scheduling.publisher import Message
from tests.factories.schedules import add_cron, add_run, add_schedule, seconds_ago
from tests.scheduling.conftest import Desk


async def test_a_due_schedule_becomes_a_pending_run_and_moves_on(connection: Connection, desk: Desk) -> None:
    schedule = await add_schedule(
        connection,
        due_since=10,
        name="nightly",
        task="sleep",
        queue="low_priority",
        arguments={"seconds": 3},
        max_attempts=4,
        retry_delay_seconds=2.5,
        timeout_seconds=90,
        expires_seconds=120,
    )
    due = (await desk.schedule(schedule))["next_run"]
    claimed = await claim_due(connection)
    assert (claimed.schedules, claimed.states, claimed.started) == (1, {"pending": 1}, [("nightly", "sleep")])
    (run,) = await desk.runs(schedule)
    assert run["id"] == run_id(schedule, due)
    assert (run["scheduled_for"], run["trigger"], run["triggered_by"]) == (due, "schedule", "schedule")
    assert (run["task"], run["queue"], json.loads(run["arguments"])) == ("sleep", "low_priority", {"seconds": 3})
    assert (run["max_attempts"], run["retry_delay_seconds"], run["timeout_seconds"]) == (4, 2.5, 90)
    assert run["expires_at"] == run["publish_after"] + timedelta(seconds=120)
    after = await desk.schedule(schedule)
    assert (after["next_run"], after["last_run"], after["run_count"]) == (due + timedelta(seconds=60), due, 1)


async def test_a_paused_schedule_and_one_in_the_future_are_left_alone(connection: Connection, desk: Desk) -> None:
    await add_schedule(connection, due_since=10, is_active=False)
    await add_schedule(connection, due_since=-30)
    await add_schedule(connection, next_run=None)
    assert (await claim_due(connection)).schedules == 0
    assert await desk.runs() == []


async def test_a_run_without_a_mark_of_the_claimer_is_left_to_any_relay(connection: Connection, desk: Desk) -> None:
    schedule = await add_schedule(connection)
    assert (await claim_due(connection)).messages == []
    assert (await desk.runs(schedule))[0]["relay_until"] is None


async def test_a_claimer_that_publishes_keeps_its_runs_from_every_relay(connection: Connection, desk: Desk) -> None:
    schedule = await add_schedule(connection, task="sleep", queue="low_priority")
    claimed = await claim_due(connection, relay_seconds=15)
    (run,) = await desk.runs(schedule)
    assert claimed.messages == [Message(run["id"], "sleep", "low_priority")]
    assert timedelta(seconds=14) < run["relay_until"] - run["created_at"] < timedelta(seconds=16)


async def test_jitter_holds_the_message_back_and_leaves_the_instant_as_it_is(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, jitter_seconds=100_000)
    due = (await desk.schedule(schedule))["next_run"]
    assert (await claim_due(connection, relay_seconds=15)).messages == []
    (run,) = await desk.runs(schedule)
    assert run["scheduled_for"] == due
    assert due < run["publish_after"] <= due + timedelta(seconds=100_000)
    assert run["relay_until"] is None


async def test_a_backlog_of_more_than_a_hundred_is_told_in_a_hundred_and_one_rows(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, due_since=59_990, every=60, misfire_grace_seconds=120)
    claimed = await claim_due(connection)
    assert claimed.states == {"missed": 98 + 1, "coalesced": 1, "pending": 1}
    runs = await desk.runs(schedule)
    assert len(runs) == 101
    assert sum(run["occurrences"] for run in runs) == 1000
    (range_row,) = [run for run in runs if run["covers_from"] is not None]
    assert (range_row["occurrences"], range_row["reason"]) == (900, "too_late")
    assert range_row["scheduled_for"] - range_row["covers_from"] == timedelta(seconds=899 * 60)
    assert all(run["finished_at"] is not None for run in runs if run["state"] != "pending")


async def test_a_single_run_is_over_once_it_has_run(connection: Connection, desk: Desk) -> None:
    schedule = await add_schedule(
        connection, schedule_type="once", run_at=seconds_ago(1), interval_seconds=None, anchor=None
    )
    await desk.update("job_schedules", schedule, "next_run = run_at")
    await claim_due(connection)
    assert await desk.states(schedule) == {"pending": 1}
    assert (await desk.schedule(schedule))["next_run"] is None
    assert (await claim_due(connection)).schedules == 0


async def test_an_occurrence_that_is_claimed_again_is_not_written_again(connection: Connection, desk: Desk) -> None:
    schedule = await add_schedule(connection, due_since=130, overlap_policy="allow")
    due = (await desk.schedule(schedule))["next_run"]
    await claim_due(connection)
    before = await desk.runs(schedule)
    assert len(before) == 3
    await connection.execute("update job_schedules set next_run = $2 where id = $1", schedule, due)
    claimed = await claim_due(connection)
    assert (claimed.schedules, claimed.states, claimed.messages) == (1, {}, [])
    assert await desk.runs(schedule) == before


async def test_a_run_for_the_same_instant_that_somebody_asked_for_is_another_run(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, due_since=5)
    due = (await desk.schedule(schedule))["next_run"]
    await add_run(connection, schedule, "succeeded", scheduled_for=due)
    await claim_due(connection)
    assert await desk.states(schedule) == {"succeeded": 1, "pending": 1}


async def test_two_claimers_at_once_take_different_schedules(
    connection: Connection, other: Connection, desk: Desk
) -> None:
    for age in range(10):
        await add_schedule(connection, due_since=age + 1)
    async with connection.transaction():
        first = await claim_due(connection, limit=4)
        second = await asyncio.wait_for(claim_due(other), 5)
        assert (first.schedules, second.schedules) == (4, 6)
        assert (await claim_due(other)).schedules == 0
    runs = await desk.runs()
    assert len(runs) == len({run["schedule_id"] for run in runs}) == 10


async def test_a_claim_that_is_rolled_back_leaves_everything_to_the_next(
    connection: Connection, other: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection)
    before = await desk.schedule(schedule)
    transaction = connection.transaction()
    await transaction.start()
    assert (await claim_due(connection)).states == {"pending": 1}
    await transaction.rollback()
    assert await desk.schedule(schedule) == before
    assert await desk.runs() == []
    assert (await claim_due(other)).states == {"pending": 1}


async def test_a_claim_does_not_wait_for_somebody_who_asks_for_a_run_now(
    connection: Connection, other: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection)
    async with other.transaction():
        await add_run(other, schedule, "pending")
        claimed = await asyncio.wait_for(claim_due(connection), 5)
    assert claimed.schedules == 1


async def test_a_batch_is_as_large_as_asked_and_takes_the_oldest_first(connection: Connection, desk: Desk) -> None:
    newest = await add_schedule(connection, due_since=1)
    oldest = await add_schedule(connection, due_since=9)
    claimed = await claim_due(connection, limit=1)
    assert (claimed.schedules, claimed.full) == (1, False)
    assert [run["schedule_id"] for run in await desk.runs()] == [oldest]
    assert (await claim_due(connection)).schedules == 1
    assert (await desk.runs(newest))[0]["state"] == "pending"


async def test_a_full_batch_says_that_there_may_be_more(connection: Connection) -> None:
    await connection.execute(
        "insert into job_schedules (name, task, queue, schedule_type, interval_seconds, anchor, next_run)"
        " select 's' || n, 'noop', 'default', 'interval', 60, now(), now() from generate_series(1, $1::int) n",
        BATCH + 1,
    )
    assert (await claim_due(connection)).full
    assert not (await claim_due(connection)).full


BAD_ROWS = {
    "a cron expression that is none": {"schedule_type": "cron", "cron_expression": "every day at noon"},
    "a cron expression out of range": {"schedule_type": "cron", "cron_expression": "61 * * * *"},
    "an empty cron expression": {"schedule_type": "cron", "cron_expression": ""},
    "an unknown zone": {"schedule_type": "cron", "cron_expression": "0 * * * *", "timezone": "Mars/Olympus"},
    "no zone": {"schedule_type": "cron", "cron_expression": "0 * * * *", "timezone": ""},
    "an interval that is no number": {"interval_seconds": float("nan")},
    "an interval without end": {"interval_seconds": float("inf")},
    "too many runs for the database": {"run_count": 2_147_483_647},
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS.keys())
async def test_a_bad_row_is_put_off_alone(
    bad: dict[str, Any], connection: Connection, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    good = [await add_schedule(connection, due_since=5 + number) for number in range(5)]
    broken = await add_schedule(connection, due_since=5, name="broken", **bad)
    good += [await add_schedule(connection, due_since=number) for number in range(5)]
    before = await desk.schedule(broken)
    with caplog.at_level(logging.ERROR):
        claimed = await claim_due(connection, relay_seconds=15)
    assert claimed.states == {"pending": 10}
    assert len(claimed.messages) == 10
    assert [len(await desk.runs(schedule)) for schedule in good] == [1] * 10
    assert await desk.runs(broken) == []
    after = await desk.schedule(broken)
    assert after["last_error"]
    assert (after["next_run"], after["run_count"]) == (before["next_run"], before["run_count"])
    left: float = await connection.fetchval(
        "select extract(epoch from deferred_until - now())::float8 from job_schedules where id = $1", broken
    )
    assert DEFER_SECONDS - 10 < left <= DEFER_SECONDS
    assert f"schedule {broken} (" in caplog.text
    assert (await claim_due(connection)).schedules == 0


IMPOSSIBLE = (
    "next_run = '0044-03-15 BC'",
    "next_run = '-infinity'",
    "end_at = '20000-01-01'",
    "end_at = 'infinity'",
    "anchor = '4000-01-01 BC'",
    "schedule_type = 'once', run_at = '20000-01-01'",
)


@pytest.mark.parametrize("change", IMPOSSIBLE)
async def test_the_database_refuses_an_instant_that_python_cannot_hold(
    change: str, connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, due_since=5)
    with pytest.raises(asyncpg.CheckViolationError, match="instants"):
        await desk.update("job_schedules", schedule, change)


async def test_a_schedule_that_was_put_off_comes_back_and_forgets_its_fault(connection: Connection, desk: Desk) -> None:
    schedule = await add_cron(connection, "nonsense", due_since=30)
    await claim_due(connection)
    await desk.update("job_schedules", schedule, "deferred_until = now() - interval '1 s'")
    await claim_due(connection)
    assert (await desk.schedule(schedule))["deferred_until"] > seconds_ago(0)
    await desk.update("job_schedules", schedule, "deferred_until = now(), cron_expression = '* * * * *'")
    assert (await claim_due(connection)).schedules == 1
    after = await desk.schedule(schedule)
    assert (after["last_error"], after["deferred_until"]) == (None, None)
    assert after["next_run"] > seconds_ago(0)


async def test_cancelling_the_previous_run_stops_what_waits_and_asks_what_works(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, overlap_policy="cancel_previous")
    running = await add_run(connection, schedule, "running", scheduled_for=seconds_ago(9))
    queued = await add_run(connection, schedule, "queued", scheduled_for=seconds_ago(8))
    await claim_due(connection)
    asked, stopped = await desk.run(running), await desk.run(queued)
    assert (asked["state"], asked["reason"], asked["finished_at"]) == ("running", "cancelled_by_next", None)
    assert asked["cancel_requested_at"] is not None
    assert (stopped["state"], stopped["reason"]) == ("cancelled", "cancelled_by_next")
    assert stopped["finished_at"] is not None
    newest = (await desk.runs(schedule))[-1]
    assert (newest["state"], newest["blocked_by"], newest["serial"]) == ("waiting", queued, True)


async def test_a_run_that_is_being_finished_does_not_hold_up_the_one_that_cancels_it(
    connection: Connection, other: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection, overlap_policy="cancel_previous")
    running = await add_run(connection, schedule, "running", scheduled_for=seconds_ago(9))
    async with other.transaction():
        await other.execute("update job_runs set state = 'succeeded' where id = $1", running)
        claimed = await asyncio.wait_for(claim_due(connection), 5)
    assert claimed.states == {"waiting": 1}
    assert (await desk.run(running))["state"] == "succeeded"


@pytest.mark.parametrize("state", ["waiting", "pending", "queued", "running"])
async def test_an_occurrence_is_skipped_while_a_run_is_under_way_and_says_for_which(
    state: str, connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(connection)
    under_way = await add_run(connection, schedule, state, scheduled_for=seconds_ago(9))
    assert (await claim_due(connection)).states == {"skipped": 1}
    skipped = (await desk.runs(schedule))[-1]
    assert (skipped["reason"], skipped["blocked_by"]) == ("overlap", under_way)
    assert skipped["finished_at"] is not None
    assert (await desk.schedule(schedule))["run_count"] == 0


@pytest.mark.parametrize("state", ["succeeded", "failed", "dead", "cancelled", "missed", "skipped", "coalesced"])
async def test_a_run_that_has_ended_holds_up_nothing(state: str, connection: Connection) -> None:
    schedule = await add_schedule(connection)
    await add_run(connection, schedule, state, scheduled_for=seconds_ago(9))
    assert (await claim_due(connection)).states == {"pending": 1}


async def test_a_backfill_that_waits_holds_up_no_occurrence(connection: Connection) -> None:
    schedule = await add_schedule(connection)
    await add_run(connection, schedule, "waiting", trigger="backfill", scheduled_for=seconds_ago(9))
    assert (await claim_due(connection)).states == {"pending": 1}


async def test_the_wait_until_the_next_schedule_goes_by_the_databases_clock(connection: Connection) -> None:
    assert await seconds_until_due(connection) is None
    await add_schedule(connection, due_since=-20)
    await add_schedule(connection, due_since=100, is_active=False)
    await add_schedule(connection, due_since=90, deferred_until=seconds_ago(-60))
    wait = await seconds_until_due(connection)
    assert wait is not None
    assert 15 < wait <= 20
    await add_schedule(connection, due_since=7)
    wait = await seconds_until_due(connection)
    assert wait is not None
    assert -12 < wait <= -7


async def test_the_clocks_of_this_machine_and_its_database_agree(connection: Connection) -> None:
    assert abs((await clock_offset(connection)).total_seconds()) < 1
