"""What the queues leave behind is deleted by age, in batches."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from celery import Celery

from backend.config import Config
from backend.core.db import Database, Session
from backend.queues.repository.letters import LetterRepository
from backend.queues.repository.sent import SentTaskRepository
from backend.queues.repository.workers import WorkerRepository
from backend.queues.states import LetterState

BATCH = 1_000

# Expired tasks are shown as such for a while; a worker that is gone, and checks of the past, interest nobody for longer.
_SENT_AFTER_EXPIRY = timedelta(days=7)
_HEARTBEATS = timedelta(days=7)
_CHECKS = timedelta(days=7)


async def clean(db: Database, config: Config, app: Celery, *, batch: int = BATCH) -> dict[str, int]:
    """Delete what is older than it is kept; how many rows of what. `open_letters` of the dead letters nobody had decided about.

    Results in Redis expire by themselves; those of a database are deleted here.
    """
    letters = {"letters": 0, "open_letters": 0}

    async def purge_letters(session: Session) -> int:
        states = await LetterRepository(session).purge(timedelta(days=config.dead_letter_retention_days), batch)
        letters["letters"] += len(states)
        letters["open_letters"] += states.count(LetterState.OPEN)
        return len(states)

    if config.dead_letter_retention_days:
        await _in_batches(db, purge_letters, batch)
    sent = await _in_batches(db, lambda session: SentTaskRepository(session).purge(_SENT_AFTER_EXPIRY, batch), batch)
    beats = await _in_batches(
        db, lambda session: WorkerRepository(session).purge("worker_heartbeats", _HEARTBEATS, batch), batch
    )
    checks = await _in_batches(
        db, lambda session: WorkerRepository(session).purge("health_checks", _CHECKS, batch), batch
    )
    await asyncio.to_thread(app.backend.cleanup)
    return {**letters, "sent_tasks": sent, "heartbeats": beats, "health_checks": checks}


async def _in_batches(db: Database, purge: Callable[[Session], Awaitable[int]], batch: int) -> int:
    """Each batch is a transaction of its own, so that nobody waits long for a row."""
    total = 0
    while True:
        async with db.transaction() as session:
            deleted = await purge(session)
        total += deleted
        if deleted < batch:
            return total
