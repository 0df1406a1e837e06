"""Tasks for real workers of tests: `--include=tests.brokers.worker.sample_tasks`. Each start leaves a line in a file."""

import asyncio
import os
import time
from pathlib import Path

from backend.celery_app import app
from backend.core.errors import PermanentError, TransientError
from backend.core.runtime import Runtime, task

FOLDER = Path(os.environ["SEEN_FOLDER"])

if "SHORT_VISIBILITY" in os.environ:
    app.conf.broker_transport_options |= {"visibility_timeout": int(os.environ["SHORT_VISIBILITY"])}
    app.conf.broker_transport_options |= {"unacked_restore_interval": 1}


def note(name: str) -> int:
    """How often `name` was noted, this time included."""
    path = FOLDER / name
    with path.open("a") as lines:
        lines.write(f"{os.getppid()} {time.time()}\n")
    return len(path.read_text().splitlines())


@task()
async def leave_a_mark(runtime: Runtime, *, name: str) -> str:
    note(name)
    return name


@task()
async def hold_until_released(runtime: Runtime, *, name: str) -> str:
    note(name)
    while not (FOLDER / "released").exists():
        await asyncio.sleep(0.05)
    note(f"{name}-done")
    return name


@task(max_retries=3)
async def fail_twice(runtime: Runtime, *, name: str) -> int:
    count = note(name)
    if count < 3:
        raise TransientError("not yet")
    return count


@task()
async def fail_for_good(runtime: Runtime, *, name: str) -> None:
    note(name)
    raise PermanentError("no retry can help")
