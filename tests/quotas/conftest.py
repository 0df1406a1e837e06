"""What tests of quotas ask of the database."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from backend.accounts.models import User
from backend.core.db import Database
from backend.quotas import service as quotas
from backend.quotas.service import Standing


async def rows(db: Database, sql: str, **values: Any) -> list[Any]:
    async with db.transaction() as session:
        return list((await (await session.connection()).execute(text(sql), values)).all())


async def change(db: Database, sql: str, **values: Any) -> int:
    """How many rows a statement changed."""
    async with db.transaction() as session:
        return (await (await session.connection()).execute(text(sql), values)).rowcount


async def limit(db: Database, user: User, *, minutes: int | None = None, files: int | None = None) -> None:
    """Limits of one's own."""
    await change(
        db,
        "insert into user_quotas (user_id, minutes_per_day, files_per_day, updated_by) values (:user, :minutes, :files, 'ada')",
        user=user.id,
        minutes=minutes,
        files=files,
    )


async def pass_days(db: Database, days: int = 1) -> None:
    """What has happened so far was that many days ago."""
    await change(db, "update quota_counters set day = day - cast(:days as integer)", days=days)
    await change(db, "update quota_reservations set day = day - cast(:days as integer)", days=days)
    await change(db, "update quota_resets set day = day - cast(:days as integer)", days=days)


async def reserve(db: Database, user: User, key: UUID, seconds: float, files: int = 1) -> None:
    async with db.transaction() as session:
        await quotas.reserve(session, user_id=user.id, key=key, seconds=seconds, files=files)


async def adjust(db: Database, key: UUID, seconds: float) -> None:
    async with db.transaction() as session:
        await quotas.adjust(session, key=key, seconds=seconds)


async def settle(db: Database, key: UUID, seconds: float) -> None:
    async with db.transaction() as session:
        await quotas.settle(session, key=key, seconds=seconds)


async def release(db: Database, key: UUID) -> None:
    async with db.transaction() as session:
        await quotas.release(session, key=key)


async def standing(db: Database, user: User) -> Standing:
    async with db.transaction() as session:
        return await quotas.standing(session, user.id)


async def counts(db: Database, user: User) -> tuple[float, int, float, int]:
    """Seconds and files used, seconds and files reserved today."""
    now = await standing(db, user)
    return now.used_seconds, now.used_files, now.reserved_seconds, now.reserved_files
