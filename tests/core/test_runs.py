"""Tracked runs: handlers under a lease, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from backend.core.errors import PermanentError, TransientError
from backend.core.runs import DatabaseAway, Limits, Tracker
from backend.scheduling.occurrences import Connection
from devstack.readiness import free_port
from tests.core.conftest import events, row
from tests.factories.schedules import add_run, add_schedule

LIMITS = Limits(attempts=3, seconds=30)
Handler = Callable[..., Coroutine[Any, Any, object]]


async def succeed(**arguments: object) -> object:
    return arguments


def failing(fault: Exception) -> Handler:
    async def fail() -> None:
        raise fault

    return fail


async def test_a_handler_gets_the_arguments_of_the_row_and_its_result_is_kept(
    tracker: Tracker, connection: Connection
) -> None:
    schedule = await add_schedule(connection, due_since=-60, consecutive_failures=2)
    run = await add_run(connection, schedule, arguments={"device": 7, "deep": {"a": [1]}})
    answer = await tracker.execute(run, "noop", succeed, LIMITS)
    assert (answer["run"], answer["state"], answer["attempt"]) == (str(run), "succeeded", 1)
    found = await row(connection, run)
    assert (found["state"], json.loads(found["result"])) == ("succeeded", {"device": 7, "deep": {"a": [1]}})
    assert (found["error"], found["reason"], found["lease_until"]) == (None, None, None)
    assert found["lease_owner"].endswith(f":{os.getpid()}")
    kept = await connection.fetchrow("select * from job_schedules where id = $1", schedule)
    assert kept is not None
    assert (kept["last_state"], kept["consecutive_failures"]) == ("succeeded", 0)


async def test_a_handler_without_a_result_succeeds_without_one(tracker: Tracker, connection: Connection) -> None:
    async def nothing() -> None:
        return None

    run = await add_run(connection)
    await tracker.execute(run, "noop", nothing, LIMITS)
    found = await row(connection, run)
    assert (found["state"], found["result"]) == ("succeeded", None)


async def test_a_result_that_json_does_not_know_is_kept_as_text(tracker: Tracker, connection: Connection) -> None:
    async def path() -> object:
        return {"file": Path("/tmp/x")}

    run = await add_run(connection)
    await tracker.execute(run, "noop", path, LIMITS)
    assert json.loads((await row(connection, run))["result"]) == {"file": "/tmp/x"}


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        ({"config": "a\x00b \\u0000"}, {"config": "a\ufffdb \\u0000"}),
        ({"name": "half \ud83d, whole \U0001f600"}, {"name": "half ?, whole \U0001f600"}),
        ({"mean": float("nan"), "most": float("inf")}, {"mean": "NaN", "most": "Infinity"}),
        ({("a", 1): 2}, "{('a', 1): 2}"),
    ],
)
async def test_a_result_that_the_database_cannot_hold_does_not_cost_the_run_its_success(
    result: object, kept: object, tracker: Tracker, connection: Connection
) -> None:
    async def work() -> object:
        return result

    run = await add_run(connection)
    await tracker.execute(run, "noop", work, LIMITS)
    found = await row(connection, run)
    assert (found["state"], json.loads(found["result"])) == ("succeeded", kept)


@pytest.mark.parametrize(("fault", "state"), [(PermanentError, "failed"), (TransientError, "pending")])
async def test_an_error_that_the_database_cannot_hold_is_kept_without_the_part(
    fault: type[Exception], state: str, tracker: Tracker, connection: Connection
) -> None:
    run = await add_run(connection)
    await tracker.execute(run, "noop", failing(fault("bad \x00 byte \ud83d")), LIMITS)
    found = await row(connection, run)
    assert (found["state"], found["error"]) == (state, f"{fault.__name__}: bad \ufffd byte ?")


@pytest.mark.parametrize(("length", "truncated"), [(65_534, False), (65_535, True)])
async def test_a_result_of_more_than_64_kib_is_cut(
    length: int, truncated: bool, tracker: Tracker, connection: Connection
) -> None:
    async def long() -> str:
        return "x" * length

    run = await add_run(connection)
    await tracker.execute(run, "noop", long, LIMITS)
    found = await row(connection, run)
    result = json.loads(found["result"])
    assert found["state"] == "succeeded"
    if truncated:
        assert result == {"truncated": True, "bytes": length + 2, "beginning": '"' + "x" * 1999}
    else:
        assert result == "x" * length


async def test_a_permanent_error_fails_the_run_at_once(tracker: Tracker, connection: Connection) -> None:
    run = await add_run(connection, max_attempts=5)
    answer = await tracker.execute(run, "noop", failing(PermanentError("no such device")), LIMITS)
    assert (answer["state"], answer["error"]) == ("failed", "PermanentError: no such device")
    found = await row(connection, run)
    assert (found["state"], found["reason"], found["error"]) == (
        "failed",
        "permanent",
        "PermanentError: no such device",
    )
    assert found["finished_at"] is not None


async def test_a_transient_error_is_tried_again_until_the_tries_are_used_up(
    tracker: Tracker, connection: Connection
) -> None:
    run = await add_run(connection)
    for attempt, (least, most) in enumerate([(0.0, 1.0), (0.5, 2.0)], 1):
        answer = await tracker.execute(run, "noop", failing(TransientError("API away")), LIMITS)
        assert (answer["state"], answer["attempt"]) == ("retry", attempt)
        found = await row(connection, run)
        assert (found["state"], found["reason"], found["error"]) == ("pending", "retry", "TransientError: API away")
        assert least < found["wait"] <= most
        await connection.execute("update job_runs set publish_after = now(), state = 'queued' where id = $1", run)
    answer = await tracker.execute(run, "noop", failing(TransientError("API away")), LIMITS)
    assert answer["state"] == "dead"
    found = await row(connection, run)
    assert (found["state"], found["reason"], found["attempt"]) == ("dead", "attempts_used_up", 3)
    story = await events(connection, run)
    assert [(event["kind"], event["attempt"]) for event in story] == [("attempt_failed", 1), ("attempt_failed", 2)]
    assert json.loads(story[0]["detail"])["reason"] == "transient"


async def test_the_other_sides_wish_and_the_schedules_delay_hold_a_retry_back(
    tracker: Tracker, connection: Connection
) -> None:
    wished = await add_run(connection)
    await tracker.execute(wished, "noop", failing(TransientError("busy", after=120)), LIMITS)
    assert 115 < (await row(connection, wished))["wait"] <= 120
    for attempt, most in ((1, 20.0), (2, 40.0), (9, 3600.0)):
        run = await add_run(connection, retry_delay_seconds=20.0, attempt=attempt - 1, max_attempts=10)
        await tracker.execute(run, "noop", failing(TransientError("busy")), LIMITS)
        assert most / 2 - 3 < (await row(connection, run))["wait"] <= most


async def test_the_schedules_number_of_tries_stands_above_the_tasks(tracker: Tracker, connection: Connection) -> None:
    single = await add_run(connection, max_attempts=1)
    await tracker.execute(single, "noop", failing(TransientError("away")), LIMITS)
    assert (await row(connection, single))["state"] == "dead"
    many = await add_run(connection, max_attempts=9, attempt=5)
    await tracker.execute(many, "noop", failing(TransientError("away")), LIMITS)
    assert (await row(connection, many))["state"] == "pending"


async def test_a_fault_of_the_code_is_tried_again_only_where_the_schedule_asks_for_tries(
    tracker: Tracker, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    once = await add_run(connection)
    await tracker.execute(once, "noop", failing(KeyError("color")), LIMITS)
    found = await row(connection, once)
    assert (found["state"], found["reason"], found["error"]) == ("failed", "error", "KeyError: 'color'")
    assert "Traceback" in caplog.text
    asked = await add_run(connection, max_attempts=2)
    await tracker.execute(asked, "noop", failing(RuntimeError()), LIMITS)
    found = await row(connection, asked)
    assert (found["state"], found["error"]) == ("pending", "RuntimeError")


async def test_a_lost_connection_in_a_handler_is_tried_again(tracker: Tracker, connection: Connection) -> None:
    run = await add_run(connection)
    await tracker.execute(run, "noop", failing(ConnectionResetError("gone")), LIMITS)
    assert (await row(connection, run))["state"] == "pending"


@pytest.mark.parametrize(
    ("limits", "columns"),
    [(Limits(1, 0.2), {}), (Limits(1, 0.2), {"timeout_seconds": 60}), (Limits(1, 9), {"timeout_seconds": 1})],
)
async def test_the_shorter_of_two_time_limits_stops_a_handler(
    limits: Limits, columns: dict[str, Any], tracker: Tracker, connection: Connection
) -> None:
    run = await add_run(connection, **columns)
    began = time.monotonic()
    await tracker.execute(run, "noop", lambda: asyncio.sleep(20), limits)
    assert time.monotonic() - began < 4
    found = await row(connection, run)
    seconds = "1" if columns.get("timeout_seconds") == 1 else "0.2"
    assert (found["state"], found["error"]) == ("dead", f"not done within {seconds} s")


async def test_celerys_own_time_limit_counts_as_a_timeout(tracker: Tracker, connection: Connection) -> None:
    run = await add_run(connection)

    async def cancelled_from_outside() -> None:
        raise asyncio.CancelledError

    assert (await tracker.execute(run, "noop", cancelled_from_outside, LIMITS))["state"] == "retry"
    assert (await row(connection, run))["error"] == "not done within 30 s"


async def test_a_handler_that_is_to_stop_is_stopped_within_seconds(tracker: Tracker, connection: Connection) -> None:
    run, let_go = await add_run(connection), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            let_go.set()

    under_way = asyncio.create_task(tracker.execute(run, "noop", work, LIMITS))
    await asyncio.sleep(0.2)
    await connection.execute("update job_runs set cancel_requested_at = now() where id = $1", run)
    answer = await asyncio.wait_for(under_way, 3.5)
    assert answer["state"] == "cancelled"
    assert let_go.is_set()
    found = await row(connection, run)
    assert (found["state"], found["reason"], found["error"]) == ("cancelled", "cancelled", None)


async def test_a_handler_that_fails_while_it_is_to_stop_is_cancelled_rather_than_tried_again(
    tracker: Tracker, connection: Connection
) -> None:
    run = await add_run(connection)

    async def work() -> None:
        await connection.execute("update job_runs set cancel_requested_at = now() where id = $1", run)
        raise TransientError("away")

    assert (await tracker.execute(run, "noop", work, LIMITS))["state"] == "cancelled"
    found = await row(connection, run)
    assert (found["state"], found["error"]) == ("cancelled", "TransientError: away")


async def test_the_lease_of_a_long_run_is_renewed(hasty: Tracker, connection: Connection) -> None:
    run = await add_run(connection)
    answer = await hasty.execute(run, "noop", lambda: asyncio.sleep(2.2, "done"), LIMITS)
    assert answer["state"] == "succeeded"
    assert (await row(connection, run))["epoch"] == 1


async def test_a_handler_whose_run_was_taken_over_is_abandoned_and_records_nothing(
    hasty: Tracker, connection: Connection
) -> None:
    run, ended = await add_run(connection), asyncio.Event()

    async def work() -> None:
        await connection.execute("update job_runs set epoch = epoch + 1, lease_owner = 'w2' where id = $1", run)
        before.append(await row(connection, run))
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    before: list[Any] = []
    assert await asyncio.wait_for(hasty.execute(run, "noop", work, LIMITS), 5) == {
        "run": str(run),
        "state": "fenced",
        "attempt": 1,
    }
    assert ended.is_set()
    found = await row(connection, run)
    assert {**found, "wait": 0} == {**before[0], "wait": 0}


@pytest.mark.parametrize("fault", [None, TransientError("away"), PermanentError("never")])
async def test_what_a_handler_says_after_its_run_was_taken_over_counts_for_nothing(
    fault: Exception | None, tracker: Tracker, connection: Connection
) -> None:
    run = await add_run(connection)

    async def work() -> str:
        await connection.execute("update job_runs set epoch = epoch + 1, lease_owner = 'w2' where id = $1", run)
        if fault is not None:
            raise fault
        return "stale"

    assert (await tracker.execute(run, "noop", work, LIMITS))["state"] == "fenced"
    found = await row(connection, run)
    assert (found["state"], found["lease_owner"], found["result"], found["error"]) == ("running", "w2", None, None)


async def test_a_message_of_no_run_of_an_ended_run_or_of_another_task_does_nothing(
    tracker: Tracker, connection: Connection
) -> None:
    worked: list[int] = []

    async def work() -> None:
        worked.append(1)

    unknown = uuid4()
    assert await tracker.execute(unknown, "noop", work, LIMITS) == {
        "run": str(unknown),
        "state": "not_run",
        "why": "there is no such run",
    }
    run = await add_run(connection)
    assert (await tracker.execute(run, "transcribe_recording", work, LIMITS))["state"] == "not_run"
    assert not worked
    assert (await tracker.execute(run, "noop", work, LIMITS))["state"] == "succeeded"
    before = await connection.fetchrow("select * from job_runs where id = $1", run)
    second = await tracker.execute(run, "noop", work, LIMITS)
    assert (second["state"], second["why"]) == ("not_run", "it is succeeded, a run of noop")
    assert await connection.fetchrow("select * from job_runs where id = $1", run) == before
    assert worked == [1]


async def test_a_run_that_cannot_be_claimed_for_a_whole_lease_goes_back_to_the_broker() -> None:
    tracker = Tracker(f"postgresql://nobody@127.0.0.1:{free_port()}/none", 0.5)
    with pytest.raises(DatabaseAway):
        await tracker.execute(uuid4(), "noop", succeed, LIMITS)
    await tracker.close()


async def test_a_run_whose_connections_were_cut_meanwhile_is_recorded_all_the_same(
    tracker: Tracker, connection: Connection
) -> None:
    async def work() -> str:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'beatline-runs'"
        )
        return "done"

    run = await add_run(connection)
    assert (await tracker.execute(run, "noop", work, LIMITS))["state"] == "succeeded"
    assert json.loads((await row(connection, run))["result"]) == "done"
