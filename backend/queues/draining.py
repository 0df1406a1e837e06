"""Messages that RabbitMQ has put aside become dead letters."""

import asyncio
from contextlib import ExitStack
from typing import Any

from celery import Celery

from backend.core import dead_letters
from backend.core.db import Database
from backend.core.dead_letter_exchange import dead_letter_queue, of_message
from backend.core.errors import TransientError
from backend.queues import brokers


class _Tray:
    """The broker's queue of dead messages; blocking."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._stack = ExitStack()
        self._queue: Any = None

    def open(self) -> None:
        connection = self._stack.enter_context(brokers.connected(self._app))
        self._queue = dead_letter_queue()(connection.default_channel)
        self._queue.declare()

    def take(self) -> Any:
        """The next message, which stays the broker's until it is acknowledged; None when there is none."""
        return self._queue.get(accept=self._app.conf.accept_content)

    def close(self) -> None:
        self._stack.close()


async def drain(db: Database, app: Celery, *, limit: int) -> dict[str, int]:
    """Move up to `limit` messages into the table, each acknowledged after its commit; how many of them were what.

    Those of tracked runs are acknowledged alone: the reconciler sends them again from their rows. Redis has no such queue.
    A second delivery, after a crash between commit and acknowledgement, counts nothing twice. Raises TransientError while the
    broker is away.
    """
    moved = {"stored": 0, "runs": 0}
    if app.connection_for_read().transport.driver_type != "amqp":
        return moved
    tray = _Tray(app)
    try:
        await asyncio.to_thread(tray.open)
        for _ in range(limit):
            message = await asyncio.to_thread(tray.take)
            if message is None:
                break
            moved["stored" if await _keep(db, message) else "runs"] += 1
            await asyncio.to_thread(message.ack)
    except brokers.FAULTS as fault:
        raise TransientError(f"RabbitMQ: {type(fault).__name__}: {fault}") from fault
    finally:
        await asyncio.to_thread(tray.close)
    return moved


async def _keep(db: Database, message: Any) -> bool:
    death = _last_death(message)
    queue = str(death.get("queue") or message.delivery_info.get("routing_key") or "")
    reason = {"delivery_limit": "delivered too often", "rejected": "rejected by a worker", "expired": "expired"}
    why = f"RabbitMQ: {reason.get(str(death.get('reason')), death.get('reason') or 'dead-lettered')} in queue {queue}"
    # Names this one death, whichever delivery of the message to us tells of it.
    mark = f"{death.get('time')} {death.get('count')} {(message.headers or {}).get('id')}" if death else None
    letter = of_message(message, queue, why, mark)
    if letter is None:
        return False
    async with db.transaction() as session:
        await dead_letters.store(session, letter)
    return True


def _last_death(message: Any) -> dict[str, Any]:
    """RabbitMQ's header `x-death`, newest first."""
    deaths = (message.headers or {}).get("x-death")
    return dict(deaths[0]) if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
