"""From the requests to the outbox: notes gather in memory and are stored together, so that no request waits."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from backend.audit.models import Kind
from backend.audit.noting import Noted, columns
from backend.audit.repository.outbox import OutboxRepository
from backend.core.db import Database
from backend.core.queue import Sender, enqueue, flush

log = logging.getLogger(__name__)

# Requests that end within this time share a transaction.
_LINGER_SECONDS = 0.05
_BATCH = 200
_CAPACITY = 10_000
# From here on bodies are not kept, and what nobody has signed for finds no room: memory stays small, and a stranger's flood
# cannot push out what people have done.
_CROWDED = 1_000
_SHORTEST_WAIT, _LONGEST_WAIT = 0.5, 10.0
# SQLSTATE: data that no column takes, a constraint. No second try can help.
_HOPELESS = ("22", "23")


@dataclass
class _Messages:
    """What is to be sent; see `enqueue`."""

    info: dict[Any, Any] = field(default_factory=dict)


class Recorder:
    """Takes notes without waiting, and stores them in the outbox from a task of its own.

    While the database is away up to `capacity` notes wait; what finds no room is written to the process's log, loudly. `close`
    stores what is left, for at most the time it is given, and does the same with what it cannot store.
    """

    def __init__(self, db: Database, send: Sender, *, capacity: int = _CAPACITY) -> None:
        self._db, self._send, self._capacity = db, send, capacity
        self._notes: deque[Noted] = deque()
        self._arrived = asyncio.Event()
        self._messages = _Messages()
        self._running: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to store. Inside the event loop of the requests."""
        self._running = asyncio.create_task(self._run())

    def note(self, noted: Noted) -> None:
        """Take a note; never waits."""
        waiting = len(self._notes)
        if self._running is None or self._running.done():
            log.critical("operation not logged, nothing stores any more: %s", noted)
            return
        if waiting >= self._capacity or (waiting >= _CROWDED and noted.principal is None):
            log.critical("operation not logged, %d wait already: %s", waiting, noted)
            return
        if waiting >= _CROWDED:
            noted.body = None
        self._notes.append(noted)
        self._arrived.set()

    async def close(self, within: float = 5.0) -> None:
        """Store what is left; what cannot be stored goes to the process's log."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._store_all()
                if self._sending is not None:
                    await self._sending
        for noted in self._notes:
            log.critical("operation not logged, the process ends: %s", noted)
        self._notes.clear()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(_LINGER_SECONDS)
            self._arrived.clear()
            await self._store_all()

    async def _store_all(self) -> None:
        """Until there is nothing left, however long the database is away."""
        wait = 0.0
        while self._notes:
            batch = [self._notes[index] for index in range(min(_BATCH, len(self._notes)))]
            try:
                await self._store(batch)
            except (SQLAlchemyError, OSError) as fault:
                wait = min(_LONGEST_WAIT, max(_SHORTEST_WAIT, wait * 2))
                log.warning("%d operations wait to be logged: %s", len(self._notes), type(fault).__name__)
                await asyncio.sleep(wait)
                continue
            if wait:
                log.info("operations are logged again")
            wait = 0.0
            for _ in batch:
                self._notes.popleft()

    async def _store(self, batch: Sequence[Noted]) -> None:
        """Store a batch. Entries keep their ids, so that storing one again, after a commit whose answer was lost, is once."""
        try:
            await self._insert(batch)
        except DBAPIError as fault:
            if not str(getattr(fault.orig, "sqlstate", "")).startswith(_HOPELESS):
                raise
            if len(batch) == 1:
                log.critical("operation not logged, %s: %s", type(fault.orig).__name__, batch[0])
                return
            for noted in batch:
                await self._store([noted])

    async def _insert(self, batch: Sequence[Noted]) -> None:
        number = uuid4()
        rows = [{"id": str(noted.id), "at": noted.at.isoformat(), "body": columns(noted)} for noted in batch]
        async with self._db.transaction() as session:
            await OutboxRepository(session).add_many(Kind.OPERATION, number, rows)
        enqueue(self._messages, "log_operation", batch=str(number))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        """Send messages beside the storing: a broker that is away must not hold it up."""
        while self._messages.info:
            await flush(self._messages, self._send)
