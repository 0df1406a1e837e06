"""The jobs domain's door: everything other code may ask of it.

A function with `session` works inside the caller's transaction. `actor` is who asks, as it is written on schedules and runs.
"""

from backend.jobs.occurrences import list_occurrences, preview
from backend.jobs.reading import (
    list_alerts,
    list_runs,
    list_schedules,
    read_alert,
    read_run,
    read_schedule,
    read_summary,
)
from backend.jobs.repository.measures import Measures, measure
from backend.jobs.schedules import (
    create_schedule,
    delete_schedule,
    pause_schedule,
    resume_schedule,
    update_schedule,
)
from backend.jobs.starting import backfill, cancel_run, retry_run, run_now
from backend.jobs.templates import (
    create_template,
    delete_template,
    list_kinds,
    list_templates,
    read_template,
    update_template,
)

__all__ = [
    "Measures",
    "backfill",
    "cancel_run",
    "create_schedule",
    "create_template",
    "delete_schedule",
    "delete_template",
    "list_alerts",
    "list_kinds",
    "list_occurrences",
    "list_runs",
    "list_schedules",
    "list_templates",
    "measure",
    "pause_schedule",
    "preview",
    "read_alert",
    "read_run",
    "read_schedule",
    "read_summary",
    "read_template",
    "resume_schedule",
    "retry_run",
    "run_now",
    "update_schedule",
    "update_template",
]
