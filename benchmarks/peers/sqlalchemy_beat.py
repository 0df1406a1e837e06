"""sqlalchemy-celery-beat: the schedule in PostgreSQL, all of it read at the start and at every change."""

from __future__ import annotations

from sqlalchemy import create_engine, text
from sqlalchemy_celery_beat.models import IntervalSchedule, Period, PeriodicTask
from sqlalchemy_celery_beat.session import ModelBase

from benchmarks.peers.plan import PERIOD, TASK, Place, Plan, create_app, entry_name, write_entries

place = Place.from_environment()
app = create_app(place)
app.conf.update(beat_scheduler="sqlalchemy_celery_beat.schedulers:DatabaseScheduler", beat_dburi=place.database)

_ARM = text("""
update celery_periodictask set last_run_at = to_timestamp(due.at)
from unnest(cast(:ids as int[]), cast(:ats as float8[])) as due(id, at) where celery_periodictask.id = due.id
""")


def write(plan: Plan) -> None:
    """The row of entry i has the id i + 1."""
    engine = create_engine(place.database).execution_options(schema_translate_map={"celery_schema": None})
    if plan.fresh:
        ModelBase.metadata.drop_all(engine)
        ModelBase.metadata.create_all(engine)
    with engine.begin() as connection:
        if plan.fresh:
            connection.execute(
                IntervalSchedule.__table__.insert(), [{"id": 1, "every": PERIOD.days, "period": Period.DAYS}]
            )
            connection.execute(PeriodicTask.__table__.insert(), [_row(index) for index, _due in plan.entries()])
        due = list(plan.entries())
        at = [(instant - PERIOD).timestamp() for _index, instant in due]
        connection.execute(_ARM, {"ids": [index + 1 for index, _instant in due], "ats": at})
    engine.dispose()


def _row(index: int) -> dict[str, object]:
    return {
        "id": index + 1,
        "name": entry_name(index),
        "task": TASK,
        "args": f"[{index}]",
        "discriminator": "intervalschedule",
        "schedule_id": 1,
    }


if __name__ == "__main__":
    write_entries(write)
