"""Schedules and runs for tests of the engine, written as rows."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from backend.scheduling.occurrences import Connection
from backend.scheduling.recurrence import TZDATA_VERSION

_numbers = count(1)


def seconds_ago(seconds: float) -> datetime:
    """That instant; a negative number is in the future."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def add_schedule(connection: Connection, *, due_since: float = 0.0, every: float = 60.0, **columns: Any) -> int:
    """An interval of `every` seconds whose `next_run` is `due_since` seconds ago; any column may be given instead."""
    first = seconds_ago(due_since)
    row = {
        "name": f"schedule {next(_numbers)}",
        "task": "noop",
        "queue": "default",
        "schedule_type": "interval",
        "interval_seconds": every,
        "anchor": first,
        "next_run": first,
        "tzdata_version": TZDATA_VERSION,
    } | columns
    added: int = await _insert(connection, "job_schedules", row)
    return added


async def add_cron(connection: Connection, expression: str, *, due_since: float = 0.0, **columns: Any) -> int:
    """A cron schedule; `next_run` as in `add_schedule`."""
    cron = {"schedule_type": "cron", "cron_expression": expression, "interval_seconds": None, "anchor": None}
    return await add_schedule(connection, due_since=due_since, **(cron | columns))


async def add_run(connection: Connection, schedule: int | None = None, state: str = "queued", **columns: Any) -> UUID:
    """A run of `noop`; with `arguments` as a dict."""
    row = {
        "id": uuid4(),
        "schedule_id": schedule,
        "name": "a run",
        "scheduled_for": seconds_ago(0),
        "trigger": "manual",
        "task": "noop",
        "queue": "default",
        "state": state,
    } | columns
    added: UUID = await _insert(connection, "job_runs", row)
    return added


async def _insert(connection: Connection, table: str, row: dict[str, Any]) -> Any:
    values = [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    return await connection.fetchval(f"insert into {table} ({', '.join(row)}) values ({places}) returning id", *values)
