"""The daily reset, and the sweep of reservations that nobody will settle any more."""

from backend.core.db import Database
from backend.core.errors import TransientError
from backend.quotas import spending
from backend.quotas.repository.resetting import ResetRepository
from backend.quotas.schemas import ResetDone

# Beat's clock may be ahead of the database's by so much, seconds: its midnight comes before the database's day has begun.
_CLOCKS_APART = 120.0
# Longer than any step of a worker that finds its recording changed.
_LEFT_SECONDS = 3600.0
_SWEPT = 1_000


async def reset(db: Database, *, apart: float = _CLOCKS_APART) -> ResetDone:
    """Close the days before today, by the database's clock and in UTC: once a day, however often it is asked for.

    Allowances are counted by day and begin anew by themselves at midnight, so nobody waits for a reset that comes late or never.
    TransientError where today is closed already and nearly over: the clock of whoever asks may be ahead of the database's.
    """
    async with db.transaction() as session:
        rows = ResetRepository(session)
        done = await rows.reset()
        row = await rows.today()
    if not done and row.until_next < apart:
        raise TransientError(f"the day of {row.day} is not over yet by the database's clock", after=row.until_next + 1)
    return ResetDone(
        day=row.day,
        reset=done,
        users=row.users,
        used_seconds=row.used_ms / 1000,
        used_files=row.used_files,
        kept=row.kept,
    )


async def sweep(db: Database, *, seconds: float = _LEFT_SECONDS) -> dict[str, int]:
    """Settle or release what was left open for that long, although its recording has come to an end or is gone; how many."""
    async with db.transaction() as session:
        left = await ResetRepository(session).left_over(seconds, _SWEPT)
    settled = 0
    for each in left:
        async with db.transaction() as session:
            if each.used_ms is None:
                await spending.release(session, key=each.key)
            else:
                await spending.settle(session, key=each.key, seconds=each.used_ms / 1000)
                settled += 1
    return {"settled": settled, "released": len(left) - settled}
