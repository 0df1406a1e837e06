"""Reading the logs, by pages and whole."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from backend.audit.repository.logs import LogRepository
from backend.audit.schemas import LoginFilter, LoginRead, OperationFilter, OperationRead
from backend.core.db import Database, Session
from backend.core.paging import Page, Position, decode_cursor, encode_cursor

Read = TypeVar("Read", OperationRead, LoginRead)

_BATCH = 1_000


async def list_operations(
    session: Session, wanted: OperationFilter, *, cursor: str | None = None, limit: int = 50
) -> Page[OperationRead]:
    """Newest first."""
    return _page(await _operations(session, wanted, decode_cursor(cursor), limit + 1), limit)


async def list_logins(
    session: Session, wanted: LoginFilter, *, cursor: str | None = None, limit: int = 50
) -> Page[LoginRead]:
    """Newest first."""
    return _page(await _logins(session, wanted, decode_cursor(cursor), limit + 1), limit)


async def every_operation(
    db: Database, wanted: OperationFilter, *, limit: int | None = None
) -> AsyncIterator[OperationRead]:
    """All that the filter lets through, or the newest `limit`; what is logged meanwhile is left out."""
    async for one in _every(db, lambda session, after, count: _operations(session, wanted, after, count), limit):
        yield one


async def every_login(db: Database, wanted: LoginFilter, *, limit: int | None = None) -> AsyncIterator[LoginRead]:
    """As `every_operation`."""
    async for one in _every(db, lambda session, after, count: _logins(session, wanted, after, count), limit):
        yield one


async def allow_deletion(session: Session) -> None:
    """Lift the append-only lock of both logs until the end of this transaction. For retention alone."""
    await LogRepository(session).allow_deletion()


async def _operations(
    session: Session, wanted: OperationFilter, after: Position | None, limit: int
) -> list[OperationRead]:
    rows = await LogRepository(session).operations(wanted, after, limit)
    return [OperationRead.model_validate(row) for row in rows]


async def _logins(session: Session, wanted: LoginFilter, after: Position | None, limit: int) -> list[LoginRead]:
    rows = await LogRepository(session).logins(wanted, after, limit)
    return [LoginRead.model_validate(row) for row in rows]


def _page(found: list[Read], limit: int) -> Page[Read]:
    more = encode_cursor((found[limit - 1].at, found[limit - 1].id)) if len(found) > limit else None
    return Page(items=found[:limit], next_cursor=more)


async def _every(
    db: Database, read: Callable[[Session, Position | None, int], Awaitable[list[Read]]], limit: int | None
) -> AsyncIterator[Read]:
    """A short transaction for each batch: whoever reads slowly holds nothing."""
    after: Position | None = None
    left = limit
    while left is None or left > 0:
        count = _BATCH if left is None else min(_BATCH, left)
        async with db.transaction() as session:
            batch = await read(session, after, count)
        for one in batch:
            yield one
        if len(batch) < count:
            return
        after = (batch[-1].at, batch[-1].id)
        left = None if left is None else left - count
