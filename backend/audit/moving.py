"""From the outbox into the logs."""

import time
from uuid import UUID

from backend.audit.models import Kind
from backend.audit.repository.outbox import OutboxRepository
from backend.core.db import Database

_BATCH = 1_000
# Well within the task's time limit; the next sweep goes on.
_SWEEP_SECONDS = 60.0


async def move(db: Database, kind: Kind, batch: UUID) -> int:
    """Move the entries of a batch into their log; how many. Doing it again moves nothing."""
    async with db.transaction() as session:
        return await OutboxRepository(session).move_batch(kind, batch)


async def sweep(db: Database, *, batch: int = _BATCH, within: float = _SWEEP_SECONDS) -> int:
    """Move every entry into its log, oldest first, each batch in a transaction of its own, for at most `within` seconds."""
    moved, end = 0, time.monotonic() + within
    for kind in Kind:
        while time.monotonic() < end:
            async with db.transaction() as session:
                count = await OutboxRepository(session).move_oldest(kind, batch)
            moved += count
            if count < batch:
                break
    return moved
