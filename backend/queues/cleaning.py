"""What has been kept long enough is deleted, in batches."""

import asyncio
import time
from collections import Counter, deque

from celery import Celery

from backend.audit import service as audit
from backend.config import Config
from backend.core.db import Database
from backend.queues.repository.purging import purge
from backend.queues.retention import RULES
from backend.queues.states import LetterState

BATCH = 1_000
# Well within the task's time limit; the next run goes on.
_SECONDS = 180.0


async def clean(
    db: Database, config: Config, app: Celery, *, batch: int = BATCH, within: float = _SECONDS
) -> dict[str, int]:
    """Delete what is older than it is kept; how many rows of each table.

    `open_letters` of the dead letters nobody had decided about. The tables take turns, a batch each, every batch in a transaction
    of its own, so that nobody waits long for a row and no table for another; after `within` seconds the rest is left to the next
    run.
    Results in Redis expire by themselves; those of a database are deleted here.
    """
    end = time.monotonic() + within
    deleted: Counter[str] = Counter({rule.table: 0 for rule in RULES})
    open_letters = 0
    waiting = deque(rule for rule in RULES if rule.days(config))
    while waiting and time.monotonic() < end:
        rule = waiting.popleft()
        limit = min(batch, rule.batch)
        async with db.transaction() as session:
            if rule.append_only:
                await audit.allow_deletion(session)
            gone = await purge(session, rule, rule.days(config), limit)
        deleted[rule.table] += gone.total()
        open_letters += gone[LetterState.OPEN]
        if gone.total() == limit:
            waiting.append(rule)
    await asyncio.to_thread(app.backend.cleanup)
    return {**deleted, "open_letters": open_letters}
