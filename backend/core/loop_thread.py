"""The event loop of a worker process, in a thread of its own, and the time limits of what it runs."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from billiard import current_process
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.signals import worker_init

log = logging.getLogger(__name__)

T = TypeVar("T")

POOLS = ("prefork", "solo", "threads")
# How often a waiting thread looks up, and how often work that goes on after its time is cancelled again.
_LOOK_SECONDS = 0.5


class GivenUp(Exception):
    """The loop was given up for another task's sake; this one's work was cut off where it stood."""


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """Seconds after which work is cancelled, and after which nobody waits for it any more."""

    soft: float
    hard: float


def celery_limits_time() -> bool:
    """Whether this is a child of the prefork pool: the only one whose soft and hard limits Celery sees to."""
    return bool(current_process().name != "MainProcess")


class LoopThread:
    """An event loop that runs in the background until it is closed, or given up."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.given_up = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="beatline-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], limit: TimeLimit | None = None) -> T:
        """Wait for the work. `limit` is None where Celery sees to it: it raises SoftTimeLimitExceeded here, then kills the process.

        When its time is over the work is cancelled, each half second anew until it ends; SoftTimeLimitExceeded unless it
        then answers. Past the hard limit TimeLimitExceeded: the loop is given up with everything on it, and raises GivenUp for
        whoever else waits.
        """
        began, outcome, cancel = time.monotonic(), *self._begin(work)
        try:
            return outcome.result() if limit is None else self._result(outcome, limit, began)
        except SoftTimeLimitExceeded as fault:
            self._stop(outcome, cancel, None if limit is None else limit.hard, began)
            if outcome.exception() is not None:
                raise SoftTimeLimitExceeded(*fault.args) from outcome.exception()
            return outcome.result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _begin(self, work: Coroutine[Any, Any, T]) -> tuple["Future[T]", Callable[[], None]]:
        outcome: Future[T] = Future()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(self._loop.create_task(work))
            begun[0].add_done_callback(settle)

        def settle(done: "asyncio.Task[T]") -> None:
            fault = CancelledError() if done.cancelled() else done.exception()
            if fault is None:
                outcome.set_result(done.result())
            else:
                outcome.set_exception(fault)

        def cancel() -> None:
            begun[0].cancel()

        self._loop.call_soon_threadsafe(begin)
        return outcome, cancel

    def _result(self, outcome: "Future[T]", limit: TimeLimit, began: float) -> T:
        while not outcome.done():
            left = began + limit.soft - time.monotonic()
            if left <= 0:
                raise SoftTimeLimitExceeded(f"not done within {limit.soft:g} s")
            self._look(outcome, left)
        return outcome.result()

    def _look(self, outcome: "Future[T]", seconds: float) -> None:
        wait([outcome], timeout=min(_LOOK_SECONDS, seconds))
        if self.given_up and not outcome.done():
            raise GivenUp("another task did not end within its hard time limit")

    def _stop(self, outcome: "Future[T]", cancel: Callable[[], None], hard: float | None, began: float) -> None:
        while not outcome.done():
            if hard is not None and time.monotonic() - began >= hard:
                self._give_up(hard)
            self._loop.call_soon_threadsafe(cancel)
            self._look(outcome, _LOOK_SECONDS)

    def _give_up(self, hard: float) -> None:
        """Nothing of it goes on, apart from code that does not come back to the loop: no thread can be killed."""
        self.given_up = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        log.critical("work that does not end: its event loop is given up, with everything on it")
        raise TimeLimitExceeded(f"not done within its hard time limit of {hard:g} s; its event loop was given up")


def _refuse_pool(sender: Any, **_: object) -> None:
    """Raises SystemExit for pools that put green threads in the place of the loop's thread."""
    pool = str(sender.pool_cls.__module__).rpartition(".")[2]
    if pool in {"eventlet", "gevent"}:
        raise SystemExit(f"beatline: the pool {pool} cannot run async tasks; use one of {', '.join(POOLS)}")


worker_init.connect(_refuse_pool, weak=False)
