"""Tasks that the API sends for people, and what has become of them."""

import asyncio
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from celery import Celery
from kombu.exceptions import OperationalError

from backend.celery_app import TASK_ROUTES
from backend.celery_app import app as celery_app
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.errors import Conflict, NotFound, Unavailable
from backend.core.messages import send_wanted
from backend.core.progress import PROGRESS
from backend.core.redaction import Redactor
from backend.queues.models import SentTask
from backend.queues.repository.sent import SentTaskRepository
from backend.queues.schemas import TaskProgress, TaskRead, TaskSent
from backend.queues.states import TaskState

_BROKER_SECONDS = 8.0
# Longer than anybody waits for the broker: after that, whoever claimed the row is gone.
_CLAIM = timedelta(seconds=15)
_POLL_SECONDS = 0.05
_STORE_SECONDS = 8.0
_STATES = {str(state) for state in TaskState}


@dataclass(frozen=True, slots=True)
class Sent:
    """A task that was sent. `replayed`: by an earlier request of the same key."""

    task: TaskSent
    replayed: bool


async def send(
    db: Database,
    name: str,
    arguments: dict[str, Any],
    *,
    expires: int,
    idempotency_key: str | None = None,
    wish: dict[str, Any] | None = None,
    actor: str = "api",
    app: Celery = celery_app,
) -> Sent:
    """Send a task of ours, once per key. Its message and its result are kept for `expires` seconds.

    `wish` is what tells two requests of one key apart, where the arguments hold more than was asked for. The row comes before
    the message, so that whoever got an id can ask for it. Conflict (409, `idempotency_key`) when the key was
    used for another wish; Unavailable (503, `broker_away`): nothing was sent, the same key may be used again.
    """
    row = _new_row(name, arguments if wish is None else wish, expires, idempotency_key, actor)
    async with db.transaction() as session:
        ours = await SentTaskRepository(session).add(row)
    if not ours:
        row, ours = await _earlier(db, row)
    if not ours:
        return Sent(_sent(row), replayed=True)
    try:
        work = asyncio.to_thread(send_wanted, app, name, arguments, task_id=row.id, expires=expires)
        await asyncio.wait_for(work, _BROKER_SECONDS)
    except (OperationalError, OSError, TimeoutError) as fault:
        await _take_back(db, row)
        raise Unavailable("The broker is away; try again shortly.", code="broker_away", retry_after=5) from fault
    if idempotency_key is not None:
        async with db.transaction() as session:
            await SentTaskRepository(session).mark_sent(row.id)
    return Sent(_sent(row), replayed=False)


def _new_row(name: str, wish: dict[str, Any], expires: int, key: str | None, actor: str) -> SentTask:
    now = utc_now()
    return SentTask(
        id=uuid4(),
        name=name,
        queue=TASK_ROUTES[name]["queue"],
        fingerprint=hashlib.sha256(json.dumps([name, wish], sort_keys=True).encode()).hexdigest(),
        idempotency_key=key,
        sent_by=actor,
        created_at=now,
        claimed_until=now + _CLAIM,
        # Without a key nobody can ask for it before it was sent: one transaction less.
        sent_at=None if key else now,
        expires_at=now + timedelta(seconds=expires),
    )


async def _earlier(db: Database, wish: SentTask) -> tuple[SentTask, bool]:
    """The row of an earlier request of this key, and whether it is now ours to send: its sender died, or failed."""
    key = wish.idempotency_key or ""
    while True:
        async with db.transaction() as session:
            sent = SentTaskRepository(session)
            row = await sent.find_by_key(key)
            if row is not None and row.fingerprint != wish.fingerprint:
                raise Conflict(
                    f"Idempotency-Key {key!r} was used for something else; use a new one", code="idempotency_key"
                )
            if row is None:
                # Removed since: by a clean-up.
                if await sent.add(wish):
                    return wish, True
            elif row.sent_at is not None:
                return row, False
            elif await sent.claim(row.id, _CLAIM):
                return row, True
        await asyncio.sleep(_POLL_SECONDS)


async def _take_back(db: Database, row: SentTask) -> None:
    async with db.transaction() as session:
        if row.idempotency_key is None:
            await SentTaskRepository(session).remove(row.id)
        else:
            await SentTaskRepository(session).release(row.id)


async def read(db: Database, task_id: UUID, *, sender: str | None = None, app: Celery = celery_app) -> TaskRead:
    """Where a task that this API has sent is; with `sender`, one that they have sent.

    NotFound (404); Unavailable (503, `result_store_away`).
    """
    async with db.transaction() as session:
        row = await SentTaskRepository(session).find(task_id)
    if row is None or (sender is not None and row.sent_by != sender):
        raise NotFound(f"no task {task_id} was sent through this API, or it expired long ago")
    try:
        meta = await asyncio.wait_for(asyncio.to_thread(_kept, app, str(task_id)), _STORE_SECONDS)
    # Each result store has errors of its own; whichever it is, the answer is not to be had now.
    except Exception as fault:
        raise Unavailable("The result store is away.", code="result_store_away", retry_after=5) from fault
    return _read(row, meta)


def _kept(app: Celery, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = app.backend.get_task_meta(task_id, cache=False)
    return found


def _read(row: SentTask, meta: dict[str, Any]) -> TaskRead:
    kept, found = str(meta.get("status")), meta.get("result")
    # Any other is a state of the handler's own, such as its progress.
    state = TaskState(kept) if kept in _STATES else TaskState.STARTED
    if state == TaskState.PENDING and row.expires_at < utc_now():
        # No worker starts it any more, and a result is kept longer than that after its task's start.
        state = TaskState.EXPIRED
    error = None
    if state in {TaskState.FAILURE, TaskState.RETRY, TaskState.REVOKED}:
        error = Redactor().text(f"{type(found).__name__}: {found}")
    ended = state in {TaskState.SUCCESS, TaskState.FAILURE, TaskState.REVOKED}
    return TaskRead(
        **_sent(row).model_dump(exclude={"state"}),
        state=state,
        progress=TaskProgress.model_validate(found) if kept == PROGRESS else None,
        result=found if state == TaskState.SUCCESS else None,
        error=error,
        finished_at=_instant(meta.get("date_done")) if ended else None,
        expires_at=row.expires_at,
    )


def _instant(value: object) -> datetime | None:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=utc_now().tzinfo)


def _sent(row: SentTask) -> TaskSent:
    return TaskSent(id=row.id, name=row.name, queue=row.queue, state=TaskState.PENDING, created_at=row.created_at)
