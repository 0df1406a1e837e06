"""Idempotent tasks for a real worker of tests; `book` is a file in which every execution leaves its lines."""

import asyncio
import os
from pathlib import Path

from backend.core.errors import PermanentError, TransientError
from backend.core.idempotency import idempotent_task
from backend.core.locks import Lock
from backend.core.runtime import Runtime, task

LEASE = 2.0


def _write(book: str, line: str) -> None:
    with Path(book).open("a") as lines:
        lines.write(f"{line}\n")


# No tries at all: what is put off must not count as one.
@task(max_retries=0)
@idempotent_task(key="{order}", lease=LEASE)
async def pay(runtime: Runtime, *, order: str, book: str, seconds: float = 0.0) -> dict[str, object]:
    """Takes `seconds` the first time that it is executed."""
    _write(book, f"began {os.getpid()}")
    if len(Path(book).read_text().splitlines()) == 1:
        await asyncio.sleep(seconds)
    _write(book, f"charged {order}")
    return {"charged": order}


@task(max_retries=3)
@idempotent_task(key="{order}", lease=LEASE)
async def pay_at_second_try(runtime: Runtime, *, order: str, book: str) -> dict[str, object]:
    _write(book, "tried")
    if len(Path(book).read_text().splitlines()) == 1:
        raise TransientError("the bank is away")
    _write(book, f"charged {order}")
    return {"charged": order}


@task(max_retries=3)
@idempotent_task(key="{order}", lease=LEASE)
async def refuse(runtime: Runtime, *, order: str, book: str) -> None:
    _write(book, "refused")
    raise PermanentError("the card is refused")


@task(max_retries=0)
async def send_message(runtime: Runtime, *, number: str, book: str) -> str:
    await runtime.rates.spend_or_postpone("2/second", "message", number)
    _write(book, "sent")
    return "sent"


@task(max_retries=0)
async def hold_lock(runtime: Runtime, *, lock: str, book: str, seconds: float = 0.0) -> int:
    async with Lock(runtime.redis, lock, lease=LEASE, wait=20) as held:
        _write(book, f"held {os.getpid()}")
        await asyncio.sleep(seconds)
        return held.fence
