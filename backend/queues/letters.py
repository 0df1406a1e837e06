"""Dead letters: reading them, sending them again, discarding them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from celery import Celery
from kombu.exceptions import OperationalError

from backend.celery_app import QUEUE_LIMITS, TASK_ROUTES
from backend.celery_app import app as celery_app
from backend.core.db import Database, Session
from backend.core.errors import AppError, Conflict, NotFound, Unavailable
from backend.core.messages import send_again
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.queues.models import DeadLetter
from backend.queues.repository.letters import LetterRepository
from backend.queues.schemas import LetterFilter, LetterRead, LetterSummary
from backend.queues.states import LetterState

_BROKER_SECONDS = 8.0


async def list_letters(
    session: Session,
    wanted: LetterFilter,
    *,
    state: LetterState | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[LetterSummary]:
    """By their last end, newest first."""
    rows = await LetterRepository(session).page(wanted, state=state, after=decode_cursor(cursor), limit=limit + 1)
    more = encode_cursor((rows[limit - 1].last_seen, rows[limit - 1].id)) if len(rows) > limit else None
    return Page(items=[_summary(row) for row in rows[:limit]], next_cursor=more)


async def count_letters(
    session: Session,
    wanted: LetterFilter,
    *,
    state: LetterState | None = None,
    sendable: bool = False,
    at_most: int = 1_000,
) -> int:
    """How many there are; `at_most` also where there are more. `sendable`: those whose arguments are whole."""
    return await LetterRepository(session).count(wanted, state=state, sendable=sendable, at_most=at_most)


async def read_letter(session: Session, letter_id: UUID) -> LetterRead:
    return _read(_found(await LetterRepository(session).find(letter_id), letter_id))


async def requeue(
    session: Session, letter_id: UUID, *, actor: str, before: datetime | None = None, app: Celery = celery_app
) -> LetterSummary:
    """Send the task again with the arguments it had, under an id of its own; asking again changes nothing.

    The row stays locked while the broker is asked. Should the commit fail after that, the next request sends the same task id once
    more: a task may run twice, as always. A discarded letter can be sent again. With `before`, what has ended later is left alone.

    Conflict (409, `incomplete`) where the arguments are not whole, (409, `unknown_task`) for a task that this version does not
    have; Unavailable (503, `broker_away`).
    """
    letters = LetterRepository(session)
    row = _found(await letters.lock(letter_id), letter_id)
    if row.state == LetterState.REQUEUED or (before is not None and row.last_seen > before):
        return _summary(row)
    if row.incomplete is not None:
        raise Conflict(f"dead letter {letter_id}: its arguments are {row.incomplete}", code="incomplete")
    if row.task not in TASK_ROUTES:
        raise Conflict(f"dead letter {letter_id}: this version has no task {row.task!r}", code="unknown_task")
    task_id = str(uuid5(row.id, f"requeue {row.requeue_count + 1}"))
    await _send(app, row, task_id)
    row.state, row.requeued_task_id, row.requeue_count = LetterState.REQUEUED, task_id, row.requeue_count + 1
    row.closed_at, row.closed_by = await letters.now(), actor
    await letters.save(row)
    return _summary(row)


async def discard(session: Session, letter_id: UUID, *, actor: str) -> LetterSummary:
    """Decide that nothing is to be done; asking again changes nothing. Conflict (409, `requeued`) for what was sent again."""
    letters = LetterRepository(session)
    row = _found(await letters.lock(letter_id), letter_id)
    if row.state == LetterState.REQUEUED:
        raise Conflict(f"dead letter {letter_id} was sent again as task {row.requeued_task_id}", code="requeued")
    if row.state == LetterState.OPEN:
        row.state, row.closed_at, row.closed_by = LetterState.DISCARDED, await letters.now(), actor
        await letters.save(row)
    return _summary(row)


async def requeue_many(
    db: Database,
    wanted: LetterFilter,
    *,
    limit: int,
    per_second: float,
    before: datetime,
    actor: str,
    app: Celery = celery_app,
) -> AsyncIterator[tuple[int, int, str | None]]:
    """Send open letters again, oldest first, at that pace; yields (how many are through, of how many, why one was refused).

    What ends again meanwhile, that is after `before`, is not sent a second time. The broker being away ends it with Unavailable; a
    second call goes on with what is left.
    """
    async with db.transaction() as session:
        chosen = await LetterRepository(session).open_before(wanted, before, limit)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, letter_id in enumerate(chosen):
        await asyncio.sleep(max(0.0, began + number / per_second - loop.time()))
        refused = None
        try:
            async with db.transaction() as session:
                await requeue(session, letter_id, actor=actor, before=before, app=app)
        except Unavailable:
            raise
        except AppError as fault:
            refused = fault.detail
        yield number + 1, len(chosen), refused


async def _send(app: Celery, row: DeadLetter, task_id: str) -> None:
    args: list[Any] = list(row.arguments.get("args") or [])
    kwargs: dict[str, Any] = dict(row.arguments.get("kwargs") or {})
    queue = row.queue if row.queue in QUEUE_LIMITS else TASK_ROUTES[row.task]["queue"]
    work = asyncio.to_thread(send_again, app, row.task, args, kwargs, task_id=task_id, queue=queue, letter=row.id)
    try:
        await asyncio.wait_for(work, _BROKER_SECONDS)
    except (OperationalError, OSError, TimeoutError) as fault:
        raise Unavailable("The broker is away; try again shortly.", code="broker_away", retry_after=5) from fault


def _found(row: DeadLetter | None, letter_id: UUID) -> DeadLetter:
    if row is None:
        raise NotFound(f"no dead letter {letter_id}")
    return row


def _can_requeue(row: DeadLetter) -> bool:
    return row.incomplete is None and row.task in TASK_ROUTES and row.state != LetterState.REQUEUED


def _summary(row: DeadLetter) -> LetterSummary:
    return LetterSummary.model_validate(row.model_dump() | {"can_requeue": _can_requeue(row)})


def _read(row: DeadLetter) -> LetterRead:
    return LetterRead.model_validate(row.model_dump() | {"can_requeue": _can_requeue(row)})
