"""Tasks as coroutines: one event loop thread per worker process, whatever the pool.

Celery has no asyncio of its own. The loop, the database pool and the HTTP client are made on a process's first task, so
nothing is opened before the fork and prefork, solo and threads pools all work.
"""

import asyncio
import atexit
import logging
import os
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from celery import Task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.signals import after_setup_logger, worker_process_shutdown

from backend.celery_app import app, settings
from backend.config import Config
from backend.core.broker import install as install_forgiving_broker
from backend.core.data_plane import DataPlane
from backend.core.db import Database, is_outage
from backend.core.errors import TransientError
from backend.core.queue import Sender, send_task
from backend.core.runs import DatabaseAway, Limits, Tracker, install_log_lines
from backend.scheduling.publisher import RUN_HEADER

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, object]])

_RETRY_BASE, _RETRY_CAP = 1.0, 60.0


@dataclass
class Runtime:
    """What a task handler works with."""

    config: Config
    db: Database
    api: DataPlane
    send: Sender
    runs: Tracker
    # Slow to make, one per process: loaded models and the like, by name.
    resources: dict[str, Any] = field(default_factory=dict)

    async def close(self) -> None:
        await self.api.close()
        await self.runs.close()
        await self.db.close()


def open_runtime(config: Config) -> Runtime:
    """A runtime; must be called inside the event loop that will use it."""
    return Runtime(
        config=config,
        db=Database(config.database_url, pool_size=4),
        api=DataPlane(config.api_url, config.service_key),
        send=send_task,
        runs=Tracker(config.database_url, config.run_lease_seconds),
    )


class _Loop:
    """The event loop thread of this process and its runtime."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="beatline-loop", daemon=True)
        self._thread.start()
        self.runtime: Runtime = self.run(self._open(), None)

    async def _open(self) -> Runtime:
        return open_runtime(settings)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except SoftTimeLimitExceeded:
            # Raised in the waiting thread; the work itself goes on until it is told.
            future.cancel()
            raise

    def close(self) -> None:
        self.run(self.runtime.close(), 5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


_current: list[_Loop] = []
_starting = threading.Lock()


def _process_loop() -> _Loop:
    with _starting:
        # A forked child inherits the parent's list, not its thread.
        if not _current or _current[0].pid != os.getpid():
            _current[:] = [_Loop()]
        return _current[0]


def _shut_down(**_: object) -> None:
    if _current and _current[0].pid == os.getpid():
        _current.pop().close()


install_forgiving_broker()
worker_process_shutdown.connect(_shut_down, weak=False)
atexit.register(_shut_down)


def _keep_log_lines(**_: object) -> None:
    install_log_lines()


after_setup_logger.connect(_keep_log_lines, weak=False)


def backoff(retries: int, *, after: float | None = None) -> float:
    """Seconds until the next try: exponential with full jitter between half and whole, from 1 s to 60 s, never before `after`."""
    ceiling = min(_RETRY_CAP, _RETRY_BASE * 2.0**retries)
    return max(after or 0.0, ceiling * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing


def _countdown(retries: int, after: float | None = None) -> float:
    # RabbitMQ's quorum queues know whole seconds: Celery refuses less than one with an error that loses the task.
    return max(1.0, backoff(retries, after=after))


def _run_tracked(loop: _Loop, handler: Handler, run: UUID, limits: Limits) -> object:
    runtime = loop.runtime

    async def work(**arguments: Any) -> object:
        return await handler(runtime, **arguments)

    try:
        return loop.run(runtime.runs.execute(run, handler.__name__, work, limits), None)
    except DatabaseAway as fault:
        raise Reject(fault, requeue=True) from fault


def task(*, max_retries: int = 5, time_limit: int = 300) -> Callable[[Handler], Handler]:
    """Register an async handler as the Celery task of its own name; the handler itself stays a plain coroutine function.

    It is called as `handler(runtime, **ids)`. `TransientError`, and a database that is away, are retried with backoff, at
    most `max_retries` times; any other error fails the task. `time_limit` is seconds; the soft limit comes 30 s before.

    A message that stands for a tracked run carries no arguments: they, the tries and the outcome are those of its row.
    """
    limits = Limits(attempts=max_retries + 1, seconds=max(1, time_limit - 35))

    def register(handler: Handler) -> Handler:
        @app.task(
            name=handler.__name__,
            bind=True,
            max_retries=max_retries,
            time_limit=time_limit,
            soft_time_limit=max(1, time_limit - 30),
        )
        def entry(self: "Task[Any, Any]", /, **ids: Any) -> object:
            loop = _process_loop()
            if self.request.get(RUN_HEADER):
                return _run_tracked(loop, handler, UUID(self.request.id), limits)
            try:
                return loop.run(handler(loop.runtime, **ids), None)
            except TransientError as fault:
                raise self.retry(exc=fault, countdown=_countdown(self.request.retries, fault.after)) from fault
            except Exception as fault:
                if not is_outage(fault):
                    raise
                raise self.retry(exc=fault, countdown=_countdown(self.request.retries)) from fault

        return handler

    return register
