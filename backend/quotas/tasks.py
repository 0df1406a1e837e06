"""The quotas' own tasks: the reset at midnight UTC, and the sweep."""

from backend.core.runtime import Runtime, task
from backend.quotas import service as quotas


@task(max_retries=3, time_limit=300, also=("backend.tasks.reset_daily_quotas_task",))
async def reset_daily_quotas(runtime: Runtime) -> dict[str, object]:
    """Close the days that are over. However often it is sent, a day is closed once; `reset` says whether by this one."""
    return (await quotas.reset(runtime.db)).model_dump(mode="json")


@task(max_retries=0, time_limit=120)
async def sweep_quotas(runtime: Runtime) -> dict[str, int]:
    """Settle or release reservations that were left behind. A second delivery finds those that are left, which are none."""
    return await quotas.sweep(runtime.db)
