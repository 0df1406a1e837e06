"""A row of `job_schedules` as the engine reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.scheduling.recurrence import Cron, Interval, Once, Recurrence, RecurrenceError, parse_cron, zone


def recurrence_of(row: Mapping[str, Any]) -> Recurrence:
    """The recurrence of a schedule's columns; RecurrenceError for a row that cannot be understood."""
    kind = row["schedule_type"]
    if kind == "cron":
        # Checked again: a row may have been written by hand, and zones may leave the database of zones.
        zone(row["timezone"])
        return Cron(parse_cron(row["cron_expression"]), row["timezone"])
    if kind == "interval":
        return Interval(row["interval_seconds"], row["anchor"])
    if kind == "once":
        return Once(row["run_at"])
    raise RecurrenceError(f"schedule_type: {kind!r} is not one of cron, interval, once", field="schedule_type")
