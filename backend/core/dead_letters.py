"""Tasks that have ended for good become rows of `dead_letters`.

Raw SQL: the table belongs to a domain, and every process that works writes into it. Tracked runs keep their own record in
`job_runs` and never come here.
"""

import asyncio
import json
import logging
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from backend.core.db import Database, Session
from backend.core.errors import PermanentError
from backend.core.redaction import Redactor, storable

log = logging.getLogger(__name__)

# On a message that was sent again: the id of its letter.
LETTER_HEADER = "beatline-letter"

# Waits between the tries to store one: together with them about 8 s, well before a hard time limit strikes.
_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0)
_MAX_ARGUMENTS = 65_536
_MAX_ERROR = 2_000
_MOST_WAITING = 500
_waiting = threading.BoundedSemaphore(_MOST_WAITING)
# Its thread starts with the first letter, and the process's end waits for the last.
_background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dead-letter")
_MAX_TRACEBACK = 32_768


class Kind(StrEnum):
    """Why no further try was made."""

    PERMANENT = "permanent"
    EXHAUSTED = "exhausted"
    ERROR = "error"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    MALFORMED = "malformed"


class Incomplete(StrEnum):
    """Why the arguments that are kept are not those that were sent, so that nobody can send them again."""

    REDACTED = "redacted"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Letter:
    """One task's end. `death` names this one end: storing it a second time counts nothing.

    `again` is the letter whose task was sent again as this one.
    """

    task: str
    task_id: str
    queue: str
    kind: Kind
    arguments: dict[str, Any]
    incomplete: Incomplete | None
    error: str
    traceback: str
    retries: int
    death: str
    again: UUID | None


def letter(
    task: str,
    task_id: str,
    queue: str,
    *,
    kind: Kind,
    args: object,
    kwargs: object,
    error: str,
    trace: str = "",
    retries: int = 0,
    death: str | None = None,
    again: object = None,
) -> Letter:
    """A letter whose arguments, error and traceback hold no secret and fit the table."""
    redactor = Redactor()
    try:
        arguments: Any = redactor.value({"args": args, "kwargs": kwargs})
        too_large = len(json.dumps(arguments)) > _MAX_ARGUMENTS
    except RecursionError:
        arguments, too_large = {}, True
    incomplete = Incomplete.REDACTED if redactor.changed else None
    if too_large:
        arguments, incomplete = {"begins": storable(json.dumps(arguments)[:1000])}, Incomplete.TOO_LARGE
    return Letter(
        task=storable(task)[:255],
        task_id=storable(task_id)[:255],
        queue=storable(queue)[:255],
        kind=kind,
        arguments=arguments,
        incomplete=incomplete,
        error=redactor.text(error)[:_MAX_ERROR],
        traceback=redactor.text(trace)[-_MAX_TRACEBACK:],
        retries=retries,
        death=death or str(uuid4()),
        again=_uuid(again),
    )


def _uuid(given: object) -> UUID | None:
    """Of a header, which anybody may have written."""
    try:
        return UUID(given) if isinstance(given, str) else None
    except ValueError:
        return None


def queue_of(delivery_info: dict[str, Any] | None) -> str:
    """The queue that a message came from; a delayed one's routing key begins with the bits of its delay."""
    return str((delivery_info or {}).get("routing_key") or "").rpartition(".")[2]


def unsendable(found: Letter) -> Letter:
    """The letter of something that is no task message."""
    return replace(found, incomplete=Incomplete.MALFORMED)


def of_fault(task: str, request: Any, fault: BaseException, *, exhausted: bool) -> Letter:
    """The letter of a task whose last try raised `fault`; `request` is Celery's. `exhausted`: another try might have helped."""
    return letter(
        task,
        str(request.id),
        queue_of(request.delivery_info),
        kind=Kind.EXHAUSTED if exhausted else _kind(fault),
        args=request.args or [],
        kwargs=request.kwargs or {},
        error=f"{type(fault).__name__}: {fault}",
        trace="".join(traceback.format_exception(fault)),
        retries=request.retries or 0,
        again=request.get(LETTER_HEADER),
    )


def _kind(fault: BaseException) -> Kind:
    if isinstance(fault, PermanentError):
        return Kind.PERMANENT
    return Kind.TIMED_OUT if isinstance(fault, SoftTimeLimitExceeded | TimeLimitExceeded) else Kind.ERROR


_VALUES = """
    queue = :queue, kind = :kind, arguments = cast(:arguments as jsonb), incomplete = :incomplete, error = :error,
    traceback = :traceback, retries = :retries, last_seen = now(), count = dead_letters.count + 1, death = :death,
    state = 'open', closed_at = null, closed_by = ''
"""

# A letter that was sent again, and has come back: waits for whoever sent it to commit.
_REOPEN = f"update dead_letters set {_VALUES} where id = :again and task = :task and death <> :death"  # noqa: S608 - constants
_KNOWN = "select 1 from dead_letters where id = :again and task = :task"
_INSERT = f"""
insert into dead_letters (id, task, task_id, queue, arguments, incomplete, error, traceback, retries, kind, death,
    first_seen, last_seen, count, state, closed_by)
values (:id, :task, :task_id, :queue, cast(:arguments as jsonb), :incomplete, :error, :traceback, :retries, :kind, :death,
    now(), now(), 1, 'open', '')
on conflict (task_id) do update set {_VALUES} where dead_letters.death <> excluded.death
"""  # noqa: S608 - made of constants


async def store(session: Session, found: Letter) -> None:
    """Insert the letter, or count one more end of the same task; a second call for the same end changes nothing."""
    connection = await session.connection()
    row = _row(found)
    if found.again is not None:
        done = await connection.execute(text(_REOPEN), row)
        if done.rowcount or (await connection.execute(text(_KNOWN), row)).first():
            return
    await connection.execute(text(_INSERT), row)


async def record(db: Database, found: Letter) -> None:
    """Store it in a transaction of its own; while the database is away try again for 8 s, then log the whole row."""
    for wait in (*_WAITS, None):
        try:
            async with db.transaction() as session:
                await store(session, found)
        except (SQLAlchemyError, OSError, TimeoutError) as fault:
            if wait is None:
                log.critical("dead letter not stored (%s): %s", fault, json.dumps(_row(found)))
                return
            await asyncio.sleep(wait)
        else:
            return


def record_apart(database_url: str, found: Letter) -> None:
    """`record` in the background, one after another, for a process without an event loop, which must not wait.

    A flood of letters, or an outage, ends in the log: at most _MOST_WAITING are kept in mind.
    """

    async def work() -> None:
        db = Database(database_url, pool_size=1)
        try:
            await record(db, found)
        finally:
            await db.close()
            _waiting.release()

    if _waiting.acquire(blocking=False):
        _background.submit(lambda: asyncio.run(work()))
    else:
        log.critical("dead letter not stored (too many at once): %s", json.dumps(_row(found)))


def _row(found: Letter) -> dict[str, Any]:
    again = str(found.again) if found.again is not None else None
    return asdict(found) | {"id": str(uuid4()), "arguments": json.dumps(found.arguments), "again": again}
