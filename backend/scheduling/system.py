"""The system's entries: those of `beat_schedule` in celery_app, as rows that people can see, pause and edit.

A row that nobody has edited follows the code; an edited one stays as it is until `reset_entries`.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import crontab, schedule

from backend.scheduling.occurrences import Connection
from backend.scheduling.recurrence import TZDATA_VERSION, next_after
from backend.scheduling.rows import recurrence_of

log = logging.getLogger(__name__)

# A system entry that has not succeeded this long after it was expected is an incident, seconds.
ALERT_SECONDS = 900
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TIME = ("schedule_type", "cron_expression", "interval_seconds", "timezone", "expires_seconds", "task", "queue")

_UPSERT = """
insert into job_schedules (name, task, queue, schedule_type, cron_expression, interval_seconds, anchor, timezone, expires_seconds,
    overlap_policy, misfire_policy, misfire_grace_seconds, alert_grace_seconds, next_run, alert_after, tzdata_version, managed_by,
    system_default, created_by)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'skip', 'coalesce', $10, $11::int, $12::timestamptz,
    $12::timestamptz + make_interval(secs => $11::int), $13, 'system', $14::jsonb, 'system')
on conflict (name) do update set
    task = excluded.task, queue = excluded.queue, schedule_type = excluded.schedule_type,
    cron_expression = excluded.cron_expression, interval_seconds = excluded.interval_seconds, anchor = excluded.anchor,
    timezone = excluded.timezone, expires_seconds = excluded.expires_seconds, next_run = excluded.next_run,
    overlap_policy = excluded.overlap_policy, misfire_policy = excluded.misfire_policy,
    misfire_grace_seconds = excluded.misfire_grace_seconds, alert_grace_seconds = excluded.alert_grace_seconds,
    alert_after = excluded.alert_after, tzdata_version = excluded.tzdata_version, system_default = excluded.system_default,
    last_error = null, deferred_until = null, start_at = null, end_at = null, max_runs = null, jitter_seconds = 0,
    max_attempts = null, retry_delay_seconds = null, timeout_seconds = null, concurrency_key = null, concurrency_limit = null,
    is_active = case when $15 then true else job_schedules.is_active end,
    version = job_schedules.version + 1, updated_at = now()
where job_schedules.managed_by = 'system'
"""

_KNOWN = f"select name, system_default, version, {', '.join(_TIME)} from job_schedules where managed_by = 'system'"  # noqa: S608


def entry_columns(entry: Mapping[str, Any], queue: str) -> dict[str, Any]:
    """The columns that an entry of `beat_schedule` stands for. A crontab's own zone becomes the row's."""
    when = entry["schedule"]
    columns: dict[str, Any] = dict.fromkeys(_TIME)
    columns |= {"task": entry["task"], "queue": queue, "timezone": "UTC"}
    columns["expires_seconds"] = math.ceil(entry.get("options", {}).get("expires") or 0) or None
    if isinstance(when, schedule) and not isinstance(when, crontab):
        when = when.run_every  # type: ignore[attr-defined]  # celery-types does not know it
    if isinstance(when, crontab):
        fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        columns["cron_expression"] = " ".join(str(getattr(when, f"_orig_{name}")) for name in fields)
        columns["schedule_type"], columns["timezone"] = "cron", getattr(when.tz, "key", "UTC")
    else:
        seconds = when.total_seconds() if isinstance(when, timedelta) else float(when)
        columns["schedule_type"], columns["interval_seconds"] = "interval", max(1.0, seconds)
    return columns


async def sync_entries(
    connection: Connection, entries: Mapping[str, Mapping[str, Any]], routes: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Make or renew the rows of entries that are new or changed in the code and not edited by anybody; their names."""
    known = {row["name"]: row for row in await connection.fetch(_KNOWN)}
    written = []
    for name, entry in entries.items():
        columns = entry_columns(entry, routes.get(entry["task"], {}).get("queue", "default"))
        row = known.get(name)
        default = json.loads(row["system_default"] or "{}") if row else None
        if row is not None and default == columns:
            continue
        if row is not None and any(row[field] != (default or {}).get(field) for field in _TIME[:5]):
            log.warning("schedule %s was edited and differs from this version's; `reset-system` restores it", name)
            continue
        if await _write(connection, name, columns, activate=False):
            written.append(name)
    return written


async def reset_entries(
    connection: Connection, entries: Mapping[str, Mapping[str, Any]], routes: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Every system entry as the code has it, active; names. Rows of entries that the code no longer has are deleted."""
    for name, entry in entries.items():
        columns = entry_columns(entry, routes.get(entry["task"], {}).get("queue", "default"))
        await _write(connection, name, columns, activate=True)
    await connection.execute(
        "delete from job_schedules where managed_by = 'system' and name <> all($1::text[])", list(entries)
    )
    return list(entries)


async def _write(connection: Connection, name: str, columns: Mapping[str, Any], *, activate: bool) -> bool:
    """False when somebody's own schedule has the name."""
    now: datetime = await connection.fetchval("select clock_timestamp()")
    anchor = _EPOCH if columns["schedule_type"] == "interval" else None
    following = next_after(recurrence_of({**columns, "anchor": anchor}), now)
    interval = columns["interval_seconds"] or 86_400
    done: str = await connection.execute(
        _UPSERT,
        name,
        columns["task"],
        columns["queue"],
        columns["schedule_type"],
        columns["cron_expression"],
        columns["interval_seconds"],
        anchor,
        columns["timezone"],
        columns["expires_seconds"],
        # A tick that comes often is not made up for; a daily one is, all day long.
        columns["expires_seconds"] or int(min(interval, 86_400)),
        ALERT_SECONDS,
        following,
        TZDATA_VERSION,
        json.dumps(columns),
        activate,
    )
    if done.endswith(" 0"):
        log.error("the system's schedule %s cannot be written: somebody's own has that name; rename that one", name)
    return not done.endswith(" 0")
