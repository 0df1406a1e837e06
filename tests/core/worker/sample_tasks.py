"""Tasks for a real worker of tests: `celery -A backend.celery_app worker --include=tests.core.worker.sample_tasks`."""

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

from backend.core.errors import PermanentError, TransientError
from backend.core.runtime import Runtime, task

log = logging.getLogger(__name__)


@task()
async def describe_process(runtime: Runtime) -> dict[str, object]:
    return {"pid": os.getpid(), "loop": id(asyncio.get_running_loop()), "thread": threading.current_thread().name}


@task(max_retries=3)
async def succeed_at_second_try(runtime: Runtime, *, marker: str) -> str:
    path = Path(marker)
    if not path.exists():
        path.touch()
        raise TransientError("not yet", after=0)
    return "done"


@task(max_retries=0)
async def never_succeed(runtime: Runtime) -> None:
    raise TransientError("still away")


@task()
async def fail_for_good(runtime: Runtime, *, marker: str) -> None:
    with Path(marker).open("a") as tries:
        tries.write("x")
    raise PermanentError("no retry can help")


@task()
async def reach_the_database(runtime: Runtime) -> str:
    await runtime.db.ping()
    return "reached"


@task(time_limit=31)
async def sleep_too_long(runtime: Runtime, *, marker: str) -> None:
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        Path(marker).touch()
        raise


@task(time_limit=3)
async def refuse_to_end(runtime: Runtime, *, marker: str) -> None:
    while True:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            log.info("not now")
        with Path(marker).open("a") as turns:
            turns.write("x")


@task(time_limit=3)
async def block_the_loop(runtime: Runtime) -> None:
    time.sleep(8)  # noqa: ASYNC251 - that is the fault


@task()
async def come_twice(runtime: Runtime, *, marker: str) -> str:
    """Waits for ever the first time."""
    path = Path(marker)
    with path.open("a") as starts:
        starts.write("x")
    while path.read_text() == "x":
        await asyncio.sleep(0.05)
    return "done"


@task()
async def tell_the_log(runtime: Runtime, *, words: list[str]) -> int:
    for word in words:
        log.warning("said %s", word)
    return len(words)
