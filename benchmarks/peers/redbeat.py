"""RedBeat: the schedule in Redis, a sorted set by the next run, one active instance that holds a lock."""

from __future__ import annotations

import json
from itertools import islice

from celery.schedules import schedule
from redbeat.decoder import RedBeatJSONEncoder
from redbeat.schedulers import RedBeatSchedulerEntry, get_redis

from benchmarks.peers.plan import PERIOD, TASK, Place, Plan, create_app, entry_name, write_entries

place = Place.from_environment()
app = create_app(place)
app.conf.update(
    beat_scheduler="redbeat.RedBeatScheduler",
    redbeat_redis_url=place.store,
    redbeat_redis_options={},
    # RedBeat's own default for the lock is five loops; the lock is renewed once a loop.
    beat_max_loop_interval=place.loop_seconds,
    redbeat_lock_timeout=5 * place.loop_seconds,
)
BATCH = 1_000


def write(plan: Plan) -> None:
    """What `RedBeatSchedulerEntry.save` writes, many entries to a round trip."""
    client = get_redis(app)
    if plan.fresh:
        client.flushdb()
    client.delete("redbeat::lock")
    entries = plan.entries()
    while batch := list(islice(entries, BATCH)):
        with client.pipeline(transaction=False) as pipe:
            for index, due in batch:
                entry = RedBeatSchedulerEntry(entry_name(index), TASK, schedule(PERIOD), [index], app=app)
                entry.last_run_at = due - PERIOD
                definition = {
                    name: getattr(entry, name)
                    for name in ("name", "task", "args", "kwargs", "options", "schedule", "enabled")
                }
                pipe.hset(entry.key, "definition", json.dumps(definition, cls=RedBeatJSONEncoder))
                pipe.hset(entry.key, "meta", json.dumps({"last_run_at": entry.last_run_at}, cls=RedBeatJSONEncoder))
                # `entry.score` counts from now, as if the last run were now.
                pipe.zadd("redbeat::schedule", {entry.key: int(due.timestamp())})
            pipe.execute()


if __name__ == "__main__":
    write_entries(write)
