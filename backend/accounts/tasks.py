"""The accounts' own tasks: cleaning up, counting."""

from backend.accounts import service as accounts
from backend.core.runtime import Runtime, task


@task(max_retries=3, time_limit=300)
async def cleanup_expired_sessions(runtime: Runtime) -> dict[str, int]:
    """Delete sessions and API keys that have been over for a while, and attempts to sign in of long ago.

    A second delivery finds what is left, which is nothing.
    """
    return await accounts.clean(runtime.db, runtime.config)


@task(max_retries=3, time_limit=300)
async def sync_user_stats(runtime: Runtime) -> dict[str, int]:
    """Count what everybody has done, from the rows that are kept. A second delivery writes the same figures."""
    async with runtime.db.transaction() as session:
        return {"users": await accounts.count_work(session)}
