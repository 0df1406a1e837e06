"""Schedules computed with another version of the zone database."""

from __future__ import annotations

from datetime import timedelta

from backend.scheduling.occurrences import Connection
from backend.scheduling.recurrence import TZDATA_VERSION, Cron, next_after
from backend.scheduling.zones import recompute_outdated
from tests.factories.schedules import add_cron, add_schedule, seconds_ago
from tests.scheduling.conftest import Desk

EXPRESSION, ZONE = "0 10 * * *", "Europe/Berlin"


async def test_a_schedule_of_an_older_zone_database_gets_the_instant_of_this_one(
    connection: Connection, desk: Desk
) -> None:
    wrong = seconds_ago(-3 * 86_400)
    schedule = await add_cron(
        connection,
        EXPRESSION,
        timezone=ZONE,
        next_run=wrong,
        tzdata_version="2019a",
        alert_after=wrong + timedelta(minutes=5),
    )
    right = next_after(Cron(EXPRESSION, ZONE), seconds_ago(0))
    assert right is not None
    assert await recompute_outdated(connection) == 1
    row = await desk.schedule(schedule)
    assert (row["next_run"], row["tzdata_version"]) == (right, TZDATA_VERSION)
    assert row["alert_after"] == right + timedelta(minutes=5)
    assert await recompute_outdated(connection) == 0


async def test_a_schedule_that_the_change_does_not_concern_is_marked_and_not_counted(
    connection: Connection, desk: Desk
) -> None:
    right = next_after(Cron(EXPRESSION, ZONE), seconds_ago(0))
    schedule = await add_cron(connection, EXPRESSION, timezone=ZONE, next_run=right, tzdata_version="2019a")
    assert await recompute_outdated(connection) == 0
    row = await desk.schedule(schedule)
    assert (row["next_run"], row["tzdata_version"], row["alert_after"]) == (right, TZDATA_VERSION, None)


async def test_a_schedule_of_a_newer_zone_database_is_left_alone(connection: Connection, desk: Desk) -> None:
    wrong = seconds_ago(-3 * 86_400)
    schedule = await add_cron(connection, EXPRESSION, timezone=ZONE, next_run=wrong, tzdata_version="2999z")
    assert await recompute_outdated(connection) == 0
    row = await desk.schedule(schedule)
    assert (row["next_run"], row["tzdata_version"]) == (wrong, "2999z")


async def test_intervals_and_what_is_due_already_are_left_alone(connection: Connection, desk: Desk) -> None:
    interval = await add_schedule(connection, due_since=-60, tzdata_version="2019a")
    due = await add_cron(connection, EXPRESSION, due_since=60, tzdata_version="2019a")
    assert await recompute_outdated(connection) == 0
    for schedule in (interval, due):
        assert (await desk.schedule(schedule))["tzdata_version"] == "2019a"


async def test_a_schedule_that_cannot_be_computed_keeps_its_next_run_and_stops_no_other(
    connection: Connection, desk: Desk
) -> None:
    wrong = seconds_ago(-3 * 86_400)
    bad = await add_cron(connection, EXPRESSION, timezone="Mars/Olympus", next_run=wrong, tzdata_version="2019a")
    good = [await add_cron(connection, EXPRESSION, next_run=wrong, tzdata_version="") for _ in range(3)]
    assert await recompute_outdated(connection) == 3
    assert (await desk.schedule(bad))["next_run"] == wrong
    assert all([(await desk.schedule(one))["tzdata_version"] == TZDATA_VERSION for one in good])


async def test_two_that_recompute_at_once_do_not_wait_for_each_other(connection: Connection, other: Connection) -> None:
    await add_cron(connection, EXPRESSION, next_run=seconds_ago(-3 * 86_400), tzdata_version="2019a")
    async with connection.transaction():
        assert await recompute_outdated(connection) == 1
        assert await recompute_outdated(other) == 0
