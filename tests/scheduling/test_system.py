"""The system's entries as rows: following the code until somebody edits them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.schedules import crontab, schedule

from backend.celery_app import TASK_ROUTES, ZonedCrontab, beat_schedule, settings
from backend.scheduling.occurrences import Connection
from backend.scheduling.recurrence import TZDATA_VERSION
from backend.scheduling.system import ALERT_SECONDS, entry_columns, reset_entries, sync_entries
from tests.factories.schedules import add_schedule
from tests.scheduling.conftest import Desk

DAILY: dict[str, Any] = {
    "daily": {
        "task": "call_expiring_policies",
        "schedule": ZonedCrontab("Asia/Kolkata", hour=10, minute=0),
        "options": {"expires": 6 * 3600},
    }
}
EVERY_TEN: dict[str, Any] = {"ticking": {"task": "noop", "schedule": 10.0, "options": {"expires": 8.1}}}


async def row(connection: Connection, name: str) -> Any:
    return await connection.fetchrow("select * from job_schedules where name = $1", name)


async def ids(connection: Connection) -> dict[str, int]:
    return {one["name"]: one["id"] for one in await connection.fetch("select id, name from job_schedules")}


async def test_every_entry_of_the_code_becomes_a_row(connection: Connection) -> None:
    entries = beat_schedule(settings)
    assert await sync_entries(connection, entries, TASK_ROUTES) == list(entries)
    rows = await connection.fetch("select * from job_schedules")
    assert {one["name"]: one["task"] for one in rows} == {name: entry["task"] for name, entry in entries.items()}
    assert all((one["managed_by"], one["is_active"], one["version"]) == ("system", True, 1) for one in rows)
    assert all(one["next_run"] > datetime.now(UTC) - timedelta(seconds=5) for one in rows)
    assert all(one["queue"] == TASK_ROUTES[one["task"]]["queue"] for one in rows)


async def test_a_daily_entry_keeps_its_time_of_day_its_zone_and_its_expiry(connection: Connection) -> None:
    await sync_entries(connection, DAILY, TASK_ROUTES)
    daily = await row(connection, "daily")
    assert (daily["schedule_type"], daily["cron_expression"], daily["timezone"]) == (
        "cron",
        "0 10 * * *",
        "Asia/Kolkata",
    )
    assert (daily["queue"], daily["expires_seconds"], daily["misfire_grace_seconds"]) == ("scheduled", 21_600, 21_600)
    assert (daily["next_run"].hour, daily["next_run"].minute) == (4, 30)
    assert timedelta() < daily["next_run"] - datetime.now(UTC) <= timedelta(days=1)
    assert daily["alert_after"] == daily["next_run"] + timedelta(seconds=ALERT_SECONDS)
    assert (daily["overlap_policy"], daily["misfire_policy"]) == ("skip", "coalesce")
    assert (daily["anchor"], daily["tzdata_version"]) == (None, TZDATA_VERSION)


async def test_an_entry_in_seconds_is_an_interval_from_the_epoch(connection: Connection) -> None:
    await sync_entries(connection, EVERY_TEN, TASK_ROUTES)
    ticking = await row(connection, "ticking")
    assert (ticking["schedule_type"], ticking["interval_seconds"], ticking["expires_seconds"]) == ("interval", 10.0, 9)
    assert ticking["anchor"] == datetime(1970, 1, 1, tzinfo=UTC)
    assert ticking["next_run"].timestamp() % 10 == 0


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (90, ("interval", None, 90.0, "UTC")),
        (0.2, ("interval", None, 1.0, "UTC")),
        (timedelta(minutes=5), ("interval", None, 300.0, "UTC")),
        (schedule(run_every=timedelta(hours=1)), ("interval", None, 3600.0, "UTC")),
        (crontab(minute="*/5"), ("cron", "*/5 * * * *", None, "UTC")),
        (
            ZonedCrontab("Europe/Berlin", minute=5, hour=3, day_of_week="mon"),
            ("cron", "5 3 * * mon", None, "Europe/Berlin"),
        ),
    ],
)
def test_each_notation_of_celery_is_understood(when: object, expected: tuple[object, ...]) -> None:
    columns = entry_columns({"task": "noop", "schedule": when}, "default")
    found = tuple(columns[name] for name in ("schedule_type", "cron_expression", "interval_seconds", "timezone"))
    assert found == expected
    assert columns["expires_seconds"] is None


async def test_a_second_sync_changes_nothing(connection: Connection) -> None:
    entries = beat_schedule(settings)
    await sync_entries(connection, entries, TASK_ROUTES)
    before = await connection.fetch("select * from job_schedules order by id")
    assert await sync_entries(connection, entries, TASK_ROUTES) == []
    assert await connection.fetch("select * from job_schedules order by id") == before


async def test_a_row_that_nobody_edited_follows_the_code(connection: Connection) -> None:
    await sync_entries(connection, EVERY_TEN, TASK_ROUTES)
    changed = {"ticking": {"task": "sleep", "schedule": ZonedCrontab("UTC", minute=30), "options": {"expires": 60}}}
    assert await sync_entries(connection, changed, TASK_ROUTES) == ["ticking"]
    ticking = await row(connection, "ticking")
    assert (ticking["schedule_type"], ticking["cron_expression"], ticking["interval_seconds"]) == (
        "cron",
        "30 * * * *",
        None,
    )
    assert (ticking["task"], ticking["queue"], ticking["expires_seconds"]) == ("sleep", "low_priority", 60)
    assert (ticking["next_run"].minute, ticking["version"], ticking["anchor"]) == (30, 2, None)
    assert json.loads(ticking["system_default"])["cron_expression"] == "30 * * * *"


async def test_a_row_that_somebody_edited_stays_as_it_is_and_the_log_says_so(
    connection: Connection, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await sync_entries(connection, DAILY, TASK_ROUTES)
    await desk.update("job_schedules", (await ids(connection))["daily"], "cron_expression = '0 9 * * *'")
    before = await row(connection, "daily")
    assert await sync_entries(connection, DAILY, TASK_ROUTES) == []
    assert not caplog.records
    changed = {"daily": DAILY["daily"] | {"schedule": ZonedCrontab("Asia/Kolkata", hour=11, minute=0)}}
    with caplog.at_level(logging.WARNING):
        assert await sync_entries(connection, changed, TASK_ROUTES) == []
    assert await row(connection, "daily") == before
    assert "schedule daily was edited and differs" in caplog.text


async def test_a_paused_entry_stays_paused_when_the_code_changes(connection: Connection, desk: Desk) -> None:
    await sync_entries(connection, EVERY_TEN, TASK_ROUTES)
    await desk.update("job_schedules", (await ids(connection))["ticking"], "is_active = false")
    await sync_entries(connection, {"ticking": EVERY_TEN["ticking"] | {"schedule": 20.0}}, TASK_ROUTES)
    ticking = await row(connection, "ticking")
    assert (ticking["is_active"], ticking["interval_seconds"]) == (False, 20.0)


async def test_a_reset_restores_edited_and_paused_entries_and_removes_unknown_ones(
    connection: Connection, desk: Desk
) -> None:
    await sync_entries(connection, DAILY | EVERY_TEN, TASK_ROUTES)
    theirs = await add_schedule(connection, due_since=-60, name="somebody's own")
    await desk.update(
        "job_schedules",
        (await ids(connection))["daily"],
        "cron_expression = '0 9 * * *', timezone = 'UTC', is_active = false, max_runs = 3, jitter_seconds = 9,"
        " last_error = 'x', deferred_until = now(), overlap_policy = 'allow', concurrency_key = 'k', concurrency_limit = 1",
    )
    assert await reset_entries(connection, DAILY, TASK_ROUTES) == ["daily"]
    daily = await row(connection, "daily")
    assert (daily["cron_expression"], daily["timezone"], daily["is_active"]) == ("0 10 * * *", "Asia/Kolkata", True)
    assert (daily["max_runs"], daily["jitter_seconds"], daily["overlap_policy"]) == (None, 0, "skip")
    assert (daily["last_error"], daily["deferred_until"], daily["concurrency_key"]) == (None, None, None)
    assert set(await ids(connection)) == {"daily", "somebody's own"}
    assert (await desk.schedule(theirs))["managed_by"] == "user"


async def test_an_entry_does_not_take_over_somebodys_schedule_of_the_same_name(
    connection: Connection, desk: Desk
) -> None:
    theirs = await add_schedule(connection, due_since=-60, name="daily")
    before = await desk.schedule(theirs)
    await sync_entries(connection, DAILY, TASK_ROUTES)
    assert await desk.schedule(theirs) == before
