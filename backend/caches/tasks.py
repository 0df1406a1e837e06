"""The task that has caches refreshed."""

from backend.caches import service as caches
from backend.core.runtime import Runtime, task


@task(max_retries=0, time_limit=60)
async def load_cache_schedules(runtime: Runtime) -> dict[str, object]:
    """Send the refresh of every cache that is due; the settings are read anew each time."""
    async with runtime.db.transaction() as session:
        started = await caches.start_due(session)
    return {"started": started}
