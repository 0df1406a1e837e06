"""When a schedule runs: from what a person wrote to checked columns, and from columns to the next occurrence."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.core.errors import Conflict
from backend.jobs.models import JobSchedule
from backend.jobs.refusals import invalid, of_recurrence
from backend.jobs.states import ScheduleType
from backend.scheduling import rows
from backend.scheduling.recurrence import Recurrence, RecurrenceError, explain, next_after, zone

TIME_FIELDS = (
    "schedule_type",
    "cron_expression",
    "interval_seconds",
    "anchor",
    "run_at",
    "timezone",
    "start_at",
    "end_at",
)
_TYPE_OF = {
    "cron_expression": ScheduleType.CRON,
    "interval_seconds": ScheduleType.INTERVAL,
    "run_at": ScheduleType.ONCE,
}
_MICROSECOND = timedelta(microseconds=1)


def resolve(fields: Mapping[str, Any], *, now: datetime, default_zone: str) -> dict[str, Any]:
    """The columns that time fields mean, checked; Invalid (422) names the field at fault."""
    try:
        return _resolve(fields, now, default_zone)
    except RecurrenceError as fault:
        raise of_recurrence(fault) from fault


def _resolve(fields: Mapping[str, Any], now: datetime, default_zone: str) -> dict[str, Any]:
    kind = _type(fields)
    name = fields.get("timezone") or default_zone
    zone(name)
    if kind != ScheduleType.INTERVAL and fields.get("anchor") is not None:
        raise invalid("anchor", "is instant zero of an interval; leave it out")
    found: dict[str, Any] = dict.fromkeys(TIME_FIELDS)
    found.update(schedule_type=kind.value, timezone=name)
    for field in ("start_at", "end_at"):
        found[field] = to_utc(fields.get(field), name, field)
    if found["start_at"] and found["end_at"] and found["end_at"] < found["start_at"]:
        raise invalid("end_at", f"{found['end_at']} is before start_at, {found['start_at']}")
    if kind == ScheduleType.CRON:
        found["cron_expression"] = fields["cron_expression"]
    elif kind == ScheduleType.INTERVAL:
        found["interval_seconds"] = fields["interval_seconds"]
        found["anchor"] = (
            to_utc(fields.get("anchor"), name, "anchor") or found["start_at"] or now.replace(microsecond=0)
        )
    else:
        found["run_at"] = _future(to_utc(fields["run_at"], name, "run_at"), now)
    recurrence = rows.recurrence_of(found)
    if kind == ScheduleType.CRON:
        found["cron_expression"] = getattr(recurrence, "expression", None)
    return found


def _type(fields: Mapping[str, Any]) -> ScheduleType:
    present = [field for field in _TYPE_OF if fields.get(field) is not None]
    if not present:
        raise invalid("schedule_type", "give one of cron_expression, interval_seconds and run_at")
    if len(present) > 1:
        raise invalid(present[1], f"give one of {' and '.join(present)}, not both")
    kind, wanted = _TYPE_OF[present[0]], fields.get("schedule_type")
    if wanted is not None and wanted != kind:
        raise invalid("schedule_type", f"is {wanted}, but {present[0]} was given, which makes it {kind}")
    return kind


def _future(at: datetime | None, now: datetime) -> datetime | None:
    if at is not None and at <= now:
        raise invalid("run_at", f"{at.isoformat()} is in the past: it is {now.isoformat()} now; give a later time")
    return at


def to_utc(moment: datetime | None, zone_name: str, field: str) -> datetime | None:
    """The instant; without an offset it is local time in the zone, the first where a change of the clock repeats it.

    Invalid (422) for a local time that a change of the clock leaves out.
    """
    if moment is None:
        return None
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    instant = moment.replace(tzinfo=zone(zone_name)).astimezone(UTC)
    if instant.astimezone(zone(zone_name)).replace(tzinfo=None) != moment:
        shown = f"{moment:%Y-%m-%d %H:%M}"
        raise invalid(field, f"{shown} does not exist in {zone_name}, where the clock goes forward then")
    return instant


def edited(schedule: JobSchedule, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The time fields of a schedule under a partial update; another kind of time takes the place of the one it had."""
    current = {field: getattr(schedule, field) for field in TIME_FIELDS if field != "schedule_type"}
    if any(changes.get(field) is not None for field in _TYPE_OF):
        current.update(dict.fromkeys(_TYPE_OF))
    if changes.get("interval_seconds") is None and current["interval_seconds"] is None:
        current["anchor"] = None
    return current | {field: value for field, value in changes.items() if field in TIME_FIELDS}


def recurrence_of(schedule: JobSchedule) -> Recurrence:
    """The recurrence of a row; RecurrenceError for one that cannot be understood."""
    return rows.recurrence_of({field: getattr(schedule, field) for field in TIME_FIELDS})


def next_occurrence(columns: Mapping[str, Any], after: datetime) -> datetime | None:
    """The first occurrence after `after`, from `start_at` to `end_at`, both included; None when there is none."""
    if columns["start_at"] is not None:
        after = max(after, columns["start_at"] - _MICROSECOND)
    at = next_after(rows.recurrence_of(columns), after)
    return None if at is None or (columns["end_at"] is not None and at > columns["end_at"]) else at


def required_occurrence(columns: Mapping[str, Any], after: datetime) -> datetime:
    """`next_occurrence`; Invalid (422) when there is none."""
    at = next_occurrence(columns, after)
    if at is None:
        field = "end_at" if columns["end_at"] is not None else "schedule_type"
        raise invalid(field, f"it would never run: there is no occurrence after {after.isoformat()}")
    return at


def set_next_run(schedule: JobSchedule, now: datetime) -> None:
    """Write `next_run` anew and forget why it was put off. Null once `max_runs` are used up or the time is over."""
    used_up = schedule.max_runs is not None and schedule.run_count >= schedule.max_runs
    columns = {field: getattr(schedule, field) for field in TIME_FIELDS}
    try:
        schedule.next_run = None if used_up else next_occurrence(columns, now)
    except RecurrenceError as fault:
        raise Conflict(f"schedule {schedule.id} cannot be computed: {fault}; edit its time", code="broken") from fault
    schedule.deferred_until = schedule.last_error = None


def set_alert(schedule: JobSchedule, now: datetime) -> None:
    """Write `alert_after` anew: a run must have succeeded by the grace after the next occurrence."""
    watched = schedule.is_active and schedule.next_run is not None and schedule.alert_grace_seconds is not None
    if watched and schedule.next_run is not None:
        schedule.alert_after = max(schedule.next_run, now) + timedelta(seconds=schedule.alert_grace_seconds or 0)
    else:
        schedule.alert_after = None


def explanation(columns: Mapping[str, Any]) -> str:
    """The time in words."""
    if columns["schedule_type"] == ScheduleType.CRON:
        return f"{explain(columns['cron_expression'])} ({columns['timezone']})"
    if columns["schedule_type"] == ScheduleType.INTERVAL:
        return f"Every {columns['interval_seconds']:g} seconds from {local(columns['anchor'], columns['timezone'])}."
    return f"Once, at {local(columns['run_at'], columns['timezone'])} ({columns['timezone']})."


def local(at: datetime, zone_name: str) -> str:
    """An instant in a zone, ISO 8601 with its offset; in UTC where the zone is unknown by now."""
    try:
        return at.astimezone(zone(zone_name)).isoformat()
    except RecurrenceError:
        return at.astimezone(UTC).isoformat()
