"""The outbox: `pending` runs are claimed for a moment, published by the engine, and marked `queued`.

A crash between publishing and marking publishes again; the worker's claim makes the second message a no-op.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from backend.scheduling.occurrences import Connection
from backend.scheduling.publisher import Message

# How long a claimed run is left to whoever claimed it for publishing, seconds: above what a batch takes with a broker that
# answers. A claim ends at once with the database session that made it, which a killed process loses; this is for one that freezes,
# or whose machine does.
RELAY_SECONDS = 5.0

# An array, since it is made once: `in (select … limit …)` may be run anew for each row, and then takes more than its limit.
_CLAIM = """
update job_runs set relay_until = clock_timestamp() + make_interval(secs => $2), relay_pid = pg_backend_pid()
where id = any (array(
    select id from job_runs
    where state = 'pending' and publish_after <= now()
      and (relay_until is null or relay_until <= now() or relay_pid <> all (array(select pid from pg_stat_activity)))
    order by publish_after limit $1 for no key update skip locked))
returning id, task, queue
"""

# A worker may have claimed, even finished, the run before it is marked here. One that it has put back for another attempt is
# nobody's by now (`relay_until`), and is pending for a message that is still to come.
_MARK = """
update job_runs set published_at = clock_timestamp(), publish_count = publish_count + 1, relay_until = null,
    state = case when state = 'pending' then 'queued' else state end
where id = any($1::uuid[]) and (state <> 'pending' or relay_until is not null)
"""


async def claim_pending(connection: Connection, limit: int) -> list[Message]:
    """Up to `limit` runs to publish now, kept from every other relay for RELAY_SECONDS."""
    rows = await connection.fetch(_CLAIM, limit, RELAY_SECONDS)
    return [Message(row["id"], row["task"], row["queue"]) for row in rows]


async def mark_published(connection: Connection, runs: Sequence[UUID]) -> None:
    """The broker has confirmed these."""
    await connection.execute(_MARK, runs)


async def give_back(connection: Connection, runs: Sequence[UUID]) -> None:
    """Not published: whoever comes next may try at once."""
    await connection.execute(
        "update job_runs set relay_until = null where id = any($1::uuid[]) and state = 'pending'", runs
    )
