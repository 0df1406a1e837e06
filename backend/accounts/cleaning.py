"""What is over is deleted by age, in batches; what people have done is counted."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from backend.accounts.repository.sessions import SessionRepository
from backend.accounts.repository.throttles import ThrottleRepository
from backend.accounts.repository.users import UserRepository
from backend.config import Config
from backend.core.db import Database, Session

BATCH = 1_000

# Longer than any lock lasts.
_THROTTLES = timedelta(days=1)


async def clean(db: Database, config: Config, *, batch: int = BATCH) -> dict[str, int]:
    """Delete sessions and API keys that have been over for BEATLINE_SESSION_RETENTION_DAYS (0: as soon as they are).

    Also attempts to sign in of long ago. How many rows of what.
    """
    kept = timedelta(days=config.accounts.retention_days)

    async def sessions(session: Session) -> int:
        return await SessionRepository(session).purge("user_sessions", kept, batch)

    async def api_keys(session: Session) -> int:
        return await SessionRepository(session).purge("api_keys", kept, batch)

    async def attempts(session: Session) -> int:
        return await ThrottleRepository(session).purge(_THROTTLES, batch)

    return {
        "sessions": await _in_batches(db, sessions, batch),
        "api_keys": await _in_batches(db, api_keys, batch),
        "login_throttles": await _in_batches(db, attempts, batch),
    }


async def _in_batches(db: Database, purge: Callable[[Session], Awaitable[int]], batch: int) -> int:
    """Each batch is a transaction of its own, so that nobody waits long for a row."""
    total = 0
    while True:
        async with db.transaction() as session:
            deleted = await purge(session)
        total += deleted
        if deleted < batch:
            return total


async def count_work(session: Session) -> int:
    """Count anew, for every user, what they have done; how many users there are. Twice gives the same."""
    users = UserRepository(session)
    # Two at once would wait for each other's rows.
    await users.alone("user_stats")
    return await users.sync_stats()
