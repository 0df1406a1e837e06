"""Enqueue by task name, with ids, after the commit."""

import asyncio
import logging
from typing import Any, Protocol

from kombu.exceptions import OperationalError

from backend.celery_app import app

log = logging.getLogger(__name__)

_PENDING = "beatline.enqueue"


class Sender(Protocol):
    """Publishes one task; blocking. Raises kombu's OperationalError while the broker is away."""

    def __call__(self, name: str, arguments: dict[str, str | int]) -> None: ...


class HasInfo(Protocol):
    @property
    def info(self) -> dict[Any, Any]: ...


def enqueue(session: HasInfo, name: str, **arguments: str | int) -> None:
    """Send task `name` once the session's transaction has committed; a rollback drops it. Ids only, no payloads."""
    session.info.setdefault(_PENDING, []).append((name, arguments))


def send_task(name: str, arguments: dict[str, str | int]) -> None:
    """The `Sender` of every process: the queue follows from the name in celery_app."""
    app.send_task(name, kwargs=arguments, ignore_result=True)


async def flush(session: HasInfo, send: Sender, *, within: float = 3.0) -> None:
    """Send what `enqueue` gathered, waiting at most `within` seconds.

    A broker that is away loses nothing: the rows say what is due, and the sweeps (`advance_calls`, `sweep_recordings`) send it.
    """
    pending: list[tuple[str, dict[str, str | int]]] = session.info.pop(_PENDING, [])
    if not pending:
        return
    try:
        await asyncio.wait_for(asyncio.to_thread(_send_all, send, pending), within)
    except (OperationalError, OSError, TimeoutError) as fault:
        names = ", ".join(sorted({name for name, _ in pending}))
        log.warning("broker away, left to the sweep: %s (%s)", names, fault or type(fault).__name__)


def _send_all(send: Sender, pending: list[tuple[str, dict[str, str | int]]]) -> None:
    for name, arguments in pending:
        send(name, arguments)
