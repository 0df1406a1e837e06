"""Tasks as coroutines: one event loop thread per worker process, whatever the pool.

Celery has no asyncio of its own. The loop, the database pool and the HTTP client are made on a process's first task, so
nothing is opened before the fork and prefork, solo and threads pools all work.
"""

import asyncio
import atexit
import logging
import os
import random
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from celery import Task
from celery.exceptions import Reject, TimeLimitExceeded
from celery.signals import after_setup_logger, worker_process_shutdown
from redis.asyncio import Redis

from backend.celery_app import app, settings
from backend.config import Config
from backend.core import dead_letters, delivery, progress
from backend.core.broker import install as install_forgiving_broker
from backend.core.data_plane import DataPlane
from backend.core.db import Database, is_outage
from backend.core.dead_letter_exchange import install as install_dead_letter_exchange
from backend.core.delivery import Delivery, Postponed
from backend.core.errors import TransientError
from backend.core.keyspace import open_redis
from backend.core.loop_thread import GivenUp, LoopThread, TimeLimit, celery_limits_time
from backend.core.queue import Sender, send_task
from backend.core.rates import Rates
from backend.core.runs import DatabaseAway, Limits, Tracker, install_log_lines, retry_within
from backend.scheduling.publisher import RUN_HEADER

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, object]])

_RETRY_BASE, _RETRY_CAP = 1.0, 60.0
# A header of a message: how many of its retries were none of its tries.
_POSTPONED = "beatline_postponed"


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
    # Idempotency records, locks, rate limits. Nothing is connected before the first command.
    redis: Redis = field(init=False)
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.redis = open_redis(self.config)
        self.rates = Rates(self.redis)

    async def progress(self, done: int, total: int | None = None) -> None:
        """Tell how far the task in hand has come: `done` of `total` steps, where that is known."""
        await progress.report(done, total)

    async def close(self) -> None:
        await self.api.close()
        await self.runs.close()
        await self.redis.aclose()
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


class _Loop(LoopThread):
    """The event loop thread of this process and its runtime."""

    def __init__(self) -> None:
        super().__init__()
        self.runtime: Runtime = self.run(self._open())

    async def _open(self) -> Runtime:
        return open_runtime(settings)

    def close(self) -> None:
        self.run(asyncio.wait_for(self.runtime.close(), 5))
        super().close()


_current: list[_Loop] = []
_starting = threading.Lock()


def _process_loop() -> _Loop:
    with _starting:
        # A forked child inherits the parent's list, not its thread.
        if not _current or _current[0].pid != os.getpid() or _current[0].given_up:
            _current[:] = [_Loop()]
        return _current[0]


def _shut_down(**_: object) -> None:
    if _current and _current[0].pid == os.getpid() and not _current[0].given_up:
        _current.pop().close()


install_forgiving_broker()
install_dead_letter_exchange(app, settings)
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


def _postponed(task: "Task[Any, Any]") -> int:
    return int(task.request.get(_POSTPONED) or 0)


def _tries_left(task: "Task[Any, Any]") -> int:
    return (task.max_retries or 0) + _postponed(task) - int(task.request.retries)


def _postpone(task: "Task[Any, Any]", fault: Postponed) -> Exception:
    """Celery's order to send the message again, as often as it takes."""
    times = _postponed(task)
    wait = _countdown(times) if fault.after is None else max(1.0, fault.after)
    return _again(task, fault, wait, limit=sys.maxsize, headers={_POSTPONED: str(times + 1)})


def _again(task: "Task[Any, Any]", fault: Exception, wait: float, *, limit: int, **options: Any) -> Exception:
    try:
        return task.retry(exc=fault, countdown=wait, max_retries=limit, throw=False, **options)
    except Reject as refused:
        # The broker did not take the retry, and Celery's own answer is to drop the task.
        raise Reject(refused, requeue=True) from fault


def _delivery(task: "Task[Any, Any]") -> Delivery:
    last = _tries_left(task) <= 0

    def within(fault: BaseException) -> float | None:
        if isinstance(fault, TransientError):
            return None if last else max(_RETRY_CAP, fault.after or 0.0)
        return None if last or not is_outage(fault) else _RETRY_CAP

    return Delivery(task.request.id or "", bool((task.request.delivery_info or {}).get("redelivered")), within)


def _run_tracked(loop: _Loop, handler: Handler, run: UUID, limits: Limits, time_limit: TimeLimit | None) -> object:
    runtime = loop.runtime

    async def work(**arguments: Any) -> object:
        delivery.current.set(Delivery(str(run), redelivered=False, retry_within=partial(retry_within, limits=limits)))
        return await handler(runtime, **arguments)

    try:
        return loop.run(runtime.runs.execute(run, handler.__name__, work, limits), time_limit)
    except (DatabaseAway, GivenUp) as fault:
        raise Reject(fault, requeue=True) from fault


def _run_untracked(
    loop: _Loop, handler: Handler, task: "Task[Any, Any]", args: Any, kwargs: Any, time_limit: TimeLimit | None
) -> object:
    """The handler's answer. Every error leaves a dead letter, except the one that Celery's retry needs."""
    # Celery's request is known to the thread that took the message alone.
    request, name, message = task.request, handler.__name__, _delivery(task)
    watched = None if request.ignore_result else progress.of(task)

    async def work() -> object:
        progress.in_hand.set(watched)
        delivery.current.set(message)
        return await handler(loop.runtime, *args, **kwargs)

    try:
        return loop.run(work(), time_limit)
    except Postponed as fault:
        raise _postpone(task, fault) from fault
    except GivenUp as fault:
        raise Reject(fault, requeue=True) from fault
    except TimeLimitExceeded as fault:
        # Its loop is of no use any more.
        dead_letters.record_apart(settings.database_url, dead_letters.of_fault(name, request, fault, exhausted=False))
        raise
    except Exception as fault:
        again = isinstance(fault, TransientError) or is_outage(fault)
        last = _tries_left(task) <= 0
        if not again or last:
            ended = dead_letters.of_fault(name, request, fault, exhausted=again)
            loop.run(dead_letters.record(loop.runtime.db, ended))
            raise
        after = fault.after if isinstance(fault, TransientError) else None
        tries = request.retries - _postponed(task)
        limit = (task.max_retries or 0) + _postponed(task)
        raise _again(task, fault, _countdown(tries, after), limit=limit) from fault


def task(*, max_retries: int = 5, time_limit: int = 300, also: Sequence[str] = ()) -> Callable[[Handler], Handler]:
    """Register an async handler as the Celery task of its own name; the handler itself stays a plain coroutine function.

    It is called as `handler(runtime, **ids)`. `TransientError`, and a database that is away, are retried with backoff, at
    most `max_retries` times; any other error fails the task at once. A task that fails for good becomes a dead letter.
    `time_limit` is seconds; the soft limit comes 30 s before. Both hold on every pool: docs/operations/workers.md. `also` are
    further names of the task.

    A message that stands for a tracked run carries no arguments: they, the tries and the outcome are those of its row.
    """
    limits = Limits(attempts=max_retries + 1, seconds=max(1, time_limit - 35))
    soft = max(1, time_limit - 30)

    def register(handler: Handler) -> Handler:
        def entry(self: "Task[Any, Any]", /, *args: Any, **kwargs: Any) -> object:
            loop = _process_loop()
            own = None if celery_limits_time() else TimeLimit(soft, time_limit)
            if self.request.get(RUN_HEADER):
                return _run_tracked(loop, handler, UUID(self.request.id), limits, own)
            return _run_untracked(loop, handler, self, args, kwargs, own)

        for name in (handler.__name__, *also):
            app.task(
                name=name,
                Request="backend.core.dead_letter_exchange:WatchedRequest",
                bind=True,
                max_retries=max_retries,
                time_limit=time_limit,
                soft_time_limit=soft,
            )(entry)
        return handler

    return register
