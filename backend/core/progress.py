"""How far a task has come, for whoever asks for its state: kept in the result store as the state PROGRESS."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

PROGRESS = "PROGRESS"
# A handler may report as often as it likes; the result store hears of it this often, and of the last step.
_EVERY_SECONDS = 0.5


@dataclass
class TaskInHand:
    """The task whose handler runs in this context; `keep` stores its progress, blocking."""

    keep: Callable[[dict[str, int | None]], object]
    told_at: float = field(default=-math.inf)


in_hand: ContextVar[TaskInHand | None] = ContextVar("task_in_hand", default=None)


def of(task: Any) -> TaskInHand:
    """Of the Celery task that this process works on."""
    task_id = task.request.id
    return TaskInHand(lambda seen: task.backend.store_result(task_id, seen, PROGRESS))


async def report(done: int, total: int | None) -> None:
    """Nothing happens for a task whose result nobody wanted. A result store that is away never fails the task."""
    current = in_hand.get()
    now = time.monotonic()
    if current is None or (now - current.told_at < _EVERY_SECONDS and done != total):
        return
    current.told_at = now
    try:
        await asyncio.to_thread(current.keep, {"done": done, "total": total})
    # Each result store has errors of its own, and none of them is the task's.
    except Exception as fault:  # noqa: BLE001
        log.warning("progress not kept: %s", fault)
