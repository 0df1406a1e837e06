"""Incidents of schedules, and the one notification each."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from backend.scheduling import leases
from backend.scheduling.alerts import open_missed, watch_deadlines
from backend.scheduling.dispatcher import claim_due
from backend.scheduling.occurrences import Connection
from tests.factories.schedules import add_cron, add_run, add_schedule, seconds_ago
from tests.scheduling.conftest import Desk


async def alerts(connection: Connection) -> list[Any]:
    return await connection.fetch("select * from job_alerts order by id")


async def notifications(connection: Connection) -> list[tuple[int, str]]:
    """(alert, event) of every notification's run."""
    rows = await connection.fetch("select * from job_runs where task = 'send_job_alert' order by created_at")
    assert all((row["trigger"], row["queue"], row["state"]) == ("alert", "default", "pending") for row in rows)
    told = [json.loads(row["arguments"]) for row in rows]
    return [(one["alert_id"], one["event"]) for one in told]


async def add_overdue(connection: Connection, **columns: Any) -> int:
    """A schedule that was to have succeeded by now."""
    overdue: dict[str, Any] = {"due_since": -60, "alert_grace_seconds": 30, "alert_after": seconds_ago(1)}
    return await add_schedule(connection, **(overdue | columns))


async def succeed(connection: Connection, schedule: int) -> None:
    run = await add_run(connection, schedule)
    got = await leases.claim(connection, run, "noop", owner="w", lease_seconds=60, lost_attempts=3)
    assert got is not None
    await leases.finish(connection, got, "succeeded")


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        ("pending", "late", "the last run is not sent yet"),
        ("queued", "late", "the last run is sent and no worker has taken it"),
        ("waiting", "late", "the last run waits for another"),
        ("running", "late", "the last run is running"),
        ("failed", "failing", "the last run failed, 3 in a row"),
        ("dead", "failing", "the last run dead, 3 in a row"),
        ("missed", "missed", "the last occurrence was missed"),
    ],
)
async def test_an_incident_says_how_the_last_run_stands(
    state: str, kind: str, message: str, connection: Connection
) -> None:
    schedule = await add_overdue(connection, consecutive_failures=3)
    at = seconds_ago(40)
    await add_run(connection, schedule, state, scheduled_for=at, created_at=seconds_ago(30))
    await add_run(connection, schedule, "skipped")
    assert await watch_deadlines(connection) == 1
    (alert,) = await alerts(connection)
    assert (alert["schedule_id"], alert["kind"], alert["message"]) == (schedule, kind, message)
    assert (alert["expected_at"], alert["resolved_at"]) == (at, None)
    assert await notifications(connection) == [(alert["id"], "opened")]


async def test_a_schedule_that_never_ran_is_late(connection: Connection, desk: Desk) -> None:
    schedule = await add_overdue(connection)
    await watch_deadlines(connection)
    (alert,) = await alerts(connection)
    assert (alert["kind"], alert["message"]) == ("late", "no run has started yet")
    assert alert["expected_at"] == (await desk.schedule(schedule))["next_run"]


async def test_a_schedule_that_cannot_be_computed_is_late_and_says_why(connection: Connection) -> None:
    await add_cron(connection, "nonsense", due_since=60, alert_after=seconds_ago(1), alert_grace_seconds=30)
    await claim_due(connection)
    assert await watch_deadlines(connection) == 1
    (alert,) = await alerts(connection)
    assert alert["kind"] == "late"
    assert alert["message"].startswith("its next run cannot be computed: ")


async def test_a_schedule_in_time_a_paused_one_and_one_without_a_deadline_open_nothing(connection: Connection) -> None:
    await add_overdue(connection, alert_after=seconds_ago(-5))
    await add_overdue(connection, is_active=False)
    await add_overdue(connection, alert_after=None)
    assert await watch_deadlines(connection) == 0
    assert await alerts(connection) == []
    assert await notifications(connection) == []


async def test_an_incident_is_one_however_often_it_is_seen(connection: Connection, desk: Desk) -> None:
    schedule = await add_overdue(connection)
    for _ in range(3):
        await watch_deadlines(connection)
        await open_missed(connection, schedule, seconds_ago(5), 1)
        await desk.update("job_schedules", schedule, "alert_after = now()")
    assert len(await alerts(connection)) == 1
    assert len(await notifications(connection)) == 1


async def test_two_that_watch_at_once_open_each_incident_once(connection: Connection, other: Connection) -> None:
    schedules = {await add_overdue(connection) for _ in range(20)}
    opened = await asyncio.gather(watch_deadlines(connection), watch_deadlines(other))
    assert sum(opened) == 20
    assert {alert["schedule_id"] for alert in await alerts(connection)} == schedules
    assert len(await notifications(connection)) == 20


async def test_a_success_resolves_an_incident_once_and_sets_the_next_deadline(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_overdue(connection)
    await watch_deadlines(connection)
    assert (await desk.schedule(schedule))["alert_after"] is None
    await watch_deadlines(connection)
    assert len(await notifications(connection)) == 1
    await succeed(connection, schedule)
    for _ in range(3):
        await watch_deadlines(connection)
    (alert,) = await alerts(connection)
    assert alert["resolved_at"] > alert["opened_at"]
    assert await notifications(connection) == [(alert["id"], "opened"), (alert["id"], "resolved")]
    after = await desk.schedule(schedule)
    assert after["alert_after"] == after["next_run"] + timedelta(seconds=30)


async def test_a_schedule_that_breaks_again_after_its_recovery_is_a_new_incident(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_overdue(connection)
    await watch_deadlines(connection)
    await succeed(connection, schedule)
    await watch_deadlines(connection)
    await desk.update("job_schedules", schedule, "alert_after = now()")
    assert await watch_deadlines(connection) == 1
    first, second = await alerts(connection)
    assert (first["resolved_at"] is None, second["resolved_at"] is None) == (False, True)
    assert [event for _, event in await notifications(connection)] == ["opened", "resolved", "opened"]


async def test_occurrences_missed_by_a_rare_schedule_are_an_incident_at_once(connection: Connection) -> None:
    schedule = await add_schedule(
        connection,
        due_since=2 * 86_400 + 7_200,
        every=86_400,
        misfire_grace_seconds=60,
        alert_grace_seconds=900,
    )
    await claim_due(connection)
    (alert,) = await alerts(connection)
    assert (alert["schedule_id"], alert["kind"]) == (schedule, "missed")
    assert alert["message"].startswith("3 occurrences were missed, the last due at 20")
    assert timedelta(hours=1.9) < alert["opened_at"] - alert["expected_at"] < timedelta(hours=2.1)
    assert await notifications(connection) == [(alert["id"], "opened")]


async def test_a_single_missed_run_that_has_no_next_is_an_incident_at_once(connection: Connection) -> None:
    at = seconds_ago(600)
    once: dict[str, Any] = {
        "schedule_type": "once",
        "run_at": at,
        "next_run": at,
        "interval_seconds": None,
        "anchor": None,
    }
    await add_schedule(connection, misfire_grace_seconds=60, alert_grace_seconds=900, **once)
    await claim_due(connection)
    (alert,) = await alerts(connection)
    assert alert["message"].startswith("1 occurrence was missed")


async def test_a_missed_occurrence_of_a_schedule_whose_next_one_comes_soon_opens_nothing_at_once(
    connection: Connection, desk: Desk
) -> None:
    schedule = await add_schedule(
        connection, due_since=90, misfire_grace_seconds=10, alert_grace_seconds=900, alert_after=seconds_ago(-800)
    )
    await claim_due(connection)
    assert await desk.states(schedule) == {"missed": 2}
    assert await alerts(connection) == []
    await desk.update("job_schedules", schedule, "alert_after = now()")
    await watch_deadlines(connection)
    (alert,) = await alerts(connection)
    assert (alert["kind"], alert["message"]) == ("missed", "the last occurrence was missed")


async def test_a_schedule_without_alerts_misses_in_silence(connection: Connection) -> None:
    await add_schedule(connection, due_since=7_200, every=86_400, misfire_grace_seconds=60)
    assert (await claim_due(connection)).states == {"missed": 1}
    assert await alerts(connection) == []
    assert await notifications(connection) == []
