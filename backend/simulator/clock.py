"""Scaled time, and the background tasks of one simulator."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
logger = logging.getLogger("simulator")


class Clock:
    """Simulated seconds; one of them lasts `speed` real seconds."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.speed)

    async def wait(self, seconds: float, *signals: asyncio.Future[Any]) -> bool:
        """Whether one of the signals came within the simulated seconds."""
        done, _ = await asyncio.wait(signals, timeout=seconds * self.speed, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    def since(self, started: float) -> float:
        """Simulated seconds since a `time.monotonic()`."""
        return (time.monotonic() - started) / self.speed


class Tasks:
    """Keeps background tasks alive and ends them together."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Nothing starts any more once the tasks were closed."""
        if self._closed:
            coroutine.close()
            return
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            logger.error("A background task failed", exc_info=fault)

    async def close(self) -> None:
        self._closed = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def settle(signal: asyncio.Future[T], value: T) -> None:
    """Give the signal its value; only the first one counts."""
    if not signal.done():
        signal.set_result(value)
