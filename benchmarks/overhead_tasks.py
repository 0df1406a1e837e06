"""The same nothing three times, for comparison: `--include=benchmarks.overhead_tasks`."""

from backend.celery_app import app
from backend.core.idempotency import idempotent_task
from backend.core.runtime import Runtime, task


@app.task(name="plain_nothing")
def plain_nothing(*, number: int) -> int:
    """A Celery task."""
    return number


@task()
async def runtime_nothing(runtime: Runtime, *, number: int) -> int:  # noqa: ARG001 - every handler is given the runtime
    """A task of `core.runtime`."""
    return number


@task()
@idempotent_task()
async def idempotent_nothing(runtime: Runtime, *, number: int) -> int:  # noqa: ARG001
    """One that keeps a record of each number."""
    return number
