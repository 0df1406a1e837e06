"""Schedules, occurrences and runs as the command line prints them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from backend.core.console import say, say_table
from backend.jobs.run_schemas import AlertRead, RunRead, RunSummary
from backend.jobs.schemas import OccurrenceRead, PreviewRead, ScheduleRead
from backend.jobs.states import ScheduleType
from backend.jobs.timing import local

_INSTANT = "%a %Y-%m-%d %H:%M:%S"


def in_zone(at: datetime, zone_name: str) -> str:
    """Wall-clock time in a zone."""
    return datetime.fromisoformat(local(at, zone_name)).strftime(_INSTANT)


def in_utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime(_INSTANT)


def in_both(at: datetime, zone_name: str) -> str:
    """In a zone, which is named, and in UTC."""
    return f"{in_zone(at, zone_name)} {zone_name}" + ("" if zone_name == "UTC" else f" ({in_utc(at)} UTC)")


def when(schedule: ScheduleRead) -> str:
    """`0 2 * * * Europe/Berlin`, `every 120 s` or `once`."""
    if schedule.schedule_type == ScheduleType.CRON:
        return f"{schedule.cron_expression} {schedule.timezone}"
    if schedule.schedule_type == ScheduleType.INTERVAL:
        return f"every {_number(schedule.interval_seconds or 0.0)} s"
    return "once"


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def state(schedule: ScheduleRead) -> str:
    """`deferred`: its next run cannot be computed. `finished`: no run is left."""
    if not schedule.is_active:
        return "paused"
    if schedule.next_run is None:
        return "finished"
    return "deferred" if schedule.last_error is not None else "active"


def last_result(schedule: ScheduleRead) -> str:
    failures = schedule.consecutive_failures
    return (schedule.last_state or "") + (f", {failures} in a row" if failures > 1 else "")


def say_schedules(found: Sequence[ScheduleRead]) -> None:
    say_table(
        ("id", "name", "kind", "when", "next run (local)", "next run (UTC)", "last result", "state"),
        [
            (
                schedule.id,
                schedule.name,
                schedule.kind or schedule.task,
                when(schedule),
                f"{in_zone(schedule.next_run, schedule.timezone)} {schedule.timezone}" if schedule.next_run else "",
                in_utc(schedule.next_run) if schedule.next_run else "",
                last_result(schedule),
                state(schedule),
            )
            for schedule in found
        ],
    )


def headline(schedule: ScheduleRead) -> str:
    return f"schedule {schedule.id} ({schedule.name})"


def say_schedule(schedule: ScheduleRead) -> None:
    """Every field; instants in the schedule's zone and in UTC."""
    say(f"{headline(schedule)}: {state(schedule)}")
    fields = schedule.model_dump(exclude={"id", "name", "next_run_local"})
    say_table(("field", "value"), [(name, _shown(value, schedule.timezone)) for name, value in fields.items()])


def _shown(value: Any, zone_name: str) -> str:
    if isinstance(value, datetime):
        return in_both(value, zone_name)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    return "" if value is None else str(value)


def say_next(schedule: ScheduleRead) -> None:
    if schedule.next_run is not None:
        say(f"next run {in_both(schedule.next_run, schedule.timezone)}")


def say_occurrences(found: Sequence[OccurrenceRead], zone_name: str) -> None:
    """Newest first."""
    if not found:
        say("no occurrence yet")
        return
    say_table(
        (f"occurrence ({zone_name})", "UTC", "fate", "state", "reason", "run"),
        [
            (
                in_zone(one.scheduled_for, zone_name),
                in_utc(one.scheduled_for),
                one.fate + (f", {one.count or 'many'} of them" if one.covers_from else ""),
                one.state or "",
                one.reason or "",
                one.run_id or "",
            )
            for one in found
        ],
    )


def say_alerts(alerts: Sequence[AlertRead]) -> None:
    if not alerts:
        say("no open alert")
    for alert in alerts:
        say(
            f"open alert {alert.id}, {alert.kind}: {alert.message};"
            f" expected {in_both(alert.expected_at, alert.timezone)}, opened {in_both(alert.opened_at, alert.timezone)}"
        )


def say_preview(found: PreviewRead) -> None:
    say(found.explanation)
    if not found.occurrences:
        say("no occurrence is left")
        return
    say_table(
        (f"local ({found.timezone})", "offset", "UTC", "change of the clock"),
        [
            (f"{at:{_INSTANT}}", f"{at:%z}", in_utc(one.utc), one.note or "")
            for one in found.occurrences
            for at in [datetime.fromisoformat(one.local)]
        ],
    )


def say_runs(found: Sequence[RunSummary], zone_name: str) -> None:
    """Newest first."""
    if not found:
        say("no runs")
        return
    say_table(
        (f"made ({zone_name})", "run", "name", "trigger", "for", "state", "attempt", "took", "reason or error"),
        [
            (
                in_zone(run.created_at, zone_name),
                run.id,
                run.name,
                run.trigger,
                in_zone(run.scheduled_for, zone_name),
                run.state,
                run.attempt,
                "" if run.duration_seconds is None else f"{run.duration_seconds:.1f} s",
                run.error or run.reason or "",
            )
            for run in found
        ],
    )


def say_run(run: RunRead, zone_name: str) -> None:
    """Every field, the story and the log; instants in the zone and in UTC."""
    say(f"run {run.id} of {run.name}: {run.state}")
    fields = run.model_dump(exclude={"id", "name", "timeline", "attempts", "log", "log_truncated"})
    say_table(("field", "value"), [(name, _shown(value, zone_name)) for name, value in fields.items()])
    say("")
    say_table(
        (f"at ({zone_name})", "event", "attempt", "what"),
        [(in_zone(one.at, zone_name), one.event, one.attempt or "", one.message) for one in run.timeline],
    )
    if run.log:
        say("")
        say("log" + (", the newest lines" if run.log_truncated else ""))
        for line in run.log:
            say(f"{in_zone(line.at, zone_name)} {line.level or ''} {line.message}")
