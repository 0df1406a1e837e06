"""SQL of the logs: reading them."""

from typing import TypeVar

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from backend.audit.models import LoginEntry, OperationEntry
from backend.audit.schemas import Filter, LoginFilter, OperationFilter
from backend.core.db import Session
from backend.core.paging import Position, newest_first

Entry = TypeVar("Entry", OperationEntry, LoginEntry)


class LogRepository:
    """Pages, newest first."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def allow_deletion(self) -> None:
        connection = await self._session.connection()
        await connection.execute(text("select set_config('beatline.retention', 'on', true)"))

    async def operations(self, wanted: OperationFilter, after: Position | None, limit: int) -> list[OperationEntry]:
        query = _filtered(select(OperationEntry), OperationEntry, wanted, after)
        if wanted.who is not None:
            query = query.where(OperationEntry.actor == wanted.who)
        for name in ("method", "route", "path"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(getattr(OperationEntry, name) == value)
        if wanted.status is not None:
            low, high = (int(wanted.status.replace("x", digit)) for digit in ("0", "9"))
            query = query.where(col(OperationEntry.status).between(low, high))
        return list((await self._session.exec(query.limit(limit))).all())

    async def logins(self, wanted: LoginFilter, after: Position | None, limit: int) -> list[LoginEntry]:
        query = _filtered(select(LoginEntry), LoginEntry, wanted, after)
        if wanted.who is not None:
            query = query.where(LoginEntry.username == wanted.who)
        if wanted.outcome is not None:
            query = query.where(LoginEntry.outcome == wanted.outcome)
        return list((await self._session.exec(query.limit(limit))).all())


def _filtered(
    query: "SelectOfScalar[Entry]", table: type[Entry], wanted: Filter, after: Position | None
) -> "SelectOfScalar[Entry]":
    at = col(table.at)
    for name in ("user_id", "address", "request_id"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(getattr(table, name) == value)
    if wanted.since is not None:
        query = query.where(at >= wanted.since)
    if wanted.until is not None:
        query = query.where(at < wanted.until)
    return newest_first(query, at, col(table.id), after)
