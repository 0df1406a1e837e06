"""SQL of what was said."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.paging import Position, newest_first
from backend.notifications.models import Notification, NotificationDelivery
from backend.notifications.states import Kind


class NotificationRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, notification_id: UUID) -> Notification | None:
        return await self._session.get(Notification, notification_id, populate_existing=True)

    async def add(self, row: Notification) -> bool:
        """False where its key is taken."""
        statement = insert(Notification).values(row.model_dump()).on_conflict_do_nothing()
        connection = await self._session.connection()
        return (await connection.execute(statement.returning(col(Notification.id)))).first() is not None

    async def id_of(self, dedup_key: str) -> UUID | None:
        query = select(Notification.id).where(Notification.dedup_key == dedup_key)
        return (await self._session.exec(query)).first()

    async def add_deliveries(self, rows: list[NotificationDelivery]) -> None:
        """What is due now is due by the database's clock. An address that the notification has already is left out."""
        if not rows:
            return
        now = utc_now()
        values: list[dict[str, Any]] = [
            row.model_dump() | ({"due_at": func.now()} if row.due_at <= now else {}) for row in rows
        ]
        connection = await self._session.connection()
        await connection.execute(insert(NotificationDelivery).values(values).on_conflict_do_nothing())

    async def inbox(self, user_id: UUID, *, unread: bool, after: Position | None, limit: int) -> list[Notification]:
        """A user's own, newest first."""
        query = select(Notification).where(Notification.user_id == user_id, Notification.kind == Kind.MESSAGE)
        query = newest_first(query.limit(limit), col(Notification.created_at), col(Notification.id), after)
        if unread:
            query = query.where(col(Notification.read_at).is_(None))
        return list((await self._session.exec(query)).all())

    async def mark_read(self, user_id: UUID, notification_id: UUID | None = None) -> int:
        """One of a user's own, or all; how many were unread."""
        query = update(Notification).where(col(Notification.user_id) == user_id, col(Notification.read_at).is_(None))
        if notification_id is not None:
            query = query.where(col(Notification.id) == notification_id)
        connection = await self._session.connection()
        return (await connection.execute(query.values(read_at=func.now()))).rowcount

    async def accept(self, notification_id: UUID) -> None:
        query = update(Notification).where(col(Notification.id) == notification_id)
        connection = await self._session.connection()
        await connection.execute(query.values(accepted_at=func.coalesce(Notification.accepted_at, func.now())))
