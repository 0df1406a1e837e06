"""After a change of the zone database: the coming instants of cron schedules, computed again."""

from __future__ import annotations

import logging

from backend.scheduling.occurrences import Connection
from backend.scheduling.recurrence import TZDATA_VERSION, RecurrenceError, next_after
from backend.scheduling.rows import recurrence_of

log = logging.getLogger(__name__)

_BATCH = 1_000

# A process with an older zone database leaves rows of a newer one alone, or the two would undo each other's work for ever.
_OUTDATED = """
select id, name, schedule_type, cron_expression, interval_seconds, anchor, run_at, timezone, next_run, now() as now
from job_schedules
where id > $3 and schedule_type = 'cron' and tzdata_version < $1 and next_run > now()
order by id limit $2 for no key update skip locked
"""

_RENEW = """
update job_schedules s set next_run = v.next_run, tzdata_version = $3,
    alert_after = case when s.alert_after is null then null else s.alert_after + (v.next_run - s.next_run) end
from unnest($1::bigint[], $2::timestamptz[]) as v(id, next_run) where s.id = v.id
"""


async def recompute_outdated(connection: Connection) -> int:
    """Give each cron schedule of an older zone database its next run by this one; how many were moved."""
    moved, after = 0, 0
    while True:
        async with connection.transaction():
            rows = await connection.fetch(_OUTDATED, TZDATA_VERSION, _BATCH, after)
            if not rows:
                return moved
            after = rows[-1]["id"]
            ids, instants = [], []
            for row in rows:
                try:
                    following = next_after(recurrence_of(row), row["now"])
                except RecurrenceError as fault:
                    log.warning("schedule %d (%s) keeps its next run: %s", row["id"], row["name"], fault)
                    continue
                moved += following != row["next_run"]
                ids.append(row["id"])
                instants.append(following)
            await connection.execute(_RENEW, ids, instants, TZDATA_VERSION)
