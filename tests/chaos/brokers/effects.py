"""Tasks for workers and brokers that are taken away: `celery … worker --include=tests.chaos.brokers.effects`.

Every beginning of an execution is a line of the file that EXECUTIONS names: the ledger knows how often a message really ran. What
it brings about is booked in PostgreSQL: `effects` has a unique key, and `book`, written only by whoever made that row, has
none, so that twice would show.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

from sqlalchemy import text

from backend.celery_app import app
from backend.core.idempotency import idempotent_task
from backend.core.runtime import Runtime, task
from tests.chaos.brokers.ledger import EXECUTIONS, VISIBILITY

_EFFECT = text("insert into effects (number) values (:number) on conflict do nothing")
_BOOK = text("insert into book (number) values (:number)")

if VISIBILITY in os.environ:
    app.conf.broker_transport_options |= {
        "visibility_timeout": int(os.environ[VISIBILITY]),
        "unacked_restore_interval": 1,
        # Who is killed while he looks for messages to restore keeps the others from it: for five minutes, if not told otherwise.
        "unacked_mutex_expire": 2,
    }


def _tell(number: int) -> None:
    file = os.open(Path(os.environ[EXECUTIONS]), os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    try:
        os.write(file, f"{number} {os.getpid()} {time.time()}\n".encode())
    finally:
        os.close(file)


async def _take_effect(runtime: Runtime, number: int) -> None:
    async with runtime.db.transaction() as session:
        connection = await session.connection()
        made = await connection.execute(_EFFECT, {"number": number})
        if made.rowcount:
            await connection.execute(_BOOK, {"number": number})


@task(max_retries=10)
async def take_effect(runtime: Runtime, *, number: int) -> int:
    """The effect alone."""
    _tell(number)
    await _take_effect(runtime, number)
    return number


@task(max_retries=10)
async def take_effect_slowly(runtime: Runtime, *, number: int) -> int:
    """The same, as slowly before the effect as after it: who is killed is killed on either side."""
    _tell(number)
    await asyncio.sleep(0.03)
    await _take_effect(runtime, number)
    await asyncio.sleep(0.03)
    return number


@task(max_retries=10)
@idempotent_task(lease=3)
async def take_effect_once(runtime: Runtime, *, number: int) -> int:
    """The same under a record; the database may be away when it is begun and when it is committed."""
    _tell(number)
    await _take_effect(runtime, number)
    return number


@task()
@idempotent_task(lease=3, key="{number}")
async def book(runtime: Runtime, *, number: int, seconds: float = 0) -> int:
    """Nothing but the record keeps this from being booked twice."""
    _tell(number)
    await asyncio.sleep(seconds)
    async with runtime.db.transaction() as session:
        await (await session.connection()).execute(_BOOK, {"number": number})
    return number


@task()
async def kill_the_process(_runtime: Runtime, *, number: int) -> None:
    """Poison: whoever takes it dies."""
    _tell(number)
    os.kill(os.getpid(), signal.SIGKILL)
