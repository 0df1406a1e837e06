"""APScheduler 3.11: jobs pickled in PostgreSQL; each job publishes by `send_task` from a pool of threads."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Iterator
from itertools import islice

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.interval import IntervalTrigger

from benchmarks.peers.plan import PERIOD, TASK, Place, Plan, create_app, entry_name, write_entries

place = Place.from_environment()
app = create_app(place)
THREADS = 20
app.conf.update(broker_pool_limit=THREADS)
BATCH = 1_000
# By default a run that is a second late is dropped.
GRACE_SECONDS = 86_400


def publish(index: int) -> None:
    app.send_task(TASK, args=[index])


def scheduler() -> BlockingScheduler:
    return BlockingScheduler(
        jobstores={"default": SQLAlchemyJobStore(url=place.database)},
        executors={"default": ThreadPoolExecutor(THREADS)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": GRACE_SECONDS},
        timezone="UTC",
    )


def write(plan: Plan) -> None:
    """What `SQLAlchemyJobStore.add_job` writes, many jobs to a statement."""
    store = SQLAlchemyJobStore(url=place.database)
    table = store.jobs_t
    if plan.fresh:
        table.drop(store.engine, checkfirst=True)
        table.create(store.engine)
    rows = _rows(plan)
    with store.engine.begin() as connection:
        while batch := list(islice(rows, BATCH)):
            if not plan.fresh:
                connection.execute(table.delete().where(table.c.id.in_([row["id"] for row in batch])))
            connection.execute(table.insert(), batch)
    store.engine.dispose()


def _rows(plan: Plan) -> Iterator[dict[str, object]]:
    owner = scheduler()
    for index, due in plan.entries():
        job = Job(
            owner,
            id=entry_name(index),
            func="benchmarks.peers.apscheduler3:publish",
            trigger=IntervalTrigger(seconds=int(PERIOD.total_seconds()), start_date=due, timezone="UTC"),
            executor="default",
            args=(index,),
            kwargs={},
            name="publish",
            misfire_grace_time=GRACE_SECONDS,
            coalesce=True,
            max_instances=1,
            next_run_time=due,
        )
        state = pickle.dumps(job.__getstate__(), pickle.HIGHEST_PROTOCOL)
        yield {"id": job.id, "next_run_time": due.timestamp(), "job_state": state}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_entries(write)
    else:
        logging.basicConfig(level=logging.WARNING)
        scheduler().start()
