"""SQL of dead letters."""

from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from backend.core.db import Session
from backend.core.paging import Position, newest_first
from backend.queues.models import DeadLetter
from backend.queues.schemas import LetterFilter
from backend.queues.states import LetterState

T = TypeVar("T")


class LetterRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, letter_id: UUID) -> DeadLetter | None:
        return await self._session.get(DeadLetter, letter_id, populate_existing=True)

    async def lock(self, letter_id: UUID) -> DeadLetter | None:
        """Waits for whoever sends it again at this moment."""
        return await self._session.get(DeadLetter, letter_id, with_for_update=True, populate_existing=True)

    async def now(self) -> datetime:
        return (await self._session.exec(select(func.now()))).one()

    async def save(self, letter: DeadLetter) -> None:
        self._session.add(letter)
        await self._session.flush()

    async def page(
        self, wanted: LetterFilter, *, state: LetterState | None, after: Position | None, limit: int
    ) -> list[DeadLetter]:
        """Newest last end first."""
        query = _filtered(select(DeadLetter), wanted).limit(limit)
        query = newest_first(query, col(DeadLetter.last_seen), col(DeadLetter.id), after)
        if state is not None:
            query = query.where(DeadLetter.state == state)
        return list((await self._session.exec(query)).all())

    async def count(self, wanted: LetterFilter, *, state: LetterState | None, sendable: bool, at_most: int) -> int:
        """`at_most` stands for more than that, too; `sendable` leaves out those whose arguments are not whole."""
        query = _filtered(select(DeadLetter.id), wanted)
        if state is not None:
            query = query.where(DeadLetter.state == state)
        if sendable:
            query = query.where(col(DeadLetter.incomplete).is_(None))
        return (await self._session.exec(select(func.count()).select_from(query.limit(at_most).subquery()))).one()

    async def open_before(self, wanted: LetterFilter, before: datetime, limit: int) -> list[UUID]:
        """Open letters whose last end was before, oldest first."""
        query = _filtered(select(DeadLetter.id), wanted).where(DeadLetter.state == LetterState.OPEN)
        query = query.where(col(DeadLetter.last_seen) <= before).where(col(DeadLetter.incomplete).is_(None))
        query = query.order_by(col(DeadLetter.first_seen), col(DeadLetter.id)).limit(limit)
        return list((await self._session.exec(query)).all())


def _filtered(query: "SelectOfScalar[T]", wanted: LetterFilter) -> "SelectOfScalar[T]":
    for field in ("task", "queue", "kind"):
        value = getattr(wanted, field)
        if value is not None:
            query = query.where(getattr(DeadLetter, field) == value)
    return query.where(col(DeadLetter.last_seen) >= wanted.since) if wanted.since is not None else query
