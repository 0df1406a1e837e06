"""Celery's own beat: the schedule stands in the settings, the state in a shelve file that is written now and then."""

from __future__ import annotations

import shelve
from pathlib import Path

from celery import __version__ as celery_version
from celery.beat import ScheduleEntry
from celery.schedules import schedule

from benchmarks.peers.plan import PERIOD, TASK, Place, Plan, create_app, entry_name, write_entries

place = Place.from_environment()
app = create_app(place)
STATE = str(Path(place.state) / "celerybeat-schedule")
app.conf.update(
    beat_schedule_filename=STATE,
    beat_schedule={
        entry_name(index): {"task": TASK, "schedule": PERIOD.total_seconds(), "args": (index,)}
        for index in range(place.stored + 1)
    },
)


def write(plan: Plan) -> None:
    """The state file as beat itself would have left it; it has no way to change a part of it."""
    daily = schedule(run_every=PERIOD)
    entries = {}
    for index, due in plan.entries(plan.stored + 1):
        name = entry_name(index)
        entries[name] = ScheduleEntry(name, TASK, due - PERIOD, 0, daily, (index,), app=app)
    for left in Path(place.state).glob("celerybeat-schedule*"):
        left.unlink()
    with shelve.open(STATE) as state:  # noqa: S301  # written and read by this benchmark alone
        state.update({"entries": entries, "__version__": celery_version, "tz": "UTC", "utc_enabled": True})


if __name__ == "__main__":
    write_entries(write)
