"""Worker manifest: the target of `--include`; imports every domain's tasks and every table."""

from backend import models
from backend.accounts import tasks as accounts
from backend.audit import tasks as audit
from backend.caches import tasks as caches
from backend.calls import tasks as calls
from backend.celery_app import app, settings
from backend.config import stop
from backend.environment import ConfigError
from backend.examples import tasks as examples
from backend.jobs import checking
from backend.jobs import tasks as jobs
from backend.notifications import tasks as notifications
from backend.queues import tasks as queues
from backend.quotas import tasks as quotas
from backend.recordings import tasks as recordings

__all__ = [
    "accounts",
    "audit",
    "caches",
    "calls",
    "checking",
    "examples",
    "jobs",
    "models",
    "notifications",
    "queues",
    "quotas",
    "recordings",
    "reset_daily_quotas_task",
]

# The task by a path, as another product may know it; its own name is `reset_daily_quotas`.
reset_daily_quotas_task = app.tasks["backend.tasks.reset_daily_quotas_task"]

try:
    settings.require("BEATLINE_SERVICE_KEY", "DATABASE_URL")
except ConfigError as fault:
    stop(fault)
