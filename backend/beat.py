"""Celery Beat on PostgreSQL: `celery -A backend.celery_app beat` drives the scheduling engine.

No schedule is held here and no file is written: any number of Beats may run, and each may die at any moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from celery.beat import Scheduler
from kombu.exceptions import OperationalError

from backend.celery_app import TASK_ROUTES, settings
from backend.config import stop
from backend.environment import ConfigError
from backend.scheduling.engine import Engine, Settings
from backend.scheduling.publisher import Publisher

log = logging.getLogger(__name__)

# The entry that a worker serves as the engine; sent without the database when Beat cannot reach it.
_FALLBACK = "check-job-schedules"
_FALLBACK_SECONDS = 60.0


class DatabaseScheduler(Scheduler):
    """Ticks with the engine's claims. `schedule` stays empty: Celery's own tick compares the whole of it for each task sent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._working: tuple[asyncio.AbstractEventLoop, Engine] | None = None
        self._told_to_stop = False
        self._asked_at = time.monotonic()
        # Celery makes a lazy one for its banner first: before it takes over the log.
        try:
            settings.require("DATABASE_URL")
        except ConfigError as fault:
            stop(fault)
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Nothing to load."""

    @property
    def info(self) -> str:
        return "    . db -> job_schedules"

    def tick(self, *_: Any, **__: Any) -> float:
        """Let the engine work until its claimer has made a pass, within about a second; 0: no need to sleep."""
        loop, engine = self._working = self._working or self._begin()
        loop.run_until_complete(engine.passed())
        if self._told_to_stop:
            # The signal's own SystemExit was lost: raised inside a finalizer, or where a library passes over every error.
            raise SystemExit
        if engine.away_since is not None:
            self._ask_a_worker()
        return 0.0

    def _begin(self) -> tuple[asyncio.AbstractEventLoop, Engine]:
        loop = asyncio.new_event_loop()
        engine = Engine(
            Settings(
                settings.database_url,
                lease_seconds=settings.run_lease_seconds,
                queue_timeout=settings.queue_timeout_seconds,
                retention_days=settings.run_retention_days,
            ),
            Publisher(self.app),
        )

        async def start() -> None:
            engine.start(self.app.conf.beat_schedule, TASK_ROUTES)

        loop.run_until_complete(start())
        return loop, engine

    def _ask_a_worker(self) -> None:
        """The database may be away from here alone: once a minute, have a worker do the engine's work."""
        entry = self.app.conf.beat_schedule.get(_FALLBACK)
        if entry is None or time.monotonic() - self._asked_at < _FALLBACK_SECONDS:
            return
        self._asked_at = time.monotonic()
        log.warning("database away from here: sending %s to a worker", entry["task"])
        try:
            self.app.send_task(entry["task"], ignore_result=True, retry=False, **entry["options"])
        except (OperationalError, OSError) as fault:
            log.warning("broker away, too: %s", fault)

    def close(self) -> None:
        """Give everything back. Called by the signal handler, inside a tick, and again after it: only the second can wait."""
        self._told_to_stop = True
        if self._working is None:
            return
        loop, engine = self._working
        if loop.is_running() or loop.is_closed():
            return
        loop.run_until_complete(engine.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
