"""Tasks for a real worker of tests: `celery -A backend.celery_app worker --include=tests.core.worker.sample_tasks`."""

import asyncio
import logging
import os
import threading
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


@task()
async def tell_the_log(runtime: Runtime, *, words: list[str]) -> int:
    for word in words:
        log.warning("said %s", word)
    return len(words)
