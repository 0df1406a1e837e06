"""Tasks that end in every way: `--include=tests.queues.worker.sample_tasks`."""

import asyncio
import os
import time

from backend.core.errors import PermanentError, TransientError
from backend.core.runtime import Runtime, task


@task()
async def end_for_good(runtime: Runtime, *, order: int, password: str = "") -> None:
    raise PermanentError(f"order {order} cannot be; {password} was tried")


@task(max_retries=1)
async def end_exhausted(runtime: Runtime, *, order: int) -> None:
    raise TransientError(f"order {order} is not ready")


@task()
async def end_by_fault(runtime: Runtime) -> float:
    return 1 / int(os.environ.get("NOTHING", "0"))


@task(time_limit=31)
async def end_by_soft_limit(runtime: Runtime) -> None:
    await asyncio.sleep(60)


@task(time_limit=2)
async def end_by_hard_limit(runtime: Runtime) -> None:
    # The loop itself is stuck, so that nothing but a kill ends it.
    time.sleep(60)  # noqa: ASYNC251 - see above


@task()
async def count_steps(runtime: Runtime, *, steps: int, seconds: float) -> str:
    for step in range(steps):
        await runtime.progress(step + 1, steps)
        await asyncio.sleep(seconds)
    return f"{steps} steps"
