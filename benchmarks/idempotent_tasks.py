"""Two tasks that do nothing, for comparison: `--include=benchmarks.idempotent_tasks`."""

from backend.core.idempotency import idempotent_task
from backend.core.runtime import Runtime, task


@task()
async def plain_noop(runtime: Runtime, *, number: int) -> None:
    """Nothing."""


@task()
@idempotent_task(ttl=3600)
async def idempotent_noop(runtime: Runtime, *, number: int) -> None:
    """Nothing, once per number."""
